"""Several tests at once: p-values that bound the chance of any false finding among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunescope.errors import InputError


def holm(p: Sequence[float | None] | np.ndarray) -> list[float | None]:
    """Holm's step-down adjustment: the i-th smallest of m p-values times m − i + 1, then the largest so far, at most 1.

    At 5% of the adjusted values the chance of any false finding is at most 5%, whatever the dependence. None (no test was made) stays
    None and is not counted in m.

    Raises: InputError for a value outside [0, 1].

    Reference: Holm 1979 (https://www.jstor.org/stable/4615733).
    """
    made = [index for index, value in enumerate(p) if value is not None]
    values = np.array([p[index] for index in made], dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"p-values lie between 0 and 1; got {', '.join(f'{v:g}' for v in values if not 0 <= v <= 1)}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    found: list[float | None] = [None] * len(p)
    for index, value in zip(made, adjusted, strict=True):
        found[index] = float(value)
    return found
