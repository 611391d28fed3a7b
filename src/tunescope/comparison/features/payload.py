"""features.json: its schema, and the flags that a reader must see first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.dictionaries.doctor_rows import GOOD

if TYPE_CHECKING:
    from tunescope.comparison.features.measured import Alignment

SCHEMA = "tunescope.features/1"
FILE = "features.json"
SECTIONS = ("base_quality", "quality", "spectrum", "alignment", "verdicts", "flags", "controls", "dictionaries")  # rows, place after place
MOSTLY_CONSTANT = 0.5  # share of E|Δ|² that is one vector, from which a reader must know it


_WEAK = (
    "The base’s dictionary explains R² = {:.2f} of the base’s own held-out activations. What it does not find in Δ may be what it lacks, "
    "so “new” says little here: train it longer or on more texts, or give a better one with --dictionary."
)


def flags_of(aligned: Alignment, base: dict[str, Any]) -> list[dict[str, Any]]:
    """What must not be believed alone: the artefact of a pretrained dictionary applied to deltas; a base dictionary that explains little
    of the base itself. base: its quality there."""
    found: list[dict[str, Any]] = []
    if base["r2"]["value"] < GOOD:
        found.append({"flag": "weak_base_dictionary", "words": _WEAK.format(base["r2"]["value"])})
    if (artefact := aligned.reconstruction.artefact) is not None:
        figures = {"applied": artefact.applied, "recoded": artefact.recoded, "adapter": artefact.adapter}
        found.append({"flag": "artefact", "words": artefact.words, **figures})
    return found
