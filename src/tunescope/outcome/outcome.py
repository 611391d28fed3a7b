"""One measured outcome: a row of `outcomes` in comparison.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from tunescope.errors import UnknownName
from tunescope.stats import Paired

KINDS = ("retrieval", "probe", "language", "external", "reembedding")


@dataclass(frozen=True)
class Outcome:
    """How base and tuned did at one task by one metric, and what may be said of the difference.

    base, tuned: means over n items. delta: tuned − base; low, high: its 95% interval; p: of the paired test; p_holm: the same after
    Holm's correction over the tasks of a comparison. margin: the difference that would not matter. detectable: the smallest true
    difference that these n items show with 80% power. layer: where the features were read, None for the model as deployed. main: the
    metric a task is judged by. items: what n counts. reason: why there is no verdict, where there is none.
    """

    kind: str
    name: str
    metric: str
    base: float | None
    tuned: float | None
    delta: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    margin: float
    higher_is_better: bool
    verdict: str
    layer: int | str | None = None
    main: bool = False
    items: str = "items"
    sd: float | None = None
    equivalence_p: float | None = None
    detectable: float | None = None
    p_holm: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("kind of outcome", self.kind, KINDS)

    @classmethod
    def of(
        cls,
        paired: Paired,
        *,
        kind: str,
        name: str,
        metric: str,
        items: str = "items",
        layer: int | str | None = None,
        main: bool = False,
        reason: str | None = None,
    ) -> Outcome:
        """The row of a paired comparison."""
        if paired.verdict == "not evaluable" and reason is None:
            reason = f"a difference is judged over two {items} or more, got {paired.n}"
        shared = ("base", "tuned", "delta", "low", "high", "p", "sd", "equivalence_p", "detectable")
        numbers = {key: _number(getattr(paired, key)) for key in shared}
        return cls(
            kind=kind,
            name=name,
            metric=metric,
            n=paired.n,
            margin=paired.margin,
            higher_is_better=paired.higher_is_better,
            verdict=paired.verdict,
            layer=layer,
            main=main,
            items=items,
            reason=reason,
            **numbers,
        )

    def row(self) -> dict[str, Any]:
        """JSON-able: this outcome as comparison.json has it."""
        return asdict(self)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
