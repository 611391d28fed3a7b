"""The k largest entries of long rows, found without sorting the rows."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

_STRANDS = 16  # a row is cut into n / 16 groups of 16 entries that lie n / 16 apart, so that their maximum is taken lane by lane


def largest(x: Float[Tensor, "rows n"], k: int) -> Int[Tensor, "rows k"]:
    """Where the k largest entries of each row are, in no order; what `x.topk(k)` finds, ties aside, in a fraction of its time.

    The k largest entries lie in the k groups with the largest maxima, since each of those groups holds an entry that is no smaller
    than any entry of the others; so only k · 16 candidates are looked at.
    """
    rows, n = x.shape
    groups = n // _STRANDS
    if groups * _STRANDS != n or groups < 2 * k or x.device.type != "cpu":
        return x.topk(k, dim=1, sorted=False).indices
    strands = x.view(rows, _STRANDS, groups)
    best = strands.amax(1).topk(k, dim=1, sorted=False).indices
    candidates = strands.gather(2, best[:, None, :].expand(-1, _STRANDS, -1)).reshape(rows, -1)
    chosen = candidates.topk(k, dim=1, sorted=False).indices
    return chosen // k * groups + best.gather(1, chosen % k)
