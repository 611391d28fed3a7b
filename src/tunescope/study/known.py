"""What the parts that load torch know by name, for those that must not: a test holds every table here against the registry it repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LEFT, BOTH, EITHER = "left", "both", "either"
TEXTS, PAIRS, LABELS, CONVERSATIONS = "texts", "pairs", "labels", "conversations"


@dataclass(frozen=True)
class KnownObjective:
    """needs: what an item is. reads: the direction in which a model must read: left (causal), both (masked), either.

    passes: forward passes a text, for estimates.
    """

    needs: str
    reads: str
    settings: tuple[str, ...] = ()
    passes: int = 1


_VIEWS = ("pooling", "views")
OBJECTIVES: Mapping[str, KnownObjective] = MappingProxyType(
    {
        "mlm": KnownObjective(TEXTS, BOTH, ("share", "head")),
        "nsp": KnownObjective(TEXTS, BOTH),
        "span-denoise": KnownObjective(TEXTS, BOTH, ("share", "head")),
        "causal-lm": KnownObjective(TEXTS, LEFT),
        "causal-span": KnownObjective(TEXTS, LEFT, ("share",)),
        "simcse": KnownObjective(TEXTS, EITHER, ("temperature", *_VIEWS), 2),
        "barlow-twins": KnownObjective(TEXTS, EITHER, ("weight", *_VIEWS), 2),
        "sft": KnownObjective(CONVERSATIONS, LEFT),
        "contrastive": KnownObjective(PAIRS, EITHER, ("temperature", "query_prompt", "passage_prompt", "pooling", "chunk"), 2),
        "classify": KnownObjective(LABELS, EITHER, ("classes", "pooling")),
    }
)
VIEWS = ("auto", "forced", "native", "as-published")

# Update rules and their options; "top-k" is asked for as "top-2", equal-step also as "lora+equal-step".
UPDATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "standard": ("weight_decay", "decay"),
        "uniform": ("weight_decay",),
        "lora": ("weight_decay", "rank", "alpha", "dropout", "targets"),
        "frozen-norm": ("weight_decay",),
        "frozen-interior": ("weight_decay",),
        "top-k": ("weight_decay", "k"),
        "bitfit": ("weight_decay",),
        "equal-step": ("weight_decay", "on", "tau"),
    }
)

# The numbers among them: whole or not, the least, whether that itself is allowed, and the most.
OPTION_RANGES: Mapping[str, tuple[bool, float, bool, float]] = MappingProxyType(
    {
        "rank": (True, 1, True, math.inf), "k": (True, 1, True, math.inf), "alpha": (False, 0, False, math.inf),
        "tau": (False, 0, False, math.inf), "dropout": (False, 0, True, 1), "decay": (False, 0, False, 1),
        "weight_decay": (False, 0, True, math.inf),
    }
)  # fmt: skip

# Kinds of `ts.perturb`: what each takes beside a seed.
CHANGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dropout": (),
        "gaussian": ("sigma", "layers"),
        "interpolate": ("alpha", "like", "layers"),
        "random-direction": ("scale", "like", "layers"),
        "random-rank": ("scale", "like", "layers"),
        "rounding": ("bits",),
    }
)
PARAMETERS = ("sigma", "alpha", "scale")  # that `ts.perturb_to` finds

MEASURES = (
    "cka", "debiased_cka", "procrustes", "nps", "isotropy", "rbf_cka", "rsa", "cca", "svcca", "pwcca", "linear_r2", "mutual_knn",
    "trustworthiness", "continuity", "relative_drift", "row_cosine", "subspace_overlap", "change_rank", "mean_cosine", "partition_ratio",
)  # fmt: skip
# Measures of two sides, whose distance a control can be moved to: not those of one side, nor the rank of a change.
TARGETS = tuple(name for name in MEASURES if name not in ("isotropy", "mean_cosine", "partition_ratio", "change_rank"))
RETRIEVAL = ("ndcg@10", "ndcg_exp@10", "mrr@10", "map", "recall@10", "recall@100")
PROBES = ("accuracy",)
LANGUAGE = ("loss", "perplexity", "bits_per_byte")
DISTANCES = ("procrustes", "cosine", "cosine_128", "cosine_32", "pearson", "fisher_cosine", "debiased_cka")
FEATURES = (
    "delta_norm", "relative_delta_norm", "r2", "r2_centred", "constant_share", "l0", "density", "dead_share", "behaviour_recovered",
    "feature_cka_biased", "feature_cka_debiased", "raw_cka_biased", "raw_cka_debiased", "firing_overlap", "firing_overlap_of_pairs",
    "improvement_applied", "improvement_recoded", "max_cosine", "max_cosine_ceiling", "one_to_one_cosine", "one_to_one_cosine_ceiling",
    "reused_share", "reused_share_ceiling", "shared_share", "shared_share_ceiling", "span_overlap", "span_overlap_ceiling",
    "unexplained_share", "unexplained_share_ceiling",
)  # fmt: skip
AMOUNTS = ("sigma", "alpha", "scale", "bits")  # rows of cost that a control writes
SUBJECTS = ("geometry", "outcome", "distance", "features", "cost")

SCHEDULE = (
    "epochs", "steps", "checkpoints", "max_length", "batch_size", "accumulate", "lr", "drawn_lr", "schedule", "warmup", "clip",
    "precision", "activation_checkpointing",
)  # fmt: skip
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("float32", "bfloat16", "float16")
METHODS = ("auto", "exact", "stream")
POOLINGS = ("mean", "cls", "last", "none")
PLACES = ("embeddings", "final", "output")  # beside "block 1", "block 2", …
SIDES = ("base", "tuned")
# Arguments of `ts.diff` and of `ts.features` that a plan may give as measure.options.
DIFF_OPTIONS = ("layers", "pooling", "batch_size", "max_length", "dtype", "device", "method", "seed")
FEATURE_OPTIONS = (
    "layers", "dictionary", "latents", "k", "architecture", "seeds", "steps", "controls", "kind", "held_out_share", "max_length",
    "batch_size", "store_dtype", "device", "dtype",
)  # fmt: skip
