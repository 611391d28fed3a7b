"""Where a few dimensions own the Gram matrix: plain CKA beside its robust reading, and a warning when the two disagree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunescope.errors import Degenerate
from tunescope.geometry.outliers import COUNTS, FEW, Concentration, concentration, robust_cka
from tunescope.geometry.profile import status
from tunescope.geometry.rows import Rows
from tunescope.report.numbers import percent, three

READING = "standardised"
APART = 0.1  # plain − robust: most of the band between the cut-offs (.99 and .87); an ordinary encoder and its adapter differ by .04
CLOSE = 0.02  # less than this turns a status word only where it was on the edge
OWNED = 0.5  # share of the Gram's squared norm that goes with three dimensions; in an ordinary encoder at most .3


def outliers_at(rows: Rows, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """`outliers` of one row of comparison.json; None where there is no geometry.

    share, shares, top and gram_share are by side: the variance of the largest dimension, of the top 1, 3 and 10, which ten they are, and
    the share of |x̃ᵀx̃|²_F that goes with the top three. disagree: the readings are more than `APART` apart; or their status words
    differ, and the readings by more than `CLOSE`, where three dimensions hold more than `OWNED`.
    """
    try:
        sides, robust = concentration(rows), robust_cka(rows, reading=READING)
    except Degenerate:
        return None
    plain = row["measures"]["cka"]
    word = status(robust.value, noise=plain["noise"], saturated=robust.saturated)
    gram = _by_side(sides, "gram")
    owned = max(gram.values()) > max(OWNED, 2 * FEW / min(rows.x.shape[1], rows.y.shape[1]))  # three of few dimensions are no outliers
    return {
        "share": {side: shares[0] for side, shares in _by_side(sides, "shares").items()},
        "counts": list(COUNTS),
        "shares": {side: list(shares) for side, shares in _by_side(sides, "shares").items()},
        "top": {side: list(top) for side, top in _by_side(sides, "top").items()},
        "gram_share": gram,
        "dead": _by_side(sides, "dead"),
        "robust": READING,
        "robust_cka": robust.value,
        "robust_change": robust.change,
        "robust_low": robust.low,
        "robust_high": robust.high,
        "robust_null": robust.null,
        "robust_null_sd": robust.null_sd,
        "robust_status": word,
        "owned": owned,
        "disagree": abs(plain["value"] - robust.value) > (CLOSE if owned and word != row["status"] else APART),
    }


def _by_side(sides: tuple[Concentration, Concentration], name: str) -> dict[str, Any]:
    return {side: getattr(found, name) for side, found in zip(("base", "tuned"), sides, strict=True)}


def about_outliers(layers: Iterable[Mapping[str, Any]], sites: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line naming every layer and site where plain and robust CKA disagree."""
    rows = [(row["name"], row) for row in layers] + list(sites.items())
    found = [(name, row) for name, row in rows if row["outliers"] and row["outliers"]["disagree"]]
    if not found:
        return []
    said = ", ".join(
        f"{name} ({three(row['measures']['cka']['value'])}, standardised {three(row['outliers']['robust_cka'])})" for name, row in found
    )
    cells = [row["outliers"] for _, row in found]
    most, side = max(((cell, side) for cell in cells for side in cell["gram_share"]), key=lambda each: each[0]["gram_share"][each[1]])
    which = ", ".join(map(str, most["top"][side][:FEW]))
    owned = any(cell["owned"] for cell in cells)
    return [
        f"{'a few dimensions own the Gram matrix' if owned else 'dimensions of large variance outweigh the others'}: cka and cka of "
        f"standardised features disagree at {said}; dimensions {which} hold up to {percent(most['gram_share'][side])} of what cka reads, "
        "so read the standardised value there"
    ]
