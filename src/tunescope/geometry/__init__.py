"""How far did the representations move: summaries, measures, chance, intervals, profiles. Knows arrays, never models.

Names are loaded on first use: `profile` and `published` read curves without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunescope.geometry.cross import cross_cka, cross_nps
    from tunescope.geometry.measures import DEFAULT, MEASURES, Estimate, Measure, permutation_p, select
    from tunescope.geometry.measures.drift import principal_angles
    from tunescope.geometry.moments import Moments
    from tunescope.geometry.row_means import RowMeans
    from tunescope.geometry.rows import Rows

_HOME = {
    "DEFAULT": "measures",
    "Estimate": "measures",
    "MEASURES": "measures",
    "Measure": "measures",
    "Moments": "moments",
    "RowMeans": "row_means",
    "Rows": "rows",
    "cross_cka": "cross",
    "cross_nps": "cross",
    "permutation_p": "measures",
    "principal_angles": "measures.drift",
    "select": "measures",
}

__all__ = [
    "DEFAULT",
    "MEASURES",
    "Estimate",
    "Measure",
    "Moments",
    "RowMeans",
    "Rows",
    "cross_cka",
    "cross_nps",
    "permutation_p",
    "principal_angles",
    "select",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunescope.geometry' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tunescope.geometry.{_HOME[name]}"), name)
