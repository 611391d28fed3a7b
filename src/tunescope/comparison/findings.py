"""What two captures show: every layer and site measured, and what is read off them, as the payload of a Comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import torch

from tunescope.comparison.cross_layers import cross_layers, fit_of
from tunescope.comparison.headline import headline, of_rows
from tunescope.comparison.layers import Place, measure_place
from tunescope.comparison.outlier_dimensions import about_outliers, outliers_at
from tunescope.comparison.published import published
from tunescope.comparison.result import SCHEMA
from tunescope.comparison.side import Pairing, Side, pairings
from tunescope.comparison.streaming import PassedPairing
from tunescope.comparison.warn import about_models, about_numbers, about_texts
from tunescope.geometry.matching import Fit
from tunescope.geometry.measures import Measure
from tunescope.geometry.measures.nps import nps_curve
from tunescope.geometry.measures.procrustes import aligned_residuals
from tunescope.geometry.neighbours import overlap
from tunescope.geometry.profile import STATUS_RULE, locality, width
from tunescope.geometry.rows import Rows
from tunescope.geometry.threads import side_by_side, threads_for
from tunescope.identity import versions
from tunescope.ranks import ALONE, Ranks
from tunescope.texts import Corpus

Progress = Callable[[str, int, int], None]  # (what is being done, done, total)

CUMULATIVE = (
    "Change is cumulative: a block's output moves when any block before it moved, so the curve shows where change is seen, not which "
    "weights made it."
)
NO_FUNCTION = "Nothing was measured about function: geometry says where and how far, an outcome says good or bad."
SHOWN = 5  # most-moved and least-moved texts in the report
EXCERPT = 300  # characters of a text that are kept


def locality_of(rows: Sequence[dict[str, Any]], measures: Mapping[str, Measure]) -> dict[str, Any]:
    """Slope, rank slope, peak and monotonicity per measure, over the blocks at their actual depths."""
    blocks = [row for row in rows if row["index"] > 0]
    found = {}
    for name in measures:
        curve = [(row["depth"], row["measures"].get(name, {}).get("change")) for row in blocks]
        curve = [(depth, change) for depth, change in curve if change is not None]
        if curve:
            found[name] = asdict(locality(*zip(*curve, strict=True)))
            found[name]["saturated_layers"] = [row["index"] for row in blocks if row["measures"].get(name, {}).get("saturated")]
    return found


@dataclass(frozen=True)
class Findings:
    """Everything measured on two captures, as the payload of a Comparison."""

    base: Side
    tuned: Side
    corpus: Corpus
    measures: Mapping[str, Measure]
    noise: Mapping[int | str, Mapping[str, float | None]]
    seed: int
    say: Progress
    passed: Sequence[Pairing] | None = None  # places whose rows went by in a stream, in place of the sides' own rows
    ranks: Ranks = ALONE

    @cached_property
    def pairings(self) -> Sequence[Pairing]:
        return pairings(self.base, self.tuned) if self.passed is None else self.passed

    @property
    def work(self) -> float:
        """Multiply-adds of the moments at the largest place."""
        return max(pairing.work for pairing in self.pairings)

    def payload(self, reading: dict[str, Any]) -> dict[str, Any]:
        depth, places = self.tuned.depth, self.pairings
        rows, curves, moved, fits = [], {}, None, []
        for row, curve, texts, fit in self._measured(places):
            rows.append(row)
            curves[row["name"]] = curve
            moved = texts or moved
            fits.append(fit)
        layers, sites = [row for row in rows if "index" in row], {row.pop("name"): row for row in rows if "index" not in row}
        data = self._data(reading)
        localities = locality_of(layers, self.measures)
        profile = layers or [{"name": name} | row for name, row in sites.items()]  # rows without a model may have no blocks
        cross = self._cross(places[: len(layers)], fits[: len(layers)]) if layers and self.passed is None else None
        return {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "tunescope": versions()["tunescope"],
            "headline": headline(layers, len(self.corpus), depth=depth, sites=sites) if layers else of_rows(profile, len(self.corpus)),
            "base": self.base.identity,
            "tuned": self.tuned.identity,
            "data": data,
            "measures": {name: describe(measure) for name, measure in self.measures.items()},
            "default_measure": "cka",
            "layers": layers,
            "sites": sites,
            "cross": cross,
            "locality": localities,
            "width": _width(layers, depth) if layers else None,
            "published": published(layers, sites, depth) if layers else None,
            "status_rule": STATUS_RULE,
            "nps_curve": _curve(curves, [row["name"] for row in profile]),
            "texts": moved,
            "outcomes": [],
            "warnings": [
                *about_texts(self.corpus, self.base, self.tuned),
                *about_models(self.base, self.tuned),
                *about_numbers(profile, sites if layers else {}, self.measures, localities, data["rows"], data["n"]),
                *about_outliers(layers, sites),
            ],
            "notes": [CUMULATIVE, NO_FUNCTION] if layers else [NO_FUNCTION],
            "versions": versions(),
        }

    def _cross(self, places: Sequence[Pairing], fits: Sequence[Fit | None]) -> dict[str, Any]:
        with threads_for(self.work):
            return cross_layers(self.base, self.tuned, places, fits, self.ranks)

    def _measured(self, places: Sequence[Pairing]) -> list[Any]:
        """What `_at` finds at every place; ranks take a share of the places each, and a place with another's rows shares its row."""
        twins = {at: twin for at, place in enumerate(places) if (twin := _twin(place, places[:at])) is not None}
        mine, found = self.ranks.share([place for at, place in enumerate(places) if at not in twins]), []
        self.say("comparing layers", 0, len(mine))
        for one in side_by_side(self._at, mine, work=self.work):
            found.append(one)
            self.say("comparing layers", len(found), len(mine))
        measured = iter(self.ranks.all(found))
        whole: list[Any] = []
        for at, place in enumerate(places):
            whole.append(_renamed(whole[twins[at]], place) if at in twins else next(measured))
        return whole

    def _at(self, pairing: Pairing) -> tuple[dict[str, Any], dict[int, float], dict[str, Any] | None, Fit | None]:
        """Everything at one place: its row, its curve of neighbours kept, which texts moved when it is the place to ask, and its fit."""
        place, groups = pairing.place, self.base.acts.groups
        per_text = groups is None or len(pairing.x) != len(groups)
        rows = pairing.rows(None if per_text else groups)
        curve = nps_curve(rows) if "nps" in self.measures and per_text and not rows.constant else {}
        row = measure_place(place, rows, self.measures, noise=self.noise.get(pairing.where, {}), seed=self.seed)
        if rows.passed:
            return row | {"outliers": None}, curve, None, None
        row["outliers"] = outliers_at(rows, row)
        texts = self._texts(place, rows) if per_text and place.name == "output" else None
        return row, curve, texts, None if place.index is None else fit_of(rows)

    def _data(self, reading: dict[str, Any]) -> dict[str, Any]:
        corpus = self.corpus
        return {
            "n": len(corpus.texts),
            "rows": self.pairings[0].n,
            "method": "exact" if self.passed is None else "stream",
            "source": corpus.source,
            "sha256": corpus.sha256 or None,
            "sampled_from": corpus.sampled_from,
            **reading,
            **({"truncated": max(side.acts.truncated for side in (self.base, self.tuned))} if reading else {}),
            **({"tokens": int(self.tuned.acts.tokens.sum())} if reading else {}),
            "seed": self.seed,
        }

    def _texts(self, place: Place, rows: Rows) -> dict[str, Any] | None:
        """The texts that moved most and least at this place, after the best rotation of the whole space."""
        if rows.same or rows.constant or len(rows) < 12:
            return None
        moved = aligned_residuals(rows)
        kept = overlap(*rows.graphs(10, "cosine"), 10)
        order = moved.argsort(descending=True, stable=True).tolist()

        def entry(i: int) -> dict[str, Any]:
            text = self.corpus.texts[i]
            short = text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
            return {"id": self.corpus.ids[i], "text": short, "moved": float(moved[i]), "kept": int(kept[i]), "of": 10}

        shown = min(SHOWN, len(order) // 2)
        return {"site": place.name, "most": [entry(i) for i in order[:shown]], "least": [entry(i) for i in order[::-1][:shown]]}


def _twin(place: Pairing, earlier: Sequence[Pairing]) -> int | None:
    """The position of the layer whose rows `final` repeats, as it does where a model has no final norm."""
    if place.where != "final" or not earlier or isinstance(place, PassedPairing):
        return None
    last = earlier[-1]
    same = all(one.shape == two.shape and torch.equal(one, two) for one, two in ((place.x, last.x), (place.y, last.y)))
    return len(earlier) - 1 if same else None


def _renamed(found: tuple[dict[str, Any], dict[int, float], Any, Any], place: Pairing) -> tuple[Any, ...]:
    row, curve, _, _ = found
    return {key: value for key, value in row.items() if key not in ("index", "depth")} | {"name": place.place.name}, curve, None, None


def describe(measure: Measure) -> dict[str, Any]:
    """What a reader must know of a measure's numbers, JSON-able."""
    return {
        "title": measure.title,
        "direction": "higher is closer" if measure.higher_is_closer else "lower is closer",
        "range": [None if abs(bound) == float("inf") else bound for bound in measure.bounds],
        "change": measure.change_formula,
        "interval": measure.interval,
        "null": measure.chance_method,
        "invariances": sorted(measure.invariances),
        "reference": measure.reference,
        "one_sided": measure.one_sided,
    }


def _width(layers: Sequence[dict[str, Any]], depth: int) -> dict[str, Any]:
    blocks = [row for row in layers if row["index"] > 0 and row["measures"]["cka"]["change"] is not None]
    shares, reason = width([row["measures"]["cka"]["change"] for row in blocks])
    if len(blocks) != depth:
        shares, reason = None, f"{len(blocks)} of {depth} blocks were measured, and shares need all"
    found = {"shares": shares, "final_share": shares and shares[-1], "layers": [row["name"] for row in blocks]}
    return found | ({"reason": reason} if reason else {})


def _curve(curves: Mapping[str, Mapping[int, float]], names: Sequence[str]) -> dict[str, Any] | None:
    names = [name for name in names if curves.get(name)]
    if not names:
        return None
    ks = list(curves[names[0]])
    return {"k": ks, "values": [[curves[name][k] for k in ks] for name in names], "names": names}
