"""The table of known families: where the parts of a body are, and what running and training it must know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

BERT_TARGETS = ("query", "key", "value", "dense")
LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
OPT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


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
    bypassed: tuple[str, ...] = ()  # modules whose weight the forward reads directly, past any adapter put on them


_BERT = Family("encoder.layer", ("embeddings",), None, False, BERT_TARGETS)
_LLAMA = Family("layers", ("embed_tokens",), "norm", True, LLAMA_TARGETS)
_T5 = Family("block", ("embed_tokens",), "final_layer_norm", False, ("q", "k", "v", "o"), body="encoder")
_BART = Family("layers", ("embed_tokens", "embed_positions"), None, False, OPT_TARGETS)
_MBART = Family("layers", ("embed_tokens", "embed_positions"), "layer_norm", False, OPT_TARGETS)
_CLIP = Family("encoder.layers", ("embeddings",), "final_layer_norm", True, OPT_TARGETS, body="text_model")

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
        "opt": Family("decoder.layers", ("decoder.embed_tokens", "decoder.embed_positions"), "decoder.final_layer_norm", True, OPT_TARGETS),
        "gpt_neox": Family("layers", ("embed_in",), "final_layer_norm", True, ("query_key_value", "dense"), parallel=True),
        "codegen": Family("h", ("wte",), "ln_f", True, ("qkv_proj", "out_proj", "fc_in", "fc_out"), parallel=True),
        "mamba": Family("layers", ("embeddings",), "norm_f", True, ("in_proj", "x_proj", "dt_proj"), bypassed=("dt_proj", "conv1d")),
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
        "t5": _T5,
        "mt5": _T5,
        "umt5": _T5,
        "bart": _BART,
        "marian": _BART,
        "mbart": _MBART,
        "pegasus": _MBART,
        "m2m_100": _MBART,
        "clip": _CLIP,
        "clip_text_model": _CLIP,
    }
)
