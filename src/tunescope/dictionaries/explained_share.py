"""How much of the rows' variance each feature explains: what the error would grow by without it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.strongest import Fired
from tunescope.errors import InputError


def explained_shares(dictionary: Dictionary, batches: Iterable[Tensor]) -> Float[Tensor, " n"]:
    """Of each feature, the growth of Σ|x−x̂|² were its activation 0, over Σ|x−x̄|²: Σ (2 f d·e + f²|d|²) with e = x − x̂.

    Below 0 for a feature that does harm. Shares of overlapping features do not add up to R².

    Raises: InputError, for no rows, or a dictionary that scales tokens (its decoder does not write raw activations).
    """
    if dictionary.scaling is not None:
        raise InputError(f"'{dictionary.name}' scales every token, so what one of its features writes depends on all others")
    growth, spread = torch.zeros(dictionary.latents, dtype=torch.float64, device=dictionary.decoder.device), None
    for x in batches:
        fired = Fired.of(dictionary, x.to(dictionary.decoder))
        growth += torch.bincount(fired.places.latent, weights=fired.growth, minlength=dictionary.latents)
        sums = _sums(x)
        spread = sums if spread is None else spread + sums
    if spread is None:
        raise InputError("no rows given to weigh features on; the held-out split is empty")
    return growth / float(_about_mean(spread))


def _sums(x: Tensor) -> Tensor:
    """Rows, Σ|x|², Σx."""
    wide = x.double()
    return torch.cat([wide.new_tensor([len(x)]), wide.square().sum()[None], wide.sum(0)])


def _about_mean(sums: Tensor) -> Tensor:
    return sums[1] - sums[2:].square().sum() / sums[0]
