"""What the depth study claims of its tables: slopes and their signs, equal-step, objective distance, width."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunescope.reference import EQUAL_STEP
from tunescope.study import analyses
from tunescope.study.claims.claim import SILENT, Found, Printed, agreement, listed, printed
from tunescope.study.published import BLOCKS, CAUSAL, DEPTH, FAMILIES

if TYPE_CHECKING:
    import pandas as pd

STUDY = "depth profile"
STANDARD = "Std"
_NAMES = {"procrustes": "Procrustes", "cka": "CKA"}
_DISTANCES = ("procrustes", "cosine")
# What was printed.
_RUNS = 210
_POSITIVE = {"procrustes": (189, 190), "cka": (189, 190)}
_EXCEPTION = "CodeGen-350M BarlowTwins FrzLN, −.032"
_STAYED = {"sequential": (10, 12), "parallel": (2, 8), "causal-LM family": (7, 8), "contrastive causal": (2, 8)}
_CONCORDANT = "8 of 9 (.039); 9 of 9 (.0039)"
_MONOTONE = 189
COMPARABLE = 2.0  # two amounts are called so while neither is more than twice the other


class DepthTables:
    """The study's rows, and what several of its claims are read off."""

    def __init__(self, rows: pd.DataFrame):
        self.rows = analyses.choose(rows, study=DEPTH)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A line a run and measure."""
        return analyses.profiles(analyses.choose(self.rows, measure=("procrustes", "cka")))

    @cached_property
    def five_rules(self) -> pd.DataFrame:
        """The rows without equal-step, which the study counts apart."""
        return self.rows[self.rows["update"] != EQUAL_STEP]

    @property
    def usual(self) -> pd.DataFrame:
        """`runs` without equal-step."""
        return self.runs[self.runs["update"] != EQUAL_STEP]

    def of(self, measure: str) -> pd.DataFrame:
        """`usual` under one measure."""
        return analyses.choose(self.usual, measure=measure)


def counted(tables: DepthTables) -> Found:
    """Runs in the tables, each under both measures."""
    usual, control = (len(analyses.choose(some, measure="procrustes")) for some in (tables.usual, _control(tables)))
    total = usual + control
    words = "" if total == _RUNS else f"{total} rows, not {_RUNS}"
    figures = {"standard": usual, "equal_step": control, "total": total}
    return Found(f"{usual} + {control} = {total}", agreement(total == _RUNS), words, figures)


def positive(tables: DepthTables) -> Found:
    """Slopes above 0 under each measure."""
    found = {measure: analyses.signs(tables.of(measure)) for measure in ("procrustes", "cka")}
    first, second = found["procrustes"], found["cka"]
    got = {measure: (each.positive, each.n) for measure, each in found.items()}
    off = [measure for measure, pair in _POSITIVE.items() if got[measure] != pair]
    words = listed(f"{_NAMES[m]}: {_of(got[m])}, not {_of(_POSITIVE[m])}; not positive: {_not_positive(tables.of(m))}" for m in off)
    figures = {measure: {"positive": each.positive, "n": each.n} for measure, each in found.items()}
    return Found(f"{first.positive} / {second.positive} of {first.n}", agreement(not off), words, figures)


def agreeing(tables: DepthTables) -> Found:
    """Signs of the two measures' slopes, without and with equal-step."""
    usual, every = analyses.sign_agreement(tables.usual), analyses.sign_agreement(tables.runs)
    same = usual.agree == usual.n and every.agree == every.n
    words = "" if same else f"they differ in {listed(_named(line) for line in every.exceptions.itertuples())}"
    figures = {"standard": {"agree": usual.agree, "n": usual.n}, "all": {"agree": every.agree, "n": every.n}}
    return Found(f"{usual.agree} of {usual.n}; {every.agree} of {every.n}", agreement(same), words, figures)


def exception(tables: DepthTables) -> Found:
    """The runs whose Procrustes slope is not positive."""
    lines = tables.of("procrustes")
    found = [(_named(line), line.slope) for line in lines[lines["slope"] <= 0].itertuples()]
    recomputed = listed(f"{name}, {printed(slope, 3)}" for name, slope in found) or "none"
    words = "" if recomputed == _EXCEPTION else f"{recomputed}; the paper has {_EXCEPTION}"
    figures = {"runs": [{"run": name, "slope": slope} for name, slope in found]}
    return Found(recomputed, agreement(not words), words, figures)


def width(tables: DepthTables) -> Found:
    """The printed width table against each run's shares of 1 − CKA, averaged over a model's runs under the five rules."""
    shares = analyses.choose(tables.rows, measure="share").rename(columns={"value": "share"})
    error = analyses.width_error(analyses.widths(tables.five_rules), shares)
    return Found(printed(error, 4), SILENT, figures={"max_abs_error": error})


def equal_step(tables: DepthTables) -> Found:
    """Slopes that stay positive under equal-step, by block type and by family of objectives."""
    lines = analyses.choose(_control(tables), measure="procrustes")
    lines = lines.assign(block=lines["model"].map(BLOCKS), family=lines["objective"].map(FAMILIES))
    causal = analyses.choose(lines, model=CAUSAL)
    groups = {
        "sequential": analyses.choose(lines, block="sequential"),
        "parallel": analyses.choose(lines, block="parallel"),
        "causal-LM family": analyses.choose(causal, family="causal-LM"),
        "contrastive causal": analyses.choose(causal, family="contrastive"),
    }
    found = {name: (count.positive, count.n) for name, count in ((name, analyses.signs(group)) for name, group in groups.items())}
    off = [name for name in groups if found[name] != _STAYED[name]]
    words = listed(f"{name}: {_of(found[name])}, not {_of(_STAYED[name])}; positive: {_positive(groups[name])}" for name in off)
    figures = {name: {"positive": count, "n": n} for name, (count, n) in found.items()}
    return Found(" / ".join(map(_of, found.values())), agreement(not off), words, figures)


