"""Where the parts of a model are: one explicit table of known families, and a derived reading for the rest.

Axis legend of the package: n texts, b texts of a batch, t tokens, d features of a block, e features of the deployed embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from tunescope.errors import ModelError

BERT_TARGETS = ("query", "key", "value", "dense")
LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Family:
    """Dotted paths inside the body (the model without its task head), and what training needs to know about the family."""

    blocks: str
    embeddings: tuple[str, ...]
    final_norm: str | None
    causal: bool
    lora_targets: tuple[str, ...]
    parallel: bool = False  # attention and MLP read the same input and are added together
    body: str = ""  # where the text body sits inside what AutoModel loads
    overrides: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # config values set at load


_BERT = Family("encoder.layer", ("embeddings",), None, False, BERT_TARGETS)
_LLAMA = Family("layers", ("embed_tokens",), "norm", True, LLAMA_TARGETS)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _BERT,  # also MiniLM, E5, BGE, GTE: bare BertModel bodies
        "roberta": _BERT,
        "xlm-roberta": _BERT,
        "camembert": _BERT,
        "electra": _BERT,
        "mpnet": Family("encoder.layer", ("embeddings",), None, False, ("q", "k", "v", "o", "dense")),
        "distilbert": Family("transformer.layer", ("embeddings",), None, False, ("q_lin", "k_lin", "v_lin", "out_lin")),
        "gpt2": Family("h", ("wte", "wpe"), "ln_f", True, ("c_attn", "c_proj", "c_fc")),
        "opt": Family(
            "decoder.layers",
            ("decoder.embed_tokens", "decoder.embed_positions"),
            "decoder.final_layer_norm",
            True,
            ("q_proj", "k_proj", "v_proj", "out_proj"),
        ),
        "gpt_neox": Family("layers", ("embed_in",), "final_layer_norm", True, ("query_key_value", "dense"), parallel=True),
        "codegen": Family("h", ("wte",), "ln_f", True, ("qkv_proj", "out_proj", "fc_in", "fc_out"), parallel=True),
        "mamba": Family("layers", ("embeddings",), "norm_f", True, ("in_proj", "x_proj", "dt_proj")),
        # rescale_every halves output weights in place in eval mode, which would corrupt hashes and weight changes
        "rwkv": Family("blocks", ("embeddings",), "ln_out", True, ("key", "value", "receptance", "output"), overrides={"rescale_every": 0}),
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "gemma": _LLAMA,
        "gemma2": _LLAMA,
        "gemma3_text": _LLAMA,
        "gemma3": Family("layers", ("embed_tokens",), "norm", True, LLAMA_TARGETS, body="language_model"),
    }
)


@dataclass(frozen=True)
class Anatomy:
    """The parts of one body: `blocks`, `embeddings` and `final_norm` are dotted paths; width is d, the features of a block's output."""

    family: str
    blocks: str
    embeddings: tuple[str, ...]
    final_norm: str | None
    causal: bool
    parallel: bool
    lora_targets: tuple[str, ...]
    n_layers: int
    width: int
    derived: bool = False

    def block_modules(self, body: nn.Module) -> list[nn.Module]:
        """The blocks of `body`, first to last; block i of the reports is element i − 1."""
        return list(body.get_submodule(self.blocks))


def text_body(module: nn.Module) -> nn.Module:
    """The part of a loaded model that turns tokens into hidden states: no task head, no decoder of an encoder-decoder, no vision tower."""
    body = getattr(module, "base_model", module)
    if getattr(getattr(body, "config", None), "is_encoder_decoder", False) and hasattr(body, "get_encoder"):
        body = body.get_encoder()
    family = FAMILIES.get(_model_type(body))
    return body.get_submodule(family.body) if family and family.body and hasattr(body, family.body) else body


def read_anatomy(body: nn.Module) -> Anatomy:
    """The anatomy of `body`: from the table when its family is known, else derived from the longest list of equal blocks.

    Raises ModelError when neither works.
    """
    model_type = _model_type(body)
    family = FAMILIES.get(model_type)
    if family and _has(body, family.blocks):
        final_norm = family.final_norm if family.final_norm and _has(body, family.final_norm) else None
        blocks = body.get_submodule(family.blocks)
        return Anatomy(
            family=model_type,
            blocks=family.blocks,
            embeddings=tuple(path for path in family.embeddings if _has(body, path)),
            final_norm=final_norm,
            causal=family.causal and not getattr(body.config, "use_bidirectional_attention", False),
            parallel=family.parallel and getattr(body.config, "use_parallel_residual", True),
            lora_targets=family.lora_targets,
            n_layers=len(blocks),
            width=_width(body),
        )
    return _derive(body, model_type)


def _derive(body: nn.Module, model_type: str) -> Anatomy:
    lists = {
        name: blocks
        for name, blocks in body.named_modules()
        if isinstance(blocks, nn.ModuleList) and len(blocks) >= 2 and len({type(block) for block in blocks}) == 1
    }
    if not lists:
        raise ModelError(
            f"cannot find the blocks of {type(body).__name__} (model type '{model_type}'): "
            f"no list of two or more blocks of one class; known families: {', '.join(sorted(FAMILIES))}"
        )
    path = max(lists, key=lambda name: len(lists[name]))
    table = getattr(body, "get_input_embeddings", lambda: None)()
    return Anatomy(
        family=model_type,
        blocks=path,
        embeddings=tuple(name for name, module in body.named_modules() if module is table and table is not None),
        final_norm=None,
        causal=bool(getattr(getattr(body, "config", None), "is_decoder", False)),
        parallel=False,
        lora_targets=(),
        n_layers=len(lists[path]),
        width=_width(body),
        derived=True,
    )


def _model_type(body: nn.Module) -> str:
    return getattr(getattr(body, "config", None), "model_type", "") or type(body).__name__


def _width(body: nn.Module) -> int:
    width = getattr(getattr(body, "config", None), "hidden_size", None)
    if width is None:
        raise ModelError(f"{type(body).__name__} has no config.hidden_size; pass a Hugging Face model")
    return int(width)


def _has(body: nn.Module, path: str) -> bool:
    """Whether `path` leads to a module that is really there (some families set an unused final norm to None)."""
    node: Any = body
    for part in path.split("."):
        node = getattr(node, part, None)
        if node is None:
            return False
    return True
