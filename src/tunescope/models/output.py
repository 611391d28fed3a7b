"""How a model deploys an embedding: pooling, dense layers, normalisation and prompt, as its sentence-transformers files declare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tunescope.errors import ModelError
from tunescope.models.sources import read_json
from tunescope.models.weights import check_weight_files, hash_tensors

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")  # also the order in which several are joined
_LEGACY = {f"pooling_mode_{key}": mode for key, mode in zip(("cls_token", "max_tokens", "mean_tokens"), MODES[:3], strict=True)} | {
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS = {act.__name__: act for act in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)}


@dataclass(frozen=True)
class OutputHead:
    """From the final hidden states (b, t, d) to the deployed embeddings (b, e): pool, then the layers in order.

    declared=False means the model's files do not say how it makes an embedding: `output` is then the final state,
    pooled as the caller asks. prompts: all that the model names, and default_prompt which of them `prompt` is; these two are kept for
    saving, and no output depends on them.
    """

    pooling: tuple[str, ...] = ("mean",)
    layers: tuple[nn.Module, ...] = ()
    prompt: str = ""
    include_prompt: bool = True  # whether the prompt's own tokens count in the pooling
    declared: bool = False
    similarity: str | None = None  # of two embeddings, as sentence-transformers names it: cosine, dot, euclidean, manhattan
    prompts: Mapping[str, str] = field(default_factory=dict, compare=False)
    default_prompt: str | None = field(default=None, compare=False)

    def __call__(self, states: Tensor, mask: Tensor, *, pooled: Tensor | None = None) -> Tensor:
        """states (b, t, d), mask (b, t) with 1 for the tokens that count -> (b, e) float32.

        pooled (b, d): what the body itself returns as its pooled state, which is what the pooling "eos" reads.
        """
        if self.pooling == ("eos",):
            if pooled is None:
                raise ModelError("the model returns no pooled state, which its output head reads; load it as transformers saves it")
            rows = pooled.float()
        else:
            rows = torch.cat([pool_declared(states, mask, mode) for mode in self.pooling], dim=-1)
        for layer in self.layers:
            rows = layer(rows)
        return rows

    def describe(self) -> dict:
        """JSON-able: pooling, layers by name, the hash of their weights, prompt, declared."""
        tensors = {f"{i}.{key}": value for i, layer in enumerate(self.layers) for key, value in layer.state_dict().items()}
        return {
            "declared": self.declared,
            "pooling": list(self.pooling),
            "layers": [type(layer).__name__ for layer in self.layers],
            "weights_sha256": hash_tensors(tensors) if tensors else None,
            "prompt": self.prompt,
        } | ({"similarity": self.similarity} if self.similarity else {})


def pool_declared(states: Tensor, mask: Tensor, mode: str) -> Tensor:
    """One pooling mode of sentence-transformers: states (b, t, d) and mask (b, t) -> (b, d) float32; sums are float32."""
    if mode == "cls":
        return _pick(states, mask.to(torch.int32).argmax(dim=1))
    if mode == "lasttoken":
        return _pick(states, states.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(dim=1))
    if mode == "max":
        return states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1).float()
    weights = mask.float()
    if mode == "weightedmean":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    total = weights.sum(dim=1, keepdim=True).clamp(min=1)
    weights = weights / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)
    return torch.bmm(weights.unsqueeze(1), states.float()).squeeze(1)


def _pick(states: Tensor, position: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), position].float()


class Normalize(nn.Module):
    """Rows divided by their Euclidean length."""

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.normalize(rows, p=2, dim=-1)


class Dense(nn.Module):
    """activation(W x + b), as the Dense module of sentence-transformers."""

    def __init__(self, linear: nn.Linear, activation: nn.Module):
        super().__init__()
        self.linear, self.activation = linear, activation

    def forward(self, rows: Tensor) -> Tensor:
        return self.activation(self.linear(rows))


def read_output(folder: Path, *, asked: str) -> tuple[OutputHead, str | None]:
    """The head a sentence-transformers folder declares, and a warning when it has a module we do not know (then nothing is declared).

    Raises ModelError for unreadable module files, UnsafeWeights for a pickled dense layer.
    """
    pooling: tuple[str, ...] = ()
    include_prompt = True
    layers: list[nn.Module] = []
    for module in read_json(folder / "modules.json")[1:]:
        kind, place = module["type"].rsplit(".", 1)[-1], folder / module["path"]
        if kind == "Pooling":
            config = read_json(place / "config.json")
            pooling, include_prompt = _modes(config), config.get("include_prompt", True)
        elif kind == "Normalize":
            layers.append(Normalize())
        elif kind == "Dense":
            layers.append(_read_dense(place, asked=asked))
        elif kind != "Dropout":
            return OutputHead(), _unknown(kind)
    config = _settings(folder)
    prompts, default, similarity = config.get("prompts") or {}, config.get("default_prompt_name"), config.get("similarity_fn_name")
    return _head(pooling, layers, prompts, default, include_prompt=include_prompt, similarity=similarity)


def object_output(
    modules: list[nn.Module], *, prompts: Mapping[str, str], default_prompt: str | None, similarity: str | None = None
) -> tuple[OutputHead, str | None]:
    """The head of a loaded SentenceTransformer, from its modules after the first; shares their weights."""
    pooling: tuple[str, ...] = ()
    include_prompt = True
    layers: list[nn.Module] = []
    for module in modules:
        kind = type(module).__name__
        if kind == "Pooling":
            pooling, include_prompt = _modes(module.get_config_dict()), getattr(module, "include_prompt", True)
        elif kind == "Normalize":
            layers.append(Normalize())
        elif kind == "Dense" and not getattr(module, "use_residual", False):
            layers.append(Dense(module.linear, module.activation_function))
        elif kind != "Dropout":
            return OutputHead(), _unknown(kind)
    return _head(pooling, layers, prompts, default_prompt, include_prompt=include_prompt, similarity=similarity)


def _head(
    pooling, layers, prompts: Mapping[str, str | None], default: str | None, *, include_prompt: bool, similarity: str | None
) -> tuple[OutputHead, str | None]:
    if not pooling:
        return OutputHead(), _unknown("no Pooling")
    named = {name: prompt or "" for name, prompt in prompts.items()}
    said = {"prompt": named.get(default or "", ""), "prompts": named, "default_prompt": default}
    return OutputHead(pooling, tuple(layers), **said, include_prompt=include_prompt, declared=True, similarity=similarity), None


def _unknown(kind: str) -> str:
    return f"its sentence-transformers modules are not ones we can follow ({kind}): site `output` is the pooled final state instead"


def _modes(config: dict) -> tuple[str, ...]:
    """The pooling modes of a Pooling config, in its new form (`pooling_mode`) or its old one (one flag per mode)."""
    modes = config.get("pooling_mode") or [mode for key, mode in _LEGACY.items() if config.get(key)] or "mean"
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise ModelError(f"unknown pooling mode '{unknown[0]}' in the model's pooling config; known: {', '.join(MODES)}")
    return modes


def _read_dense(place: Path, *, asked: str) -> Dense:
    config = read_json(place / "config.json")
    check_weight_files(place, asked=asked, accepted=("model.safetensors",))
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS or config.get("use_residual"):
        raise ModelError(f"the dense layer {place} is of an unknown kind ({activation}); known activations: {', '.join(_ACTIVATIONS)}")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True), device="meta").to_empty(device="cpu")
    weights = load_file(place / "model.safetensors")
    try:
        linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"the dense layer of '{asked}' does not fit its config: {place}") from error
    return Dense(linear.requires_grad_(False), _ACTIVATIONS[activation]())


def _settings(folder: Path) -> dict:
    path = folder / "config_sentence_transformers.json"
    return read_json(path) if path.is_file() else {}
