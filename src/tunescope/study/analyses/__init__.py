"""What the rows say: pure functions of a data frame of rows (`study.row`), the same for published numbers and for one's own ledger.

Every one takes the rows it is given: choose studies, models, rules before (`choose`). None returns NaN without a reason beside it.
"""

from tunescope.study.analyses.anchors import Anchors, anchor_robustness
from tunescope.study.analyses.at_one_drift import AtOneDrift, at_one_drift, every_pair
from tunescope.study.analyses.curves import Curves, curves
from tunescope.study.analyses.distance_slope import (
    Concordance,
    Pooled,
    concordance,
    distances_and_slopes,
    pooled,
    without_reference,
)
from tunescope.study.analyses.layers import LayerTable, layer_tables
from tunescope.study.analyses.matched import RatioTest, drift_ratio, ratio_test
from tunescope.study.analyses.monotone import monotone_counts
from tunescope.study.analyses.points import drift_against_damage, drifts, outcomes, over_runs, points
from tunescope.study.analyses.profiles import profile_table, profiles
from tunescope.study.analyses.ratios import Ratios, ratios
from tunescope.study.analyses.residuals import Residuals, residuals
from tunescope.study.analyses.rows import choose, last_checkpoints
from tunescope.study.analyses.signs import SignAgreement, Signs, sign_agreement, sign_counts, signs
from tunescope.study.analyses.spread import over_seeds
from tunescope.study.analyses.trajectories import Trajectory, trajectories
from tunescope.study.analyses.variance import variance_shares
from tunescope.study.analyses.widths import concentrations, width_error, widths

__all__ = [
    "Anchors",
    "AtOneDrift",
    "Concordance",
    "Curves",
    "LayerTable",
    "Pooled",
    "RatioTest",
    "Ratios",
    "Residuals",
    "SignAgreement",
    "Signs",
    "Trajectory",
    "anchor_robustness",
    "at_one_drift",
    "choose",
    "concentrations",
    "concordance",
    "curves",
    "distances_and_slopes",
    "drift_against_damage",
    "drift_ratio",
    "drifts",
    "every_pair",
    "last_checkpoints",
    "layer_tables",
    "monotone_counts",
    "outcomes",
    "over_runs",
    "over_seeds",
    "points",
    "pooled",
    "profile_table",
    "profiles",
    "ratio_test",
    "ratios",
    "residuals",
    "sign_agreement",
    "sign_counts",
    "signs",
    "trajectories",
    "variance_shares",
    "width_error",
    "widths",
    "without_reference",
]
