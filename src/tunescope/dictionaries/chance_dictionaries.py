"""Dictionaries that chance gives: random directions, as they fall everywhere or as the activations fall, and noise of the same norms."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import normalize

from tunescope.dictionaries.spectrum import Spectrum

ISOTROPIC = "random directions, all equally likely"
_BLOCK = 4096  # directions drawn at a time


def chance_directions(latents: int, width: int, *, like: Spectrum | None = None, seed: int = 0) -> Float[Tensor, "n d"]:
    """Unit directions of a random dictionary: isotropic, or with the covariance of the activations that `like` is the spectrum of.

    Real activations crowd a few directions, so random directions drawn like them meet far more closely: with n = 16,384 latents of
    width 3,584 the best of them is at cosine .066 of a given one when they are isotropic, and at .39 when variances fall as 1/i.
    """
    generator = _generator(seed)
    root = None if like is None else like.root.float()
    blocks = []
    for start in range(0, latents, _BLOCK):
        size = (min(_BLOCK, latents - start), width if root is None else len(root))
        drawn = torch.randn(size, generator=generator)
        blocks.append(normalize(drawn if root is None else drawn @ root, dim=1))
    return torch.cat(blocks)


def norm_matched_noise(x: Shaped[Tensor, "n d"], *, mean: Float[Tensor, " d"], seed: int = 0) -> Float[Tensor, "n d"]:
    """Rows about the same mean, each as far from it as the row of x, in a direction of no meaning: what an autoencoder may be made of."""
    generator = _generator(seed)
    noise = normalize(torch.randn(x.shape, generator=generator), dim=1)
    centre = mean.to(x.dtype)
    return (centre + noise.to(x.dtype) * (x - centre).norm(dim=1, keepdim=True)).to(x.dtype)


def _generator(seed: int) -> torch.Generator:
    """Not the stream that torch itself has for this seed: a dictionary whose weights were first drawn from that one would meet itself."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def said(like: Spectrum | None) -> str:
    """What the random directions are, for a table."""
    if like is None:
        return ISOTROPIC
    return f"random directions with the covariance of {like.n:,} activations (participation ratio {like.participation_ratio:.1f})"
