"""`diff`: run both models over the same texts and compare what they make of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunescope.activations import Activations, capture
from tunescope.comparison.headline import headline
from tunescope.comparison.layers import Place, measure_place, value_and_change
from tunescope.comparison.result import SCHEMA, Comparison
from tunescope.comparison.warn import about_models, about_numbers, about_texts
from tunescope.errors import AlignmentError, InputError, NotEnoughRows
from tunescope.geometry import cross_cka, select
from tunescope.geometry.measures import Measure
from tunescope.geometry.measures.nps import nps_curve
from tunescope.geometry.measures.procrustes import aligned_residuals
from tunescope.geometry.neighbours import overlap
from tunescope.geometry.profile import STATUS_RULE, locality, width
from tunescope.geometry.rows import Rows
from tunescope.geometry.threads import threads_for
from tunescope.identity import versions
from tunescope.models import Model, load_pair
from tunescope.texts import Corpus, as_corpus

Progress = Callable[[str, int, int], None]  # (what is being done, done, total)

NOISE_TEXTS = 64  # texts run a second time, in other batches, to measure the noise of the arithmetic
SHOWN = 5  # most-moved and least-moved texts in the report
EXCERPT = 300  # characters of a text that are kept


def diff(
    base: Any,
    tuned: Any = None,
    texts: Any = None,
    *,
    measures: Iterable[str] | str | None = None,
    layers: Iterable[int] | None = None,
    sample: int | None = None,
    column: str | None = None,
    pooling: str = "mean",
    prompt: str | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    tuned_revision: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    controls: Mapping[str, Model] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Where did the representations change, and by how much against chance?

    Args:
        base, tuned: hub ids, folders, PEFT adapter folders, sentence-transformers folders or loaded models. With tuned None, base is an
            adapter (or a PeftModel) and its own base is read from its config.
        texts: a file (txt, jsonl, csv, tsv, parquet), a list of strings or a Corpus; None is the documentation that ships with Python.
        measures: names, "all", or None for the default set (cka, debiased_cka, procrustes, nps, isotropy).
        layers: 0 (embeddings) to L; all by default. sample: that many texts, hash-chosen. column: of a table or jsonl.
        pooling: mean, cls, last, or none (token rows; intervals are over texts). prompt: put before every text; None: as the base declares.
        max_length: tokens; None: the shorter of what the two declare.
        controls: further models of the same base (`ts.perturb`) shown beside the tuned one.
        progress: called with (stage, done, total).

    Raises: TunescopeError, one clear line; see `tunescope.errors`.
    """
    chosen = select(measures)
    corpus = as_corpus(texts, column=column, sample=sample, seed=seed)
    if pooling != "none":
        _check_enough(chosen, corpus)
    clock = _Clock()
    base, tuned = (None, base) if tuned is None else (base, tuned)
    pair = load_pair(
        base, tuned, revision=revision, tuned_revision=tuned_revision, device=device, dtype=dtype, trust_remote_code=trust_remote_code
    )
    clock.lap("load")
    _check_tokenizers(*pair, pooling)
    reading = {
        "pooling": pooling,
        "prompt": pair[0].output.prompt if prompt is None else prompt,
        "max_length": max_length or min(model.max_length for model in pair),
        "batch_size": batch_size,
    }
    say = progress or (lambda stage, done, total: None)

    def read(model: Model, label: str, **changed: Any) -> Activations:
        return capture(
            model, corpus.texts, **_per_side(reading, layers, pair, model) | changed, ids=corpus.ids, progress=lambda d, t: say(label, d, t)
        )

    acts = [read(model, f"reading texts with {side}") for model, side in zip(pair, ("base", "tuned"), strict=True)]
    noise = _noise(pair[0], corpus, acts[0], chosen, reading, layers) if pooling != "none" else {}
    clock.lap("forward")
    found = _Findings(pair, corpus, acts, chosen, noise, seed, say)
    with threads_for(_work(acts)):
        result = found.payload(reading)
    clock.lap("geometry")
    result["controls"] = [
        _control(name, model, acts[0], read(model, f"reading texts with {name}"), chosen) for name, model in (controls or {}).items()
    ]
    if controls:
        clock.lap("controls")
    return Comparison(result | {"seconds": clock.laps})


@dataclass
class _Clock:
    """Seconds between laps, by name."""

    laps: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self.last = round(now - self.last, 3), now


def _work(acts: Sequence[Activations]) -> float:
    """Multiply-adds of the moments of one layer."""
    rows = next(iter([*acts[1].layers.values(), *acts[1].sites.values()]))
    return rows.shape[0] * min(rows.shape) ** 2


def _check_enough(measures: Mapping[str, Measure], corpus: Corpus) -> None:
    neediest = max(measures.values(), key=lambda measure: measure.minimum_rows)
    if len(corpus.texts) < neediest.minimum_rows:
        raise NotEnoughRows(
            f"{neediest.name} needs at least {neediest.minimum_rows} texts, got {len(corpus.texts):,} ({corpus.source}); "
            "give more texts, or leave the measure out with --measures"
        )


def _check_tokenizers(base: Model, tuned: Model, pooling: str) -> None:
    if pooling == "none" and base.identity()["tokenizer_sha256"] != tuned.identity()["tokenizer_sha256"]:
        raise AlignmentError(
            "the tokenizers of base and tuned differ, so their token rows are not the same tokens; compare pooled texts (--pooling mean)"
        )


def _depth_of(model: Model) -> int:
    return model.anatomy.n_layers


def _partner(index: int, tuned_depth: int, base_depth: int) -> int:
    """The base layer at the same relative depth as a tuned layer."""
    return index if tuned_depth == base_depth else round(index / tuned_depth * base_depth)


