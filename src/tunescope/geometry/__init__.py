"""How far did the representations move: summaries, measures, chance, intervals, profiles. Knows arrays, never models."""

from tunescope.geometry.cross import cross_cka, cross_nps
from tunescope.geometry.measures import DEFAULT, MEASURES, Estimate, Measure, permutation_p, select
from tunescope.geometry.measures.drift import principal_angles
from tunescope.geometry.moments import Moments
from tunescope.geometry.row_means import RowMeans
from tunescope.geometry.rows import Rows

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
