"""What a checkpoint was pretrained with: a fact of the checkpoint, not of its family (E5 is a BERT body trained by contrast)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

from tunescope.errors import UnknownName

UNKNOWN = "unknown"
# Joined by "+" where a checkpoint was trained with several, in turn or together.
OBJECTIVES = (
    "mlm",
    "nsp",
    "permuted-lm",
    "replaced-token",
    "span-corruption",
    "denoising",
    "causal-lm",
    "distillation",
    "contrastive",
    "contrastive-image-text",
    UNKNOWN,
)
_CANONICAL = ("google-bert", "FacebookAI", "openai-community", "distilbert", "google-t5")  # once on the hub without a name before the slash


def _each(pattern: str, objective: str) -> dict[str, str]:
    """One entry for every way of filling the {a,b} alternatives of a pattern."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return {"".join(chosen): objective for chosen in product(*choices)}


# By the name on the hub. Source: the model card or paper of each.
CHECKPOINTS: Mapping[str, str] = MappingProxyType(
    _each("google-bert/bert-{base,large}-{uncased,cased}", "mlm+nsp")
    | _each("google-bert/bert-base-multilingual-{uncased,cased}", "mlm+nsp")
    | _each("google-bert/bert-large-{uncased,cased}-whole-word-masking", "mlm+nsp")
    | _each("FacebookAI/roberta-{base,large}", "mlm")
    | _each("FacebookAI/xlm-roberta-{base,large}", "mlm")
    | _each("microsoft/mpnet-base", "mlm+permuted-lm")
    | _each("google/electra-{small,base,large}-discriminator", "replaced-token")
    | _each("distilbert/distilbert-base-{uncased,cased,multilingual-cased}", "distillation+mlm")
    | _each("distilbert/distilroberta-base", "distillation+mlm")
    | _each("openai-community/gpt2{,-medium,-large,-xl}", "causal-lm")
    | _each("distilbert/distilgpt2", "distillation+causal-lm")
    | _each("facebook/opt-{125m,350m,1.3b,2.7b,6.7b,13b,30b,66b}", "causal-lm")
    | _each("EleutherAI/pythia-{14m,31m,70m,160m,410m,1b,1.4b,2.8b,6.9b,12b}{,-deduped}", "causal-lm")
    | _each("EleutherAI/gpt-neox-20b", "causal-lm")
    | _each("Salesforce/codegen-{350M,2B,6B,16B}-{nl,multi,mono}", "causal-lm")
    | _each("state-spaces/mamba-{130m,370m,790m,1.4b,2.8b}{,-hf}", "causal-lm")
    | _each("RWKV/rwkv-4-{169m,430m,1b5,3b,7b,14b}-pile", "causal-lm")
    | _each("meta-llama/Llama-3.2-{1B,3B}", "causal-lm")
    | _each("meta-llama/Llama-3.1-{8B,70B}", "causal-lm")
    | _each("Qwen/Qwen2.5-{0.5B,1.5B,3B,7B,14B,32B,72B}", "causal-lm")
    | _each("Qwen/Qwen3-{0.6B,1.7B,4B,8B,14B}-Base", "causal-lm")
    | _each("mistralai/Mistral-7B-v0.{1,3}", "causal-lm")
    | _each("google/gemma-{2b,7b,2-2b,2-9b,2-27b}", "causal-lm")
    | _each("google-t5/t5-{small,base,large,3b,11b}", "span-corruption")
    | _each("google/mt5-{small,base,large,xl,xxl}", "span-corruption")
    | _each("facebook/bart-{base,large}", "denoising")
    | _each("facebook/mbart-large-cc25", "denoising")
    | _each("intfloat/e5-{small,base,large}{,-v2}", "contrastive")
    | _each("intfloat/multilingual-e5-{small,base,large}", "contrastive")
    | _each("sentence-transformers/all-{MiniLM-L6-v2,MiniLM-L12-v2,mpnet-base-v2,distilroberta-v1}", "contrastive")
    | _each("nreimers/MiniLM-L6-H384-uncased", "distillation")
    | _each("microsoft/MiniLM-L12-H384-uncased", "distillation")
    | _each("thenlper/gte-{small,base,large}", "contrastive")
    | _each("BAAI/bge-{small,base,large}-en{,-v1.5}", "contrastive")
    | _each("openai/clip-vit-{base-patch16,base-patch32,large-patch14,large-patch14-336}", "contrastive-image-text")
    | _each("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "contrastive-image-text")
)
_BY_NAME = {name.lower(): objective for name, objective in CHECKPOINTS.items()}
_BY_NAME |= {name.split("/")[1].lower(): objective for name, objective in CHECKPOINTS.items() if name.split("/")[0] in _CANONICAL}
_CACHE = re.compile(r"models--([^/\\]+?)--([^/\\]+)")  # a folder of the hub's cache


def pretraining_of(*names: str | None) -> str:
    """The objective of the first of these names that is a known checkpoint: hub ids, old short ids, or folders of the hub's cache."""
    for name in filter(None, names):
        cached = _CACHE.search(name)
        known = _BY_NAME.get(("/".join(cached.groups()) if cached else name).lower())
        if known:
            return known
    return UNKNOWN


def check_pretraining(declared: str) -> str:
    """`declared` if it is made of known objectives joined by "+". Raises UnknownName otherwise."""
    for part in declared.split("+"):
        if part not in OBJECTIVES:
            raise UnknownName("pretraining objective", part, OBJECTIVES)
    return declared
