"""Which objectives lie off the common line of slope on distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunescope.errors import Degenerate, NotEnoughRows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Residuals:
    """The line slope = intercept + gradient · distance, and what it leaves.

    table: model, objective, distance, slope, fitted, residual, standardised (residual over sd), anomaly; the largest first. sd: of the
    residuals, with n − 2. beyond: the size in sd from which a point is an anomaly.
    """

    intercept: float
    gradient: float
    sd: float
    beyond: float
    table: pd.DataFrame


def residuals(points: pd.DataFrame, *, beyond: float = 2.0) -> Residuals:
    """Least squares over the points of all models; anomalies are those at `beyond` sd of the residuals or more.

    A point far out draws the line towards itself, so this finds fewer than there are. The depth study names its anomalies without a
    cut-off that could be read; none gives its list here: under Procrustes SimCSE on GPT-2, unnamed, lies further off than SpanDenoise on
    BERT-base, named.

    Raises: NotEnoughRows below 3 points, Degenerate when all distances are alike or the points lie on a line.
    """
    if len(points) < 3:
        raise NotEnoughRows(f"residuals of a line need at least 3 points, got {len(points)}")
    x, y = points["distance"].to_numpy(dtype="float64"), points["slope"].to_numpy(dtype="float64")
    if np.ptp(x) == 0:
        raise Degenerate(f"all {len(x)} distances are {x[0]:g}, so there is no line of slope on distance")
    dx = x - x.mean()
    gradient = float(dx @ y / (dx @ dx))
    intercept = float(y.mean() - gradient * x.mean())
    fitted = intercept + gradient * x
    sd = float(np.sqrt(np.sum((y - fitted) ** 2) / (len(x) - 2)))
    if sd <= 1e-12 * max(1.0, float(np.abs(y).max())):
        raise Degenerate("the points lie on one line, so no residual stands out")
    table = points.assign(fitted=fitted, residual=y - fitted, standardised=(y - fitted) / sd)
    table["anomaly"] = table["standardised"].abs() >= beyond
    order = table["standardised"].abs().sort_values(ascending=False, kind="stable").index
    return Residuals(intercept, gradient, sd, beyond, table.loc[order].reset_index(drop=True))
