"""What two captures show: every layer and site measured, and what is read off them, as the payload of a Comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from torch import Tensor

from tunescope.activations import Activations
from tunescope.comparison.headline import headline
from tunescope.comparison.layers import Place, measure_place
from tunescope.comparison.result import SCHEMA
from tunescope.comparison.warn import about_models, about_numbers, about_texts
from tunescope.geometry import cross_cka
from tunescope.geometry.measures import Measure
from tunescope.geometry.measures.nps import nps_curve
from tunescope.geometry.measures.procrustes import aligned_residuals
from tunescope.geometry.neighbours import overlap
from tunescope.geometry.profile import STATUS_RULE, locality, width
from tunescope.geometry.rows import Rows
from tunescope.geometry.threads import side_by_side, threads_for
from tunescope.identity import versions
from tunescope.models import Model
from tunescope.texts import Corpus

Progress = Callable[[str, int, int], None]  # (what is being done, done, total)

SHOWN = 5  # most-moved and least-moved texts in the report
EXCERPT = 300  # characters of a text that are kept


def depth_of(model: Model) -> int:
    return model.anatomy.n_layers


def partner(index: int, tuned_depth: int, base_depth: int) -> int:
    """The base layer at the same relative depth as a tuned layer."""
    return index if tuned_depth == base_depth else round(index / tuned_depth * base_depth)


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


class Pairing(NamedTuple):
    """The rows of both sides at one place, and where the base's were read (layer or site)."""

    place: Place
    x: Tensor
    y: Tensor
    where: int | str


@dataclass(frozen=True)
class Findings:
    """Everything measured on two captures, as the payload of a Comparison."""

    pair: tuple[Model, Model]
    corpus: Corpus
    acts: Sequence[Activations]
    measures: Mapping[str, Measure]
    noise: Mapping[int | str, Mapping[str, float | None]]
    seed: int
    say: Progress

    def payload(self, reading: dict[str, Any]) -> dict[str, Any]:
        depth, places = depth_of(self.pair[1]), self._places()
        rows, curves, moved = [], {}, None
        self.say("comparing layers", 0, len(places))
        for done, (row, curve, texts) in enumerate(side_by_side(self._at, places, work=self._work(places)), start=1):
            self.say("comparing layers", done, len(places))
            rows.append(row)
            curves[row["name"]] = curve
            moved = texts or moved
        layers, sites = [row for row in rows if "index" in row], {row.pop("name"): row for row in rows if "index" not in row}
        data, identities = self._data(reading), [model.identity() for model in self.pair]
        localities = locality_of(layers, self.measures)
        return {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "tunescope": versions()["tunescope"],
            "headline": headline(layers, len(self.corpus.texts), depth=depth),
            "base": identities[0],
            "tuned": identities[1],
            "data": data,
            "measures": {name: _describe(measure) for name, measure in self.measures.items()},
            "default_measure": "cka",
            "layers": layers,
            "sites": sites,
            "cross": self._cross(),
            "locality": localities,
            "width": _width(layers, depth),
            "status_rule": STATUS_RULE,
            "nps_curve": _curve(curves, [row["name"] for row in layers]),
            "texts": moved,
            "outcomes": [],
            "warnings": [
                *about_texts(self.corpus, self.acts),
                *about_models(self.pair, identities),
                *about_numbers(layers, sites, self.measures, localities, data["rows"], data["n"]),
            ],
            "notes": [
                "Change is cumulative: a block's output moves when any block before it moved, so the curve shows where change is seen, "
                "not which weights made it.",
                "Nothing was measured about function: geometry says where and how far, an outcome says good or bad."],
            "versions": versions(),
        }

    def _places(self) -> list[Pairing]:
        base, tuned = self.acts
        depth = depth_of(self.pair[1])
        layers = [
            Pairing(Place(self._name(i), i, i / depth), base.layers[self._base_of(i)], tuned.layers[i], self._base_of(i))
            for i in tuned.layers
        ]
        return layers + [Pairing(Place(site), base.sites[site], tuned.sites[site], site) for site in tuned.sites]

    def _work(self, places: Sequence[Pairing]) -> float:
        """Multiply-adds of the moments of one layer."""
        return max(len(pairing.y) * min(pairing.y.shape) ** 2 for pairing in places)

    def _at(self, pairing: Pairing) -> tuple[dict[str, Any], dict[int, float], dict[str, Any] | None]:
        """Everything at one place: its row, its curve of neighbours kept, and which texts moved when it is the place to ask."""
        base, (place, x, y, where) = self.acts[0], pairing
        per_text = base.groups is None or len(x) != len(base.groups)
        rows = Rows.of(x, y, None if per_text else base.groups)
        curve = nps_curve(rows) if "nps" in self.measures and per_text and not rows.constant else {}
        row = measure_place(place, rows, self.measures, noise=self.noise.get(where, {}), seed=self.seed)
        return row, curve, self._texts(place, rows) if per_text and place.name == "output" else None

    def _base_of(self, index: int) -> int:
        return partner(index, depth_of(self.pair[1]), depth_of(self.pair[0]))

    def _name(self, index: int) -> str:
        own, partner = self.acts[1].names[index], self._base_of(index)
        return own if partner == index else f"{own} (base {self.acts[0].names[partner]})"

    def _data(self, reading: dict[str, Any]) -> dict[str, Any]:
        corpus, tuned = self.corpus, self.acts[1]
        first = next(iter([*tuned.layers.values(), *tuned.sites.values()]))
        return {
            "n": len(corpus.texts),
            "rows": len(first),
            "source": corpus.source,
            "sha256": corpus.sha256,
            "sampled_from": corpus.sampled_from,
            **reading,
            "truncated": max(a.truncated for a in self.acts),
            "tokens": int(tuned.tokens.sum()),
            "seed": self.seed,
        }

    def _cross(self) -> dict[str, Any]:
        base, tuned = self.acts
        with threads_for(self._work(self._places())):
            values = cross_cka(list(base.layers.values()), list(tuned.layers.values()))
        for column, index in enumerate(tuned.layers):
            row = list(base.layers).index(self._base_of(index))
            if Rows(base.layers[self._base_of(index)], tuned.layers[index]).same:
                values[row, column] = 1.0
        cells = [[None if cell != cell else cell for cell in row] for row in values.tolist()]
        names = [[acts.names[i] for i in acts.layers] for acts in self.acts]
        return {"measure": "cka", "values": cells, "base_names": names[0], "tuned_names": names[1], "null": None}

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


def _describe(measure: Measure) -> dict[str, Any]:
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