def _per_side(reading: dict[str, Any], layers: Iterable[int] | None, pair: tuple[Model, Model], model: Model) -> dict[str, Any]:
    """What `capture` is asked for: `layers` count on the tuned side; the base side reads their partners."""
    if layers is None:
        return reading
    wanted = sorted(set(layers))
    depth = _depth_of(pair[1])
    if any(not 0 <= index <= depth for index in wanted):
        raise InputError(f"layers {','.join(map(str, wanted))} asked for; '{pair[1].name}' has 0 (embeddings) to {depth}")
    return reading | {"layers": wanted if model is pair[1] else [_partner(index, depth, _depth_of(model)) for index in wanted]}


def _noise(
    model: Model, corpus: Corpus, acts: Activations, measures: Mapping[str, Measure], reading: dict[str, Any], layers: Iterable[int] | None
) -> dict[int | str, dict[str, float | None]]:
    """The change that the same model shows against itself when its texts fall into other batches: {layer or site: {measure: change}}."""
    step = max(1, len(corpus.texts) // NOISE_TEXTS)
    keep = slice(0, step * NOISE_TEXTS, step)
    other = reading | {"batch_size": max(1, reading["batch_size"] // 2 + 1), "reverse": True}
    again = capture(model, corpus.texts[keep], **other, layers=list(acts.layers))
    pairs = [(i, acts.layers[i], again.layers[i]) for i in acts.layers] + [(s, acts.sites[s], again.sites[s]) for s in acts.sites]
    return {
        where: {name: cell["change"] and abs(cell["change"]) for name, cell in value_and_change(first[keep], second, measures).items()}
        for where, first, second in pairs
    }


def _control(name: str, model: Model, base: Activations, acts: Activations, measures: Mapping[str, Measure]) -> dict[str, Any]:
    rows = [
        {
            "index": i,
            "name": acts.names[i],
            "depth": i / _depth_of(model),
            "measures": value_and_change(base.layers[i], acts.layers[i], measures),
        }
        for i in acts.layers
    ]
    return {"name": name, "note": "; ".join(model.warnings), "layers": rows, "locality": _locality(rows, measures)}


def _locality(rows: Sequence[dict[str, Any]], measures: Mapping[str, Measure]) -> dict[str, Any]:
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


@dataclass
class _Findings:
    """Everything measured on two captures, as the payload of a Comparison."""

    pair: tuple[Model, Model]
    corpus: Corpus
    acts: Sequence[Activations]
    measures: Mapping[str, Measure]
    noise: Mapping[int | str, Mapping[str, float | None]]
    seed: int
    say: Progress

    def payload(self, reading: dict[str, Any]) -> dict[str, Any]:
        base, tuned = self.acts
        depth = _depth_of(self.pair[1])
        places = [
            (Place(self._name(i), i, i / depth), base.layers[self._base_of(i)], tuned.layers[i], self._base_of(i)) for i in tuned.layers
        ]
        places += [(Place(site), base.sites[site], tuned.sites[site], site) for site in tuned.sites]
        rows, curves, moved = [], {}, None
        for done, (place, x, y, where) in enumerate(places):
            self.say("comparing layers", done, len(places))
            groups = base.groups if len(x) != base.n or base.groups is not None and len(base.groups) == len(x) else None
            paired = Rows.of(x, y, groups)
            if "nps" in self.measures and groups is None:
                curves[place.name] = nps_curve(paired)
            rows.append(measure_place(place, paired, self.measures, noise=self.noise.get(where, {}), seed=self.seed))
            if groups is None and (place.name == "output" or place is places[-1][0]):
                moved = self._texts(place, paired)
        self.say("comparing layers", len(places), len(places))
        layers, sites = [row for row in rows if "index" in row], {row.pop("name"): row for row in rows if "index" not in row}
        data, identities = self._data(reading), [model.identity() for model in self.pair]
        localities = _locality(layers, self.measures)
        return {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "tunescope": versions()["tunescope"],
            "headline": headline(layers, len(self.corpus.texts)),
            "base": identities[0],
            "tuned": identities[1],
            "data": data,
            "measures": {name: _describe(measure) for name, measure in self.measures.items()},
            "default_measure": "cka",
            "layers": layers,
            "sites": sites,
            "cross": self._cross(),
            "locality": localities,
            "width": _width(layers),
            "status_rule": STATUS_RULE,
            "nps_curve": _curve(curves, [row["name"] for row in layers]),
            "texts": moved,
            "outcomes": [],
            "warnings": [
                *about_texts(self.corpus, self.acts),
                *about_models(self.pair, identities),
                *about_numbers(layers, sites, self.measures, localities, data["rows"]),
            ],
            "notes": ["Nothing was measured about function: geometry says where and how far, an outcome says good or bad."],
            "versions": versions(),
        }

    def _base_of(self, index: int) -> int:
        return _partner(index, _depth_of(self.pair[1]), _depth_of(self.pair[0]))

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
        if rows.same or len(rows) < 12:
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


def _width(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    blocks = [row for row in layers if row["index"] > 0 and row["measures"]["cka"]["change"] is not None]
    shares, reason = width([row["measures"]["cka"]["change"] for row in blocks])
    found = {"shares": shares, "final_share": shares and shares[-1], "layers": [row["name"] for row in blocks]}
    return found | ({"reason": reason} if reason else {})


def _curve(curves: Mapping[str, Mapping[int, float]], names: Sequence[str]) -> dict[str, Any] | None:
    names = [name for name in names if curves.get(name)]
    if not names:
        return None
    ks = list(curves[names[0]])
    return {"k": ks, "values": [[curves[name][k] for k in ks] for name in names], "names": names}
