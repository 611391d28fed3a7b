"""New or reused: the verdict from how well each dictionary reconstructs the same deltas, and the figure that must not be believed alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunescope.dictionaries.alignment_row import NOTHING, SHARE, Figure

REUSED, PARTLY, NEW, UNDECIDED = "reused", "partly reused", "new", "undecided"
MOST, LEAST = 0.8, 0.2  # of the gap that the pretrained features close
LITTLE = 1e-3
ROOM = 0.05  # of the variance, between the random dictionary and the adapter's, below which neither is a yardstick
RULE = (
    "All decoders are re-coded on the same held-out rows with the same number of active features. The gap is what the adapter's "
    "dictionary explains beyond a random one as wide as the pretrained, drawn like the base activations; the share is how much of it the "
    f"pretrained features close. Reused: {MOST:.0%} or more; new: {LEAST:.0%} or less; partly reused between. Nothing above its floor: "
    "the adapter's autoencoder explains no more of Δ than one of its size explains of norm-matched noise (where none was trained: "
    f"re-coded, no more than random directions drawn like Δ do), by {SHARE:.0%} of what is left. Undecided: a gap below {ROOM:.0%} of "
    "the variance, an interval that reaches from reused to new, an R² whose interval reaches down to that noise, or no interval at all."
)
_ONE = "the held-out rows are of one document, or nearly all their variance is, so there is no interval: too few documents to tell"


@dataclass(frozen=True)
class Reuse:
    """The share of the gap that the pretrained features close (`RULE`), None where there is no gap, and what it says."""

    share: Figure | None
    verdict: str
    words: str


@dataclass(frozen=True)
class Artefact:
    """The flag, in words: unexplained shares of the pretrained dictionary applied and re-coded, and of the adapter's."""

    applied: float
    recoded: float
    adapter: float
    words: str


def reuse(fvu: Mapping[str, tuple[float, np.ndarray]], *, noise_r2: float | None = None) -> Reuse:
    """The verdict by `RULE`, of unexplained shares and the same without each document (g,).

    fvu: of `adapter`, `adapter_recoded`, `pretrained_recoded`, `random_recoded` and `random_in_delta_recoded`.
    """
    names = ("random_recoded", "adapter_recoded", "pretrained_recoded")
    floor, own, other = (fvu[name][0] for name in names)
    share = None
    if floor - own > ROOM:
        without = [fvu[name][1] for name in names]
        left = (without[0] - without[2]) / (without[0] - without[1]) if len(without[0]) > 1 else np.empty(0)
        share = Figure.of((floor - other) / (floor - own), left)
    if (nothing := _nothing(fvu, noise_r2)) is not None:
        return Reuse(share, NOTHING, nothing)
    said = f"re-coded, the pretrained features leave {_number(other)} unexplained, the adapter's {_number(own)}, random {_number(floor)}"
    if share is None:
        return Reuse(share, UNDECIDED, f"{said}: random directions do as well as the adapter's, so nothing follows for the pretrained")
    if (unsure := _reaches_noise(fvu, noise_r2)) is not None:
        return Reuse(share, UNDECIDED, f"{said}; {unsure}")
    verdict = REUSED if share.value >= MOST else NEW if share.value <= LEAST else PARTLY
    if _reaches_across(share, verdict):
        if share.low is None:
            return Reuse(share, UNDECIDED, f"{said}; {_ONE}")
        return Reuse(share, UNDECIDED, f"{said}: {_percent(share.low)} to {_percent(share.high)} of the gap, from new to reused")
    return Reuse(share, verdict, f"{said}: they close {_percent(share.value)} of the gap")


def artefact(applied: float, recoded: float, adapter: float, chance: float) -> Artefact | None:
    """The flag, where the pretrained dictionary reads badly on Δ though its features are in it: applied, it leaves at least twice what its
    features leave when re-coded, and more than the adapter's; re-coded, they leave at most 80% of what random directions leave.

    An encoder made for whole activations reads a small delta wrongly whatever the delta is made of: of deltas at a tenth of the norm,
    made of nothing but the dictionary's own features, it left 99 times the variance, its decoder re-coded .01, a new dictionary .34.
    Unexplained shares: applied, recoded, of the pretrained dictionary as it is, and of its decoder re-coded at the adapter's number of
    active features; adapter, of the adapter's dictionary; chance, of random directions re-coded.
    """
    if applied <= adapter or recoded > applied / 2 or recoded > (1 - LEAST) * chance:
        return None
    words = (
        f"The pretrained dictionary applied to Δ leaves {_number(applied)} of the variance unexplained and the adapter's "
        f"{_number(adapter)}, an improvement of {100 * (1 - adapter / applied):.1f}%; but the pretrained features, re-coded with as many "
        f"active, leave {_number(recoded)} (random directions {_number(chance)}). The bad figure is its encoder's, which was made for "
        "whole activations: it is no evidence of new features."
    )
    return Artefact(applied, recoded, adapter, words)


def _nothing(fvu: Mapping[str, tuple[float, np.ndarray]], noise_r2: float | None) -> str | None:
    """Why there is nothing, if there is: what the adapter leaves must be below what chance leaves by `SHARE` of that."""
    if noise_r2 is None:
        own, chance = fvu["adapter_recoded"][0], fvu["random_in_delta_recoded"][0]
    else:
        own, chance = fvu["adapter"][0], 1 - noise_r2
    room = chance > ROOM  # where chance leaves nothing, nothing can be better
    if own <= chance * (1 - SHARE) or not room:
        return None
    what = "an autoencoder of its size on norm-matched noise" if noise_r2 is not None else "random directions drawn like Δ"
    return f"the adapter's dictionary leaves {_number(own)} unexplained, {what} {_number(chance)}"


def _reaches_noise(fvu: Mapping[str, tuple[float, np.ndarray]], noise_r2: float | None) -> str | None:
    """What is said where the documents do not tell the adapter's R² from that of noise (0 at least: the mean alone)."""
    if noise_r2 is None:
        return None
    r2, chance = Figure.of(1 - fvu["adapter"][0], 1 - fvu["adapter"][1], bounds=(-math.inf, 1.0)), max(0.0, noise_r2)
    if r2.low is None or r2.high is None:
        return _ONE
    if r2.low > chance:
        return None
    return f"R² is {r2.value:.2f}, from {r2.low:.2f} to {r2.high:.2f} over documents, and {chance:.2f} of noise: too few documents to tell"


def _reaches_across(share: Figure, verdict: str) -> bool:
    if share.low is None or share.high is None:
        return True
    return (share.low <= LEAST and (verdict == REUSED or share.high >= MOST)) or (verdict == NEW and share.high >= MOST)


def _percent(share: float | None) -> str:
    """With a minus sign, and what less than nothing means."""
    said = f"{share or 0:.0%}".replace("-", "−")
    return f"{said} (less than random directions do)" if said.startswith("−") else said


def _number(share: float) -> str:
    if share < LITTLE:
        return f"less than {LITTLE:g}".replace("0.", ".")
    return f"{share:.0f}" if share >= 10 else f"{share:.2g}".removeprefix("0")
