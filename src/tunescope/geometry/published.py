"""The published axis: a depth curve read at the seven depths of the depth study, so that it can stand beside the study's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunescope.errors import InputError
from tunescope.geometry.profile import locality, width

NOMINAL_DEPTHS = (0.10, 0.25, 0.40, 0.60, 0.75, 0.90, 1.00)
SHALLOWEST = 12  # blocks of the shallowest model the study read; below it, its reading would repeat blocks
_PERCENT = tuple(round(100 * depth) for depth in NOMINAL_DEPTHS)


@dataclass(frozen=True)
class PublishedProfile:
    """Change at the seven depths, and what the study reads off it.

    values: change at NOMINAL_DEPTHS. slope: ordinary least squares of values on depth (the locality gradient); rank_slope: Spearman's ρ.
    Both are None where the curve gives none, see `locality`.
    """

    values: tuple[float, ...]
    slope: float | None
    rank_slope: float | None

    @property
    def shares(self) -> list[float] | None:
        """Each depth's share of the total change (the study takes 1 − CKA); None where nothing changed."""
        return width(self.values)[0]


def blocks_read(blocks: int) -> list[int]:
    """The blocks, counted from 1, that stand for the seven depths in a model of at least twelve: round(depth · blocks).

    A half goes towards the output. No published model (12, 20 or 24 blocks) meets one, so the tables cannot tell what the study did.
    """
    return [(2 * percent * blocks + 100) // 200 for percent in _PERCENT]


def published_profile(changes: Sequence[float], *, embeddings: float | None = None) -> PublishedProfile:
    """Read a depth curve on the published axis.

    From twelve blocks on, depth d is block round(d·L), as in the study. Below, the curve is interpolated linearly in depth, block l
    standing at l/L and the embeddings at 0.

    Args: changes of blocks 1..L; the embeddings' change, used below twelve blocks only. Where it is unknown, depths above the first
    block take that block's change.

    Raises: InputError for fewer than two blocks.
    """
    blocks = len(changes)
    if blocks < 2:
        raise InputError(f"the published axis needs at least 2 blocks; this curve has {blocks}")
    if blocks >= SHALLOWEST:
        return at_nominal_depths([changes[index - 1] for index in blocks_read(blocks)])
    curve = list(changes) if embeddings is None else [embeddings, *changes]
    depths = np.arange(blocks + 1 - len(curve), blocks + 1) / blocks
    return at_nominal_depths(np.interp(NOMINAL_DEPTHS, depths, curve).tolist())


def at_nominal_depths(values: Sequence[float]) -> PublishedProfile:
    """The profile of a curve already read at the seven depths, as the printed ones are."""
    found = locality(NOMINAL_DEPTHS, values)
    return PublishedProfile(tuple(float(value) for value in values), found.slope, found.rank_slope)


def mean_shares(profiles: Sequence[PublishedProfile]) -> list[float]:
    """The width of several runs: each run's shares, then their mean. Runs in which nothing changed have no shares and are left out."""
    shares = [profile.shares for profile in profiles if profile.shares is not None]
    if not shares:
        raise InputError("no run changed, so there is no width to average")
    return np.mean(shares, axis=0).tolist()
