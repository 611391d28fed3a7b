"""What the drift study claims of its tables: matched magnitude on E5, its converse on BERT, anchor sets."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tunescope.errors import Degenerate, NotEnoughRows
from tunescope.study import analyses
from tunescope.study.analyses.matched import RULE
from tunescope.study.claims.claim import SILENT, Found, Printed, agreement, listed, printed
from tunescope.study.published import ANCHORS, DRIFT

if TYPE_CHECKING:
    import pandas as pd

STUDY = "geometric drift"
E5, BERT = "e5-base-v2", "bert-base-uncased"
MATCHED = ("contrastive_lora", "gaussian_0.16", "mlm_lora_wikipedia", "mlm_lora_msmarco")
SETS = {"msmarco": "A", "nfcorpus": "B", "wikipedia": "C"}
MLM = "mlm_lora_msmarco"
# What was printed.
_RATIOS = "1.40 / 1.82 / 1.37; 7.85"
_RHO = ".964"
_BELOW = ".001"
ORDER_OF_MAGNITUDE = 10.0


class DriftTables:
    """The study's rows: table 1, and table 3 with the damage of table 1."""

    def __init__(self, rows: pd.DataFrame):
        self.conditions = analyses.choose(rows, study=DRIFT)
        self.anchors = analyses.choose(rows, study=ANCHORS)

    @cached_property
    def both(self) -> pd.DataFrame:
        """Geometry on every anchor set, and MS MARCO."""
        import pandas as pd

        damage = analyses.choose(self.conditions, subject="outcome", task="msmarco")
        return pd.concat([self.anchors, damage], ignore_index=True)

    def ratio_tests(self, measure: str) -> dict[str, analyses.RatioTest]:
        """The ratio test of the four matched conditions on anchors A, B, C."""
        found = {name: analyses.points(self.both, measure=measure, texts=texts, conditions=MATCHED) for texts, name in SETS.items()}
        return {name: analyses.ratio_test(points) for name, points in found.items()}


def matched(tables: DriftTables) -> Found:
    """NPS drift ratio on each anchor set, and the ratio of the MS MARCO losses."""
    found = tables.ratio_tests("nps")
    damage = found["A"].damage
    recomputed = f"{_each([test.drift for test in found.values()], 2)}; {printed(damage, 2)}"
    words = "" if recomputed == _RATIOS else f"{recomputed}, not {_RATIOS}"
    figures = {"drift": {name: test.drift for name, test in found.items()}, "damage": damage}
    return Found(recomputed, agreement(not words), words, figures)


def metric_specific(tables: DriftTables) -> Found:
    """The same test with CKA: damage ratio over drift ratio, which the study wants to be at least 3."""
    found = tables.ratio_tests("cka")
    failed = [name for name, test in found.items() if not test.holds]
    words = listed(f"on anchor {name} the margin is {printed(found[name].margin, 1)}, below the study's own {RULE:g}" for name in failed)
    verdict = f"fails on {', '.join(failed)}" if failed else "holds"
    recomputed = f"{_each([test.margin for test in found.values()], 1)}: {verdict}"
    figures = {"margin": {name: test.margin for name, test in found.items()}, "rule": RULE}
    return Found(recomputed, agreement(not failed), words, figures)


def magnitude(tables: DriftTables) -> Found:
    """MLM on MS MARCO moved E5 so many times as far as BERT, in 1 − NPS."""
    moved = analyses.choose(analyses.drifts(tables.conditions, measure="nps"), condition=MLM)
    e5, bert = (float(analyses.choose(moved, model=model)["drift"].iloc[0]) for model in (E5, BERT))
    if bert <= 0:
        raise Degenerate(f"{BERT} has not moved, so nothing is a multiple of its drift")
    ratio = e5 / bert
    same = ratio >= ORDER_OF_MAGNITUDE
    words = "" if same else f"{printed(e5, 3)} against {printed(bert, 3)} is {printed(ratio, 1)} times, not {ORDER_OF_MAGNITUDE:g}"
    figures = {"e5": e5, "bert": bert, "ratio": ratio}
    return Found(printed(ratio, 1), agreement(same), words, figures)


def within(tables: DriftTables) -> Found:
    """Within one model and one base, does more drift go with more damage?"""
    points = analyses.points(analyses.choose(tables.conditions, model=E5), measure="nps", task="msmarco")
    found = analyses.drift_against_damage(points)
    return Found(f"{_tested(found.value, found.p, 3)}, n {found.n}", SILENT, figures={"rho": found.value, "p": found.p, "n": found.n})


def anchors(tables: DriftTables) -> Found:
    """CKA's order of the conditions on anchors A and B."""
    pairs = analyses.anchor_robustness(tables.anchors, measure="cka").pairs
    line = pairs[(pairs["a"] == "msmarco") & (pairs["b"] == "nfcorpus")].iloc[0]
    if line.rho is None or line.rho != line.rho:  # None among numbers is NaN in a data frame
        raise NotEnoughRows(_NO_ORDER)
    off = [f"ρ is {printed(line.rho, 3)}, not {_RHO}"] if printed(line.rho, 3) != _RHO else []
    off += [f"p is {printed(line.p, 4)}, not below {_BELOW}"] if line.p >= float(_BELOW) else []
    figures = {"rho": float(line.rho), "p": float(line.p), "n": int(line.n)}
    return Found(f"{_tested(line.rho, line.p, 4)}, n {line.n}", agreement(not off), listed(off), figures)


CLAIMS = (
    Printed("contrastive, gaussian, both MLM: largest over smallest 1 − NPS on anchors A / B / C; MS MARCO damage", _RATIOS, matched),
    Printed(f"the same with CKA: margin of damage over drift (rule ≥ {RULE:g})", "“not metric-specific”", metric_specific),
    Printed("1 − NPS of E5 over that of BERT, both tuned by MLM", "“an order of magnitude”", magnitude),
    Printed("Spearman(1 − NPS, damage) over E5's perturbed conditions; exact p", "–", within),
    Printed("CKA on anchors A and B: Spearman of the conditions, ties averaged; exact p", f"{_RHO}, p < {_BELOW}", anchors),
)


_NO_ORDER = "there is no correlation: one side is the same everywhere"


def _tested(rho: float | None, p: float | None, places: int) -> str:
    if rho is None or p is None:
        raise NotEnoughRows(_NO_ORDER)
    return f"{printed(rho, 3)}, p {printed(p, places)}"


def _each(values: list[float], places: int) -> str:
    return " / ".join(printed(value, places) for value in values)
