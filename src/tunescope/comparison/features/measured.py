"""What is measured at one place: how well its dictionaries do, and how they stand to what the base already had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tunescope.comparison.features.rows import PlaceRows
from tunescope.dictionaries import Dictionary, match_dictionaries
from tunescope.dictionaries.coactivity import activation_cka, code_cka
from tunescope.dictionaries.explained_share import explained_shares
from tunescope.dictionaries.firing_overlap import firing_overlap
from tunescope.dictionaries.matching import DictionaryMatch
from tunescope.dictionaries.quality import QualitySums
from tunescope.dictionaries.reconstruction import Reconstruction, reconstruct
from tunescope.dictionaries.sparse_codes import codes_of
from tunescope.dictionaries.spectrum import Spectrum, dimensions
from tunescope.dictionaries.subspaces import compare_spans
from tunescope.errors import Degenerate

PURSUED = 2000  # held-out rows that decoders are re-coded on
SPANNED = 16  # leading features whose spans are compared, at most half the width
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class BaseSide:
    """What a layer had before: its dictionary, and the spectrum of the base's rows that random dictionaries are drawn like."""

    dictionary: Dictionary
    spectrum: Spectrum


def quality_rows(rows: PlaceRows, saes: Sequence[Dictionary]) -> list[Row]:
    """One row a dictionary: R², R² about the mean, unexplained share, constant share, active features, dead and density."""
    return [_quality(rows, sae) for sae in saes]


def base_quality(rows: PlaceRows, base: BaseSide) -> Row:
    """The same of the base's dictionary on the base's own activations, held out: what it cannot rebuild there, it is no yardstick for."""
    return _quality(replace(rows, held=rows.x), base.dictionary)


def _quality(rows: PlaceRows, sae: Dictionary) -> Row:
    found = QualitySums.of_dictionary(sae, rows.batches()).compute()
    density = found.density
    about = {"seed": sae.metadata.get("seed"), "latents": sae.latents, "k": sae.metadata.get("k"), "rows": found.rows}
    figures = {name: asdict(getattr(found, name)) for name in ("r2", "r2_centred", "fvu", "constant_share", "l0")}
    rest = {"dead_share": found.dead_share, "histogram": found.histogram, "documents": found.documents}
    middle = None if density is None or not bool((density > 0).any()) else float(density[density > 0].quantile(0.5))
    return about | figures | rest | {"median_density": middle, "density": None if density is None else float(density.mean())}


def spectrum_row(spectrum: Spectrum, *, name: str, rank: int | None) -> Row:
    """How many dimensions rows have, beside the rank of the adapter."""
    return asdict(dimensions(spectrum, name=name, rank=rank))


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the dictionary of a delta stands to the base's, in every way of the table, as flat rows; and what says so in words."""

    rows: list[Row]
    match: DictionaryMatch
    reconstruction: Reconstruction
    shares: Tensor  # (n,) of each feature of the delta's first dictionary

    @classmethod
    def of(cls, rows: PlaceRows, saes: Sequence[Dictionary], base: BaseSide, *, noise_r2: float | None, seed: int) -> Alignment:
        """saes: of one delta, by seed; the first is compared, and the first two make the ceiling."""
        own, other, sides = saes[0], base.dictionary, f"{rows.name} with the base"
        shares = explained_shares(own, rows.held.split(2048))
        pair = (saes[0], saes[1]) if len(saes) > 1 else None
        match = match_dictionaries(own, other, activations=(rows.spectrum, base.spectrum), seed_pair=pair, seed=seed)
        found = [*match.rows(sides), *_spans(rows, saes, base, shares, sides, seed), *_firing(rows, own, other, match, sides, seed)]
        found += activation_cka(rows.held, rows.x, documents=rows.document).rows(sides, comparison="raw_cka")
        few = slice(None, None, max(1, -(-len(rows.held) // PURSUED)))
        rebuilt = reconstruct(
            rows.held[few], rows.document[few], adapter=own, pretrained=other, delta=rows.spectrum, base=base.spectrum, noise_r2=noise_r2,
            seed=seed,
        )  # fmt: skip
        found += rebuilt.rows()
        return cls([row.as_dict() for row in found], match, rebuilt, shares)


def _spans(rows: PlaceRows, saes: Sequence[Dictionary], base: BaseSide, shares: Tensor, sides: str, seed: int) -> list[Any]:
    live = int((shares > 0).sum())
    m = min(SPANNED, rows.held.shape[1] // 2, live, base.dictionary.latents)
    if m < 1:
        return []
    theirs = explained_shares(base.dictionary, rows.x.split(2048)) if base.dictionary.scaling is None else None
    try:
        ceiling = None
        if len(saes) > 1:
            second = explained_shares(saes[1], rows.held.split(2048))
            ceiling = compare_spans(saes[0], saes[1], m=m, shares_a=shares, shares_b=second, seed=seed).overlap
        compared = compare_spans(saes[0], base.dictionary, m=m, shares_a=shares, shares_b=theirs, activations=base.spectrum, seed=seed)
    except Degenerate:  # leading features that are copies of one another span fewer dimensions: there is no angle to measure
        return []
    return list(compared.rows(sides, ceiling=ceiling))


def _firing(rows: PlaceRows, own: Dictionary, other: Dictionary, match: DictionaryMatch, sides: str, seed: int) -> list[Any]:
    mine, theirs = codes_of(own, rows.held.split(2048)), codes_of(other, rows.x.split(2048))
    if not mine.nnz or not theirs.nnz:
        return []
    agreement = code_cka(mine, theirs, documents=rows.document)
    return [*agreement.rows(sides), *firing_overlap(mine, theirs, pairs=match.pairs, seed=seed).rows(sides)]


def control_row(rows: PlaceRows, sae: Dictionary, base: BaseSide, *, control: str, seed: int) -> Row:
    """A control in the columns of the table: how well it is rebuilt, in how many dimensions, and how near the base's features it is."""
    quality = _quality(rows, sae)
    match = match_dictionaries(sae, base.dictionary, activations=(rows.spectrum, base.spectrum), seed=seed)
    return {
        "control": control,
        "layer": rows.layer,
        "name": rows.name,
        **{name: quality[name] for name in ("r2", "l0", "dead_share", "median_density", "constant_share", "rows")},
        "participation_ratio": rows.spectrum.participation_ratio,
        "one_to_one_cosine": match.value,
        "floor": match.floor,
        "verdict": match.verdict,
    }


def largest(delta: Tensor) -> float:
    """The largest |Δ| of a row: 0 exactly where nothing was tuned."""
    return float(torch.linalg.vector_norm(delta, dim=1).max()) if len(delta) else 0.0
