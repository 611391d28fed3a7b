"""A dictionary of features at one place of a model: what reads each out of an activation, and what each writes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.firing import Firing
from tunescope.dictionaries.token_scaling import TokenScaling
from tunescope.errors import InputError

_BLOCK = 4096  # rows a time where all latents of a row are written out


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary:
    """A sparse autoencoder, whoever trained it: f = firing(x' W_enc + b_enc), x̂ = f W_dec + b_dec.

    x' is x − b_dec where `centred`, else x; `scaling` says what happens to a token before that, and is undone on what comes out. Constants
    by which a training scaled its inputs are folded into the weights when a dictionary is read, so x is always a raw activation.
    n latents, d features; float32 on one device. `metadata` is what the file or the training said of it (model, hook point, figures).
    """

    w_enc: Float[Tensor, "d n"]
    b_enc: Float[Tensor, " n"]
    decoder: Float[Tensor, "n d"]
    b_dec: Float[Tensor, " d"]
    firing: Firing
    centred: bool = True
    scaling: TokenScaling | None = None
    skip: Float[Tensor, "d d"] | None = None  # adds x skipᵀ to what comes out
    name: str = "dictionary"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        latents, width = self.decoder.shape
        expected = {"w_enc": (width, latents), "b_enc": (latents,), "b_dec": (width,)}
        for part, shape in expected.items():
            if tuple(found := getattr(self, part).shape) != shape:
                raise InputError(
                    f"{part} of '{self.name}' is {tuple(found)} where decoder {(latents, width)} (latents, features) asks for {shape}; "
                    "a matrix may be transposed, or a tensor be of another dictionary"
                )

    def __repr__(self) -> str:
        """Sizes and name, not a thousand numbers."""
        return f"Dictionary('{self.name}', latents={self.latents}, width={self.width}, firing={type(self.firing).__name__})"

    @property
    def latents(self) -> int:
        """How many features it has."""
        return self.decoder.shape[0]

    @property
    def width(self) -> int:
        """The width of the activations it reads."""
        return self.decoder.shape[1]

    def encode(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows n"]:
        """How much of each feature is in each activation. Raises InputError for another width."""
        return self._encode(self._scaled(x)[0])

    def decode(self, f: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows d"]:
        """The activations that features write; of a dictionary that scales tokens, before that is undone (see `reconstruct`)."""
        return f @ self.decoder + self.b_dec

    def reconstruct(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """x̂ of x, with everything undone that was done to x; in blocks, so that memory does not grow with rows × latents."""
        rows = x.reshape(-1, x.shape[-1])
        return torch.cat([self._reconstruct(block) for block in rows.split(_BLOCK)]).reshape(x.shape) if len(rows) else x.clone()

    def to(self, device: torch.device | str) -> Dictionary:
        """The same on another device."""
        moved = {part: getattr(self, part).to(device) for part in ("w_enc", "b_enc", "decoder", "b_dec")}
        skip = None if self.skip is None else self.skip.to(device)
        return replace(self, **moved, firing=self.firing.to(device), skip=skip)

    def _reconstruct(self, x: Tensor) -> Tensor:
        scaled, undo = self._scaled(x)
        out = self.decode(self._encode(scaled))
        return undo(out if self.skip is None else out + scaled @ self.skip.T)

    def _encode(self, scaled: Tensor) -> Tensor:
        return self.firing((scaled - self.b_dec if self.centred else scaled) @ self.w_enc + self.b_enc)

    def _scaled(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        if x.shape[-1] != self.width:
            raise InputError(f"activations of width {x.shape[-1]} given to '{self.name}', a dictionary of width {self.width}")
        x = x.to(self.decoder.dtype)
        return (x, lambda out: out) if self.scaling is None else self.scaling(x)