def concordant(tables: DepthTables) -> Found:
    """Within-model Spearman of objective distance with the mean slope of the five rules."""
    found = {name: _concordance(tables, name, reference=True) for name in _DISTANCES}
    recomputed = listed(_signs(each, places) for each, places in zip(found.values(), (3, 4), strict=True))
    words = "" if recomputed == _CONCORDANT else f"{recomputed}, not {_CONCORDANT}"
    return Found(recomputed, agreement(not words), words, {name: _counts(each) for name, each in found.items()})


def without_reference(tables: DepthTables) -> Found:
    """The same without the pretraining objective, which is at distance 0 by definition."""
    found = {name: _concordance(tables, name, reference=False) for name in _DISTANCES}
    return Found(listed(_signs(each, 2) for each in found.values()), SILENT, figures={name: _counts(each) for name, each in found.items()})


def monotone(tables: DepthTables) -> Found:
    """How many Procrustes profiles rise at every depth, and how many have their maximum elsewhere than at the last."""
    (found,) = analyses.monotone_counts(tables.of("procrustes")).itertuples()
    n, strict, never_falls, elsewhere = found.n, found.strictly_monotone, found.monotone, found.n - found.peaks_last
    same = strict >= _MONOTONE
    words = f"{strict} of {n} rise at every depth and {never_falls} never fall; in {elsewhere} the largest change is not at the last depth"
    figures = {"n": n, "strictly_monotone": strict, "monotone": never_falls, "maximum_not_last": elsewhere}
    return Found(f"{strict} of {n}; {elsewhere} of {n}", agreement(same), "" if same else words, figures)


def explained(tables: DepthTables) -> Found:
    """η² of the last depth's share of 1 − CKA, over the standard runs."""
    found = analyses.variance_shares(tables.of("cka"), "final_share").set_index("factor")["eta2"]
    shares = {name: float(found[name]) for name in ("model", "objective", "update")}
    return Found(" / ".join(printed(share, 2) for share in shares.values()), SILENT, figures=shares)


def moved_more(tables: DepthTables) -> Found:
    """Mean Procrustes change over depth under equal-step over that under the standard rule, in each model and objective."""
    found = analyses.ratios(analyses.choose(tables.runs, measure="procrustes"), of=EQUAL_STEP, to=STANDARD)
    same = 1 / COMPARABLE <= found.geometric_mean <= COMPARABLE
    mean, low, high = (printed(value, 1) for value in (found.geometric_mean, found.low, found.high))
    words = "" if same else f"equal-step moved the models {mean} times as far, between {low} and {high} times"
    figures = {"geometric_mean": found.geometric_mean, "low": found.low, "high": found.high, "n": found.n}
    recomputed = f"{mean} ({low}–{high})"
    return Found(recomputed, agreement(same), words, figures)


CLAIMS = (
    Printed("rows, standard + equal-step", f"{_RUNS}", counted),
    Printed("positive slopes, Procrustes / CKA", "189 / 189 of 190", positive),
    Printed("Procrustes and CKA slopes of one sign, without; with equal-step", "all", agreeing),
    Printed("the exception (Procrustes)", _EXCEPTION, exception),
    Printed("width table, largest error of its reading", "–", width),
    Printed(
        "equal-step slopes still positive: sequential / parallel / causal-LM family / contrastive causal",
        " / ".join(f"{count} of {n}" for count, n in _STAYED.values()),
        equal_step,
    ),
    Printed("models with Spearman(distance, slope) > 0: Procrustes; cosine (two-sided sign p)", _CONCORDANT, concordant),
    Printed("the same without the objective at distance 0", "–", without_reference),
    Printed("Procrustes profiles strictly monotone; maximum not at depth 1.00", "“near-monotonic in 189”", monotone),
    Printed("η² of the final-layer share: model / objective / rule", "–", explained),
    Printed("mean change, equal-step over standard: geometric mean (range)", "“comparable”", moved_more),
)


def _control(tables: DepthTables) -> pd.DataFrame:
    return analyses.choose(tables.runs, update=EQUAL_STEP)


def _concordance(tables: DepthTables, distance: str, *, reference: bool) -> analyses.Concordance:
    points = analyses.distances_and_slopes(tables.five_rules, distance=distance)
    return analyses.concordance(points if reference else analyses.without_reference(points))


def _signs(found: analyses.Concordance, places: int) -> str:
    return f"{found.positive} of {found.n} ({printed(found.p, places)})"


def _counts(found: analyses.Concordance) -> dict[str, Any]:
    known = found.models.dropna(subset="rho")
    return {"positive": found.positive, "n": found.n, "p": found.p, "rho": dict(zip(known["model"], known["rho"], strict=True))}


def _named(line: Any) -> str:
    return f"{line.model} {line.objective} {line.update}"


def _not_positive(lines: pd.DataFrame) -> str:
    return ", ".join(_named(line) for line in lines[lines["slope"] <= 0].sort_values(["model", "objective"]).itertuples()) or "none"


def _positive(lines: pd.DataFrame) -> str:
    up = lines[lines["slope"] > 0].sort_values(["model", "objective"])
    return ", ".join(f"{line.model} {line.objective} {printed(line.slope, 3, sign=True)}" for line in up.itertuples()) or "none"


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]} of {pair[1]}"
