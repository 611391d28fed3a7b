"""features.json: its schema, and the flags that a reader must see first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunescope.comparison.features.measured import Alignment

SCHEMA = "tunescope.features/1"
FILE = "features.json"
SECTIONS = ("quality", "spectrum", "alignment", "verdicts", "flags", "controls", "dictionaries")  # rows, place after place
MOSTLY_CONSTANT = 0.5  # share of E|Δ|² that is one vector, from which a reader must know it


def flags_of(aligned: Alignment) -> list[dict[str, Any]]:
    """What must not be believed alone: the artefact of a pretrained dictionary applied to deltas."""
    found = []
    if (artefact := aligned.reconstruction.artefact) is not None:
        figures = {"applied": artefact.applied, "recoded": artefact.recoded, "adapter": artefact.adapter}
        found.append({"flag": "artefact", "words": artefact.words, **figures})
    return found
