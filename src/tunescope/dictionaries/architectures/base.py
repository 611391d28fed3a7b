"""What every trained autoencoder has: its weights, what it remembers between steps, and what one step gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.firing import Firing

Tensors = dict[str, Tensor]


@dataclass(eq=False)
class Weights:
    """An autoencoder while it is trained, on rows of mean 0 and mean square 1: encoder, decoder (n, d), bias (n,), offset (d,).

    f = firing((x − offset) encoderᵀ + bias), x̂ = f decoder + offset; decoder rows have norm 1. `more`: parameters of one architecture
    alone. `memory`: what is carried from step to step and not learned by gradients. silent (n,): rows since each latent last fired.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    offset: Tensor
    silent: Tensor
    more: Tensors = field(default_factory=dict)
    memory: Tensors = field(default_factory=dict)

    @classmethod
    def drawn(cls, latents: int, width: int, *, seed: int) -> Weights:
        """Directions drawn at random, decoder and encoder the same ("tied"), no bias."""
        # numpy's streams of a pair, so that nobody's own torch.manual_seed(seed) draws the very directions that are looked for
        directions = torch.from_numpy(np.random.default_rng((seed, latents)).standard_normal((latents, width), dtype=np.float32))
        directions /= directions.norm(dim=1, keepdim=True)
        zeros = torch.zeros(latents), torch.zeros(width)
        return cls(directions.clone(), zeros[0], directions, zeros[1], torch.zeros(latents, dtype=torch.int64))

    @property
    def parameters(self) -> Tensors:
        """What gradients move, by name."""
        return {"encoder": self.encoder, "bias": self.bias, "decoder": self.decoder, "offset": self.offset} | self.more

    def state(self) -> Tensors:
        """Everything that the next step depends on, by name."""
        return self.parameters | {"silent": self.silent} | {f"memory.{name}": value for name, value in self.memory.items()}

    def restore(self, state: Tensors) -> None:
        """Become what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])

    def to(self, device: torch.device) -> Weights:
        """The same on another device."""
        encoder, bias, decoder, offset, silent = (
            value.to(device) for value in (self.encoder, self.bias, self.decoder, self.offset, self.silent)
        )
        more, memory = ({name: value.to(device) for name, value in part.items()} for part in (self.more, self.memory))
        return Weights(encoder, bias, decoder, offset, silent, more, memory)


@dataclass(frozen=True, eq=False)
class Step:
    """What a batch says: the gradients, which latents fired, and how well it was rebuilt."""

    gradients: Tensors
    fired: Float[Tensor, " n"]  # in how many rows
    unexplained: Tensor  # |x − x̂|² / |x|² over the batch; the loss that architectures share
    l0: Tensor  # active latents a row


class Architecture(Protocol):
    """How latents fire, learn, and are counted; one object may serve many autoencoders, what they remember is in their `Weights`."""

    @property
    def k(self) -> int: ...

    def begin(self, weights: Weights) -> None:
        """Add the parameters and the memory it needs."""

    def step(self, weights: Weights, x: Float[Tensor, "rows d"], dead: Tensor | None) -> Step:
        """Gradients of a batch; dead: the latents to be revived, by index, None while nobody knows."""

    def firing(self, weights: Weights, scale: float) -> Firing:
        """How the finished autoencoder fires, for rows that are `scale` times as large as those it was trained on."""
