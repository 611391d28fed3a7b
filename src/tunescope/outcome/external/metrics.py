"""Which metrics are better high and which low: known by name, said by the file, or said by the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunescope.errors import InputError
from tunescope.outcome.external.measured import Measured

# fmt: off
HIGHER = frozenset([
    "acc", "acc_all", "acc_bytes", "acc_mutual_info", "acc_norm", "accuracy", "ap", "auc", "auroc", "bleu", "chrf", "chrf++", "correct",
    "em", "exact", "exact_match", "f1", "f1_macro", "f1_micro", "f1_weighted", "grade", "hit_rate", "macro_f1", "main_score", "map",
    "mcc", "mrr", "ndcg", "pass", "pearson", "precision", "r2", "recall", "roc_auc", "rouge", "rouge1", "rouge2", "rougel", "rougelsum",
    "spearman", "success", "v_measure", "win_rate",
])
LOWER = frozenset([
    "bits_per_byte", "brier", "brier_score", "byte_perplexity", "cer", "cross_entropy", "error", "error_rate", "log_byte_perplexity",
    "log_perplexity", "log_word_perplexity", "loss", "mae", "mse", "nll", "perplexity", "ppl", "rmse", "ter", "wer", "word_perplexity",
])
# fmt: on

Direction = bool | Mapping[str, bool] | None


def plain(metric: str) -> str:
    """The metric without the filter of lm-evaluation-harness ("exact_match,strict-match"), the cut ("ndcg@10") or the scorer."""
    name = metric.split(",")[0].split("/")[-1].strip().lower()
    return re.sub(r"(?:@|_at_)\d+$", "", name)


def direction(measured: Measured, said: Direction) -> bool | None:
    """Whether more is better: as the caller says, else as the file says, else as its name is known; None where nobody says."""
    if isinstance(said, bool):
        return said
    for name in (measured.metric, measured.metric.split(",")[0]):
        if said is not None and name in said:
            return said[name]
    if measured.higher_is_better is not None:
        return measured.higher_is_better
    name = plain(measured.metric)
    return True if name in HIGHER else False if name in LOWER else None


def undirected(measured: Measured) -> InputError:
    """The error of a metric that nobody says the direction of."""
    return InputError(
        f"{measured.source}: is more of '{measured.metric}' better or worse? The name does not say; "
        "pass higher_is_better=True or False, or a metric whose direction is known (metric='acc'). On the command line: "
        f"--results +{measured.metric}=FILES where more is better, -{measured.metric}=FILES where less is"
    )
