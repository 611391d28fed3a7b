"""The table of behaviour recovered: what each splice closes, between nothing and the true Δ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tunescope.dictionaries.behaviours import BASE, TUNED
from tunescope.dictionaries.closed_share import Share, closed_share
from tunescope.dictionaries.hygiene import Dropped

ZERO, MEAN, TRUE = "zero", "mean delta", "true delta"
REFERENCES = {
    ZERO: "nothing is added: the base itself",
    MEAN: "the mean of Δ is added to every token: what a dictionary must beat",
    TRUE: "Δ itself is added at the same tokens: what a dictionary without error closes at this layer",
}
HARMFUL = "the true Δ closes nothing at this layer without the tuning of the blocks after it"
DEFINITIONS = {
    "closed": "1 − Σ d(tuned, spliced) / Σ d(tuned, base) over held-out documents",
    "loss_closed": "(loss_base − loss_spliced) / (loss_base − loss_tuned)",
    "of_true": "what is closed, as a share of what the true Δ closes at the same tokens",
}
Table = Mapping[tuple[str, int | None, str], np.ndarray]


@dataclass(frozen=True)
class Recovered:
    """One splice: `spliced` names the dictionary, or a reference (`REFERENCES`).

    closed, loss_closed, of_true: see `DEFINITIONS`. distance: mean distance from the tuned model's answers; loss: mean loss, in nats;
    base_*, tuned_loss: of the two models. documents, answers: how many there are.
    """

    adapter: str
    layer: int
    spliced: str
    reference: bool
    closed: Share
    loss_closed: Share | None
    of_true: Share
    distance: float
    base_distance: float
    loss: float | None
    base_loss: float | None
    tuned_loss: float | None
    documents: int
    answers: int

    def as_dict(self) -> dict[str, Any]:
        """Flat and JSON-able."""
        flat = asdict(self)
        for name in ("closed", "loss_closed", "of_true"):
            share: Share = getattr(self, name) or Share(None)
            flat |= {name: share.value} | {f"{name}_{part}": getattr(share, part) for part in ("low", "high", "note")}
        return flat


@dataclass(frozen=True)
class BehaviourRecovered:
    """All rows, by tuned model and layer; behaviour and distance say of what. dropped: the tokens of the windows that were read."""

    rows: tuple[Recovered, ...]
    behaviour: str
    distance: str
    says: str
    dropped: Dropped

    @property
    def notes(self) -> list[str]:
        """What a reader has to know."""
        read, kept = self.dropped.read, self.dropped.kept
        where = f"first {self.dropped.first:,}, special {self.dropped.special:,}, attention sinks {self.dropped.sinks:,}"
        nothing = f"nothing is added at {read - kept:,} of {read:,} tokens ({where}), not in the row of the true Δ either"
        return [f"behaviour: {self.says}", nothing]

    def row(self, adapter: str, layer: int, spliced: str) -> Recovered:
        """One row. Raises KeyError for one that is not there."""
        return {(row.adapter, row.layer, row.spliced): row for row in self.rows}[adapter, layer, spliced]

    def describe(self) -> dict[str, Any]:
        """JSON-able: rows, definitions and notes."""
        return {
            "behaviour": self.behaviour,
            "distance": self.distance,
            "definitions": DEFINITIONS,
            "references": REFERENCES,
            "dropped": self.dropped.describe(),
            "notes": self.notes,
            "rows": [row.as_dict() for row in self.rows],
        }


def sums_to_rows(
    adapter: str, layer: int, spliced: Iterable[str], *, distance: Table, loss: Table, answers: np.ndarray
) -> list[Recovered]:
    """The rows of one tuned model and layer, from sums (n,) over the answers of each document; documents without an answer do not count."""
    there = answers > 0
    total = int(answers.sum())
    base, tuned = (adapter, None, BASE), (adapter, None, TUNED)

    def of(table: Table, key: tuple[str, int | None, str]) -> np.ndarray | None:
        return table[key][there] if key in table else None

    def mean(sums: np.ndarray | None) -> float | None:
        return None if sums is None else float(sums.sum() / total)

    gap, best = distance[base][there], distance[adapter, layer, TRUE][there]
    base_loss, tuned_loss = of(loss, base), of(loss, tuned)
    rows = []
    for name in (ZERO, *spliced):
        where = base if name == ZERO else (adapter, layer, name)
        own, own_loss = distance[where][there], of(loss, where)
        rows.append(
            Recovered(
                adapter=adapter,
                layer=layer,
                spliced=name,
                reference=name in REFERENCES,
                closed=closed_share(own, gap),
                loss_closed=_loss_closed(own_loss, base_loss, tuned_loss),
                of_true=_of_true(own, gap, best),
                distance=float(own.sum() / total),
                base_distance=float(gap.sum() / total),
                loss=mean(own_loss),
                base_loss=mean(base_loss),
                tuned_loss=mean(tuned_loss),
                documents=int(there.sum()),
                answers=total,
            )
        )
    return rows


def _of_true(own: np.ndarray, gap: np.ndarray, best: np.ndarray) -> Share:
    return closed_share(own - best, gap - best, signed=True) if (gap - best).sum() > 0 else Share(None, note=HARMFUL)


def _loss_closed(own: np.ndarray | None, base: np.ndarray | None, tuned: np.ndarray | None) -> Share | None:
    if own is None or base is None or tuned is None:
        return None
    return closed_share(own - tuned, base - tuned, signed=True)
