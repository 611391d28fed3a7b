"""Held-out deltas reconstructed in every way that a verdict needs, on the same rows and at the same number of active features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tunescope.dictionaries.alignment_row import AlignmentRow, Figure, above
from tunescope.dictionaries.chance_dictionaries import chance_directions, said
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.quality import QualitySums, improvement
from tunescope.dictionaries.recoding import recode
from tunescope.dictionaries.reuse import Artefact, Reuse, artefact, reuse
from tunescope.dictionaries.spectrum import Spectrum

WAYS = {
    "mean_only": "the mean of the training rows",
    "adapter": "the adapter's dictionary, its own encoder",
    "adapter_recoded": "the adapter's decoder, re-coded",
    "pretrained": "the pretrained dictionary applied to Δ, its own encoder",
    "pretrained_recoded": "the pretrained decoder, re-coded",
    "random_recoded": "a random dictionary as wide as the pretrained one, drawn like the base activations, re-coded",
    "random_in_delta_recoded": "a random dictionary as wide as the adapter's, drawn like Δ, re-coded",
    "pca": "as many principal directions of the training rows as features are active",
}
_FEW = 256  # rows on which the offset of a re-coding is chosen


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """`sums` and mean active features of each of `WAYS`; active: what was matched. noise_r2: of an autoencoder of the adapter's size
    trained on norm-matched noise, where one was."""

    sums: Mapping[str, QualitySums]
    l0: Mapping[str, float]
    active: int
    drawn: str
    noise_r2: float | None = None

    def fvu(self, way: str) -> Figure:
        """The unexplained share of one way."""
        return self.sums[way].fvu

    @property
    def reuse(self) -> Reuse:
        """Reused, partly reused, new, or nothing above its floor."""
        return reuse({way: (sums.fvu.value, sums.fvu_without) for way, sums in self.sums.items()}, noise_r2=self.noise_r2)

    @property
    def artefact(self) -> Artefact | None:
        """Whether the pretrained dictionary reads badly on Δ though its features are in it; None where it does not."""
        return artefact(*(self.fvu(way).value for way in ("pretrained", "pretrained_recoded", "adapter", "random_recoded")))

    @property
    def improvement(self) -> dict[str, Figure]:
        """100 · (1 − error_adapter / error_pretrained): of the encoders as they are, and of both decoders re-coded."""
        pairs = {"applied": ("adapter", "pretrained"), "recoded": ("adapter_recoded", "pretrained_recoded")}
        return {name: improvement(self.sums[own], self.sums[other]) for name, (own, other) in pairs.items()}

    def rows(self) -> tuple[AlignmentRow, ...]:
        """The unexplained share of each way, the random dictionary being its floor and the adapter's own, re-coded, its ceiling; then
        the share of the gap that the pretrained features close, which has the verdict, and the improvements in percent."""
        floor, top = self.fvu("random_recoded").value, self.fvu("adapter_recoded").value
        verdict, size = self.reuse, int(next(iter(self.sums.values())).rows.sum())
        shares = [self._share(way, floor, top, size) for way in WAYS]
        value, low, high = (None, None, None) if verdict.share is None else astuple(verdict.share)
        row = AlignmentRow(
            "reused_share", WAYS["pretrained_recoded"], value, 0.0, None, self.drawn, 1.0, WAYS["adapter_recoded"],
            low, high, n=size, unit="rows", verdict=verdict.verdict, note=verdict.words,
        )
        better = [
            AlignmentRow(
                f"improvement_{name}", "adapter over pretrained", at.value, 0.0, low=at.low, high=at.high, best=100.0, n=size, unit="rows"
            )
            for name, at in self.improvement.items()
        ]
        return (*shares, row, *better)

    def _share(self, way: str, floor: float, top: float, size: int) -> AlignmentRow:
        at = self.fvu(way)
        return AlignmentRow(
            "unexplained_share", WAYS[way], at.value, floor, None, WAYS["random_recoded"], top, WAYS["adapter_recoded"], at.low, at.high,
            best=0.0, n=size, unit="rows", verdict=above(at.value, floor, ceiling=top, best=0.0), note=f"{self.l0[way]:.1f} active",
        )


def reconstruct(
    x: Shaped[Tensor, "rows d"],
    documents: Int[Tensor, " rows"],
    *,
    adapter: Dictionary,
    pretrained: Dictionary,
    delta: Spectrum,
    base: Spectrum,
    noise_r2: float | None = None,
    active: int | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Every one of `WAYS` on held-out rows x; four of them are pursuits, rows · n · d · active multiply-adds each: give a sample.

    Args:
        documents: of which document each row is.
        delta: spectrum of the rows the adapter's dictionary was trained on. Every re-coding starts from its mean, from the adapter's
            own b_dec or from 0, whichever leaves less on a few of the rows: features that are never negative may need either.
        base: spectrum of the base model's activations at the same place, which the random dictionary is drawn like.
        active: features a row of every re-coding; the adapter's own mean, rounded, unless given.
        noise_r2: R² of an autoencoder of the same size on `norm_matched_noise`, below which there is nothing.

    Raises: AlignmentError, ActivationError, InputError (widths, active), Degenerate (x does not vary).
    """
    own, applied = _encoded(adapter, x), _encoded(pretrained, x)
    k = max(1, round(own[1])) if active is None else active
    mean = delta.mean.float()
    decoders: dict[str, Any] = {
        "adapter_recoded": adapter,
        "pretrained_recoded": pretrained,
        "random_recoded": chance_directions(pretrained.latents, pretrained.width, like=base, seed=seed),
        "random_in_delta_recoded": chance_directions(adapter.latents, adapter.width, like=delta, seed=seed + 1),
    }
    offsets = (torch.zeros_like(mean), mean, adapter.b_dec.to(mean))
    made = {"mean_only": (mean.expand(len(x), -1), 0.0), "adapter": own, "pretrained": applied, "pca": _projected(x, mean, delta, k)}
    for way, decoder in decoders.items():
        made[way] = _recoded(x, decoder, min(k, len(decoder) if isinstance(decoder, Tensor) else decoder.latents), offsets)
    sums = {way: QualitySums.of(x, made[way][0], documents=documents) for way in WAYS}
    return Reconstruction(sums, {way: made[way][1] for way in WAYS}, k, said(base), noise_r2)


def _encoded(dictionary: Dictionary, x: Tensor, block: int = 1024) -> tuple[Tensor, float]:
    active = sum(int((dictionary.encode(part) != 0).sum()) for part in x.split(block))
    return dictionary.reconstruct(x), active / len(x)


def _recoded(x: Tensor, decoder: Any, active: int, offsets: tuple[Tensor, ...]) -> tuple[Tensor, float]:
    few = x[:: max(1, len(x) // _FEW)]
    left = [float((few - recode(few, decoder, active=active, offset=offset).reconstruction).square().sum()) for offset in offsets]
    coded = recode(x, decoder, active=active, offset=offsets[left.index(min(left))])
    return coded.reconstruction, coded.l0


def _projected(x: Tensor, mean: Float[Tensor, " d"], delta: Spectrum, k: int) -> tuple[Tensor, float]:
    axes = delta.largest(k).float()
    return mean + ((x.float() - mean) @ axes) @ axes.T, float(axes.shape[1])
