"""Tiny models with random weights and a word tokenizer, built offline in milliseconds; any test may import these."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast

from tunescope.models.quiet import quietly

WORDS = re.findall(
    r"\w+", "the a cat dog bird sat ran flew on under over mat tree house red blue small big and then it was not very new old day night"
) + ["sea", "sun"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = 48
LAYERS, WIDTH = 3, 16
TEXTS = [
    "the cat sat on the mat",
    "a dog ran",
    "the small red bird flew over the big old house and then it was night",
    "sun",
    "it was not a very new day and the blue sea was under the sun",
    "dog and cat and bird",
    "the house",
]

_COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 66, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
_MODERN = _COMMON | {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 32}
_GROUPED = _MODERN | {"num_key_value_heads": 1, "head_dim": 8}
_GPT2 = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "bos_token_id": 2, "eos_token_id": 3}
CONFIGS: dict[str, dict] = {
    "bert": _MODERN,
    "roberta": _MODERN | {"pad_token_id": 1},
    "xlm-roberta": _MODERN | {"pad_token_id": 1},
    "mpnet": _MODERN | {"pad_token_id": 1},
    "electra": _MODERN | {"embedding_size": 8},
    "distilbert": _COMMON | {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 32},
    "gpt2": _GPT2,
    "opt": _MODERN | {"ffn_dim": 32, "word_embed_proj_dim": 8, "pad_token_id": 1},
    "gpt_neox": _MODERN | {"pad_token_id": None},
    "codegen": _GPT2 | {"rotary_dim": 4, "n_head": 4},
    "llama": _GROUPED | {"pad_token_id": None},
    "mistral": _GROUPED | {"sliding_window": 8},
    "qwen2": _GROUPED,
    "qwen3": _GROUPED,
    "gemma": _GROUPED,
    "gemma2": _GROUPED | {"sliding_window": 8},
    "gemma3_text": _GROUPED | {"sliding_window": 8},
}
UNLISTED: dict[str, dict] = {"phi": _MODERN, "bloom": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 2}}
_T5 = {"vocab_size": VOCABULARY, "d_model": WIDTH, "num_layers": LAYERS, "num_heads": 2, "d_kv": 8, "d_ff": 32, "decoder_start_token_id": 0}
_BART = _COMMON | {"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": 1, "decoder_start_token_id": 2}
_BART |= {f"{side}_{part}": size for side in ("encoder", "decoder") for part, size in (("attention_heads", 2), ("ffn_dim", 32))}
ENCODERS: dict[str, dict] = {"t5": _T5, "umt5": _T5, "bart": _BART, "mbart": _BART, "pegasus": _BART, "marian": _BART, "m2m_100": _BART}
_CLIP_TEXT = _MODERN | {"projection_dim": 8}
_CLIP_VISION = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_CLIP_VISION |= {"image_size": 8, "patch_size": 4}
CLIP: dict[str, dict] = {
    "clip": {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION, "projection_dim": 8},
    "clip_text_model": _CLIP_TEXT,
}
RECURRENT: dict[str, dict] = {
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 4},
    "rwkv": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "context_length": 64},
}
EVERY = CONFIGS | UNLISTED | RECURRENT | ENCODERS | CLIP
DECODERS = ("gpt2", "opt", "gpt_neox", "codegen", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")


def tiny_config(family: str = "bert", **changes):
    """The config of a tiny model: 3 blocks of 16 features, 48 tokens, 64 positions."""
    with quietly():
        return AutoConfig.for_model(family, **(EVERY.get(family, {}) | changes))


def tiny_model(family: str = "bert", *, seed: int = 0, head: str = "", **changes) -> torch.nn.Module:
    """A tiny random model in evaluation mode; head "mlm" or "lm" adds the task head. Weights are large enough to matter."""
    loader = {"": AutoModel, "mlm": AutoModelForMaskedLM, "lm": AutoModelForCausalLM}[head]
    with quietly():
        torch.manual_seed(seed)
        model = loader.from_config(tiny_config(family, **changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def tiny_tokenizer(*, pad: bool = True, special: bool = True, side: str = "right", pad_id: int = 0) -> PreTrainedTokenizerFast:
    """Whole words of WORDS, everything else unknown; [CLS] text [SEP] if special; without a padding token if not pad."""
    names = list(SPECIAL)
    if pad_id:
        names[0], names[pad_id] = names[pad_id], names[0]
    vocabulary = {word: index for index, word in enumerate([*names, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        pairs = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
        template = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B [SEP]"}
        backend.post_processor = processors.TemplateProcessing(**template, special_tokens=pairs)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]" if pad else None,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side=side,
        model_max_length=64,
    )


def tokenizer_for(family: str) -> PreTrainedTokenizerFast:
    """The tiny tokenizer whose padding token the family's config expects."""
    pad = EVERY[family].get("pad_token_id", 0)
    return tiny_tokenizer(special=family not in (*DECODERS, *RECURRENT), pad=pad is not None, pad_id=pad or 0)


def save_model(folder: Path, family: str = "bert", *, model: torch.nn.Module | None = None, **options) -> Path:
    """A model folder with its tokenizer."""
    with quietly():
        (model if model is not None else tiny_model(family, **options)).save_pretrained(folder)
        tokenizer_for(family).save_pretrained(folder)
    return folder


def adapted(model: torch.nn.Module, *, seed: int = 1, **options):
    """A PeftModel around `model` (in place) with a LoRA whose matrices are both random: it really changes the output."""
    with quietly():
        torch.manual_seed(seed)
        peft = get_peft_model(model, LoraConfig(**({"r": 2, "lora_alpha": 8, "target_modules": ["query", "value"]} | options)))
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.5 * torch.randn_like(parameter))
    return peft.eval()


def save_adapter(folder: Path, base: Path, *, head: str = "", model: torch.nn.Module | None = None, **options) -> Path:
    """A PEFT adapter folder trained, so to speak, on the model in `base` (with a task head if asked)."""
    loader = {"": AutoModel, "mlm": AutoModelForMaskedLM, "lm": AutoModelForCausalLM}[head]
    with quietly():
        model = model if model is not None else loader.from_pretrained(base)
        adapted(model, **options).save_pretrained(folder)
    return folder


def save_sentence_transformer(
    folder: Path, *, pooling: dict | None = None, dense: int | None = None, settings: dict | None = None, **model
) -> Path:
    """A sentence-transformers folder written by hand: Transformer, Pooling, maybe Dense (Tanh), Normalize."""
    save_model(folder, **model)
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH} | (pooling or {"pooling_mode_mean_tokens": True}))
    _write(folder / "config_sentence_transformers.json", settings or {})
    if dense:
        place = folder / "2_Dense"
        kind = "torch.nn.modules.activation.Tanh"
        _write(place / "config.json", {"in_features": WIDTH, "out_features": dense, "bias": True, "activation_function": kind})
        generator = torch.Generator().manual_seed(5)
        weights = {"linear.weight": torch.randn(dense, WIDTH, generator=generator), "linear.bias": torch.randn(dense, generator=generator)}
        save_file(weights, place / "model.safetensors")
    return folder


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
