"""The measures as plain functions of two arrays: `ts.debiased_cka(x, y)`.

Every function takes numpy or torch arrays (n, d) and (n, e) whose rows are the same items in the same order, and returns a float. Each is
one line on the measure of the same name, whose docstring has the formula, the range and the source.

Raises, all of them: AlignmentError (shapes), ActivationError (NaN or Inf), NotEnoughRows, Degenerate (no value on these rows).
"""

from __future__ import annotations

from typing import Any

from tunescope.geometry.measures.cca import CCA, PWCCA, SVCCA, LinearR2
from tunescope.geometry.measures.cka import CKA, RBFCKA, DebiasedCKA
from tunescope.geometry.measures.drift import ChangeRank, RelativeDrift, RowCosine, SubspaceOverlap
from tunescope.geometry.measures.isotropy import Isotropy, MeanCosine, PartitionRatio
from tunescope.geometry.measures.nps import CURVE, NPS, Continuity, MutualKNN, Trustworthiness
from tunescope.geometry.measures.nps import nps_curve as _curve
from tunescope.geometry.measures.procrustes import Procrustes
from tunescope.geometry.measures.rsa import RSA
from tunescope.geometry.rows import Rows


def cka(x: Any, y: Any) -> float:
    """Linear CKA, centred (Kornblith et al. 2019), in [0, 1]; biased upwards when n is small against the features."""
    return CKA()(x, y)


def debiased_cka(x: Any, y: Any) -> float:
    """CKA from unbiased HSIC (Song et al. 2012), ≤ 1; 0 in expectation for unrelated data at any n."""
    return DebiasedCKA()(x, y)


def rbf_cka(x: Any, y: Any, *, bandwidth: float = 1.0) -> float:
    """CKA of Gaussian kernels with σ = bandwidth × median distance, in [0, 1]."""
    return RBFCKA(bandwidth)(x, y)


def procrustes(x: Any, y: Any) -> float:
    """Orthogonal Procrustes distance of centred arrays of norm 1, in [0, √2]; 0 for equal up to rotation and scale."""
    return Procrustes()(x, y)


def rsa(x: Any, y: Any, *, comparison: str = "spearman", dissimilarity: str = "correlation") -> float:
    """Correlation (spearman, pearson, kendall) of the dissimilarities (correlation, cosine, euclidean) of all pairs of rows, in [−1, 1]."""
    return RSA(comparison, dissimilarity)(x, y)


def nps(x: Any, y: Any, *, k: int = 10, metric: str = "cosine") -> float:
    """Mean share of each row's k nearest neighbours that it keeps, in [0, 1]; k/(n−1) for unrelated spaces."""
    return NPS(k, metric)(x, y)


def nps_curve(x: Any, y: Any, *, ks: tuple[int, ...] = CURVE, metric: str = "cosine") -> dict[int, float]:
    """NPS at several k, from one search a side."""
    return _curve(Rows.of(x, y), ks, metric=metric)


def mutual_knn(x: Any, y: Any, *, k: int = 10) -> float:
    """Neighbour overlap with the inner product as similarity (Huh et al. 2024), in [0, 1]."""
    return MutualKNN(k)(x, y)


def trustworthiness(x: Any, y: Any, *, k: int = 10, metric: str = "cosine") -> float:
    """1 minus the rank penalty of neighbours in y that were not near in x (Venna and Kaski 2001)."""
    return Trustworthiness(k, metric)(x, y)


def continuity(x: Any, y: Any, *, k: int = 10, metric: str = "cosine") -> float:
    """1 minus the rank penalty of neighbours in x that are no longer near in y."""
    return Continuity(k, metric)(x, y)


def cca(x: Any, y: Any) -> float:
    """Mean squared canonical correlation, in [0, 1]; 1 whatever the data when n ≤ features."""
    return CCA()(x, y)


def svcca(x: Any, y: Any, *, share: float = 0.99) -> float:
    """Mean canonical correlation of the directions carrying `share` of each side's variance (Raghu et al. 2017)."""
    return SVCCA(share)(x, y)


def pwcca(x: Any, y: Any) -> float:
    """Projection-weighted canonical correlation (Morcos et al. 2018), weighted by x."""
    return PWCCA()(x, y)


def linear_r2(x: Any, y: Any) -> float:
    """Share of y's variance that a linear map of x explains, in [0, 1]; 1 whatever the data when n ≤ features."""
    return LinearR2()(x, y)


def relative_drift(x: Any, y: Any) -> float:
    """Mean |y − x|/|x| over rows; both sides in the same features."""
    return RelativeDrift()(x, y)


def row_cosine(x: Any, y: Any) -> float:
    """Mean cosine of a row with itself after tuning, in [−1, 1]; both sides in the same features."""
    return RowCosine()(x, y)


def subspace_overlap(x: Any, y: Any, *, m: int = 10) -> float:
    """Mean squared cosine of the principal angles between the top-m principal subspaces; about m/d for random ones."""
    return SubspaceOverlap(m)(x, y)


def change_rank(x: Any, y: Any) -> float:
    """Effective rank (Roy and Vetterli 2007) of the centred change y − x: how many directions moved."""
    return ChangeRank()(x, y)


def isotropy(x: Any) -> float:
    """IsoScore (PR − 1)/(D − 1) of one array, estimated without bias: 1 for white noise at any n, near 0 for one dominant direction."""
    return Isotropy()(x)


def mean_cosine(x: Any) -> float:
    """Mean cosine over all pairs of distinct rows of one array, in [−1, 1]."""
    return MeanCosine()(x)


def partition_ratio(x: Any) -> float:
    """Partition-function ratio of one array (Mu and Viswanath 2018), in [0, 1]: 1 for a cloud isotropic around the origin."""
    return PartitionRatio()(x)
