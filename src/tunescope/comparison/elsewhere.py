"""The same comparison elsewhere: on further text sets, and under further poolings of the same pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from tunescope.activations import Activations
from tunescope.activations.pooling import check_pooling
from tunescope.comparison.findings import Progress, locality_of
from tunescope.comparison.headline import headline
from tunescope.comparison.layers import measure_place
from tunescope.comparison.side import Side, pairings
from tunescope.comparison.text_sets import blocks, most_moved, rank_agreement, survival, verdict
from tunescope.comparison.warn import about_texts
from tunescope.errors import InputError
from tunescope.geometry.measures import Measure
from tunescope.geometry.rows import Rows
from tunescope.geometry.threads import side_by_side
from tunescope.report.numbers import percent
from tunescope.texts.corpus import Corpus
from tunescope.texts.sets import TUNING, Shared, TextSet, shared

Noise = Mapping[int | str, Mapping[str, float | None]]
KEPT = ("value", "change", "low", "high", "null", "null_sd")
FIRST_TOKEN = "the first token of a causal model reads no other token, so this pooling says nothing of the texts"
NOT_COMPARABLE = (
    "how far a model moved on texts it was tuned on is not comparable with how far on others (one CLIP checkpoint, as an example, lost 67% "
    "of its neighbours on anchors like its tuning data and 29% on others)"
)


@dataclass(frozen=True, eq=False)
class Reading:
    """Both sides of a comparison as read elsewhere, and the noise of the arithmetic there."""

    base: Side
    tuned: Side
    noise: Noise

    @classmethod
    def of(cls, sides: tuple[Side, Side], acts: Sequence[Activations], noise: Noise) -> Reading:
        """The same models with other rows: of other texts, or under another pooling."""
        return cls(replace(sides[0], acts=acts[0]), replace(sides[1], acts=acts[1]), noise)


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """What is asked beyond the main comparison. sets: all text sets, the main one first; tuning_data: texts that are only looked for in
    the sets; causal: a side whose tokens read only those before them; measures and seed: as in the main comparison."""

    sets: Sequence[TextSet]
    tuning_data: Corpus | None
    causal: bool
    measures: Mapping[str, Measure]
    seed: int
    say: Progress

    def asked(self, poolings: Sequence[str]) -> bool:
        """Whether there is anything to say beyond the main comparison."""
        return len(self.sets) > 1 or bool(poolings) or self.tuning_data is not None or self.sets[0].role == TUNING

    def added_to(
        self,
        main: Mapping[str, Any],
        sides: tuple[Side, Side],
        read: Callable[[Corpus, str], Sequence[Activations]],
        noise: Callable[[Corpus, Activations], Noise],
    ) -> dict[str, Any]:
        """The main payload with `text_sets` and what a reader of them must know.

        sides: as in the main comparison; other poolings are in their `acts.also`. read: (texts, their name) to the rows of both models;
        those of one further set are held at a time. noise: (texts, the base's rows) to the noise of the arithmetic there.
        """
        found, said = [self._main(main)], []
        for further in self.sets[1:]:
            acts = read(further.corpus, further.name)
            reading = Reading.of(sides, acts, noise(further.corpus, acts[0]))
            found.append(self._set(further, reading, main["layers"]))
            said += [f"'{further.name}': {line}" for line in about_texts(further.corpus, reading.base, reading.tuned)]
        pooled = []
        for name, own in sides[0].acts.also.items():
            reading = Reading.of(sides, (own, sides[1].acts.also[name]), noise(self.sets[0].corpus, own))
            pooled.append(self._pooling(name, reading, main["layers"]))
        overlaps = self._overlaps()
        text_sets = {
            "sets": found,
            "agreement": [
                {"a": a["name"], "b": b["name"], **rank_agreement(a["layers"], b["layers"], name)}
                for a, b in combinations(found, 2)
                for name in self.measures
            ],
            "overlap": overlaps,
            "pooling": pooled,
            "survives": survival(found[1:], pooled),
        }
        return {**main, "text_sets": text_sets, "warnings": [*self._about_tuning(overlaps), *said, *main["warnings"]]}

    def _main(self, main: Mapping[str, Any]) -> dict[str, Any]:
        said = {key: main[key] for key in ("headline", "locality")}
        output = main["sites"].get("output")
        return _head(self.sets[0]) | {"layers": slim(main["layers"]), "output": output and slim([output])[0]} | said | _peak(main["layers"])

    def _set(self, text_set: TextSet, reading: Reading, here: Sequence[dict[str, Any]]) -> dict[str, Any]:
        layers, sites = self._measure(reading, f"comparing layers on {text_set.name}")
        output = next((row for row in sites if row["name"] == "output"), None)
        return (
            _head(text_set)
            | {"layers": slim(layers), "output": output and slim([output])[0]}
            | self._read_off(layers, len(text_set.corpus), reading.tuned.depth, output)
            | {"verdict": _verdict(here, layers)}
        )

    def _pooling(self, name: str, reading: Reading, here: Sequence[dict[str, Any]]) -> dict[str, Any]:
        layers, _ = self._measure(reading, f"comparing layers under {name} pooling")
        empty = next((row["measures"]["cka"]["reason"] for row in blocks(layers) if row["measures"]["cka"]["value"] is None), None)
        reason = FIRST_TOKEN if name == "cls" and self.causal else empty
        agreement = [rank_agreement(here, layers, measure) for measure in self.measures]
        return (
            {"pooling": name, "counts": reason is None, "reason": reason, "layers": slim(layers), "agreement": agreement}
            | self._read_off(layers, len(self.sets[0].corpus), reading.tuned.depth)
            | {"verdict": _verdict(here, layers)}
        )

    def _measure(self, reading: Reading, stage: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of the layers and those of the sites."""
        places = pairings(reading.base, reading.tuned)
        groups = reading.base.acts.groups

        def at(pairing: Any) -> dict[str, Any]:
            rows = Rows.of(pairing.x, pairing.y, None if groups is None or len(pairing.x) != len(groups) else groups)
            return measure_place(pairing.place, rows, self.measures, noise=reading.noise.get(pairing.where, {}), seed=self.seed)

        rows = []
        for done, row in enumerate(side_by_side(at, places, work=max(pairing.work for pairing in places)), start=1):
            self.say(stage, done, len(places))
            rows.append(row)
        return [row for row in rows if "index" in row], [row for row in rows if "index" not in row]

    def _read_off(self, layers: Sequence[dict[str, Any]], n: int, depth: int, output: dict[str, Any] | None = None) -> dict[str, Any]:
        said = headline(layers, n, depth=depth, sites={"output": output} if output else None)
        return {"headline": said, "locality": locality_of(layers, self.measures)} | _peak(layers)

    def _overlaps(self) -> list[dict[str, Any]]:
        """Texts in common: every two sets, and the tuning data with every set; counted before any sample was taken."""
        wholes = [(one.name, one.whole or one.corpus) for one in self.sets]
        pairs = list(combinations(wholes, 2))
        if self.tuning_data is not None:
            pairs += [(whole, ("tuning data", self.tuning_data)) for whole in wholes]
        return [_overlap(*a, *b) for a, b in pairs]

    def _about_tuning(self, overlaps: Sequence[Mapping[str, Any]]) -> list[str]:
        """What is said of sets that hold tuning texts, declared or found."""
        tuning = {one.name for one in self.sets if one.role == TUNING}
        said = []
        for found in overlaps:
            for general, other, side in ((found["a"], found["b"], "of_a"), (found["b"], found["a"], "of_b")):
                counts = found["folded"]
                if general in tuning | {"tuning data"} or other not in tuning | {"tuning data"} or not counts[side]["texts"]:
                    continue
                exact = found["exact"][side]
                said.append(
                    f"{counts[side]['texts']:,} texts of '{general}' ({percent(counts[side]['share'])}) are also in "
                    f"{other if other == 'tuning data' else repr(other)}, {exact['texts']:,} of them letter for letter; "
                    "the change there is partly change on tuning texts"
                )
        if tuning:
            names = ", ".join(f"'{name}'" for name in sorted(tuning))
            said.insert(0, f"{names} {'holds' if len(tuning) == 1 else 'hold'} tuning texts: {NOT_COMPARABLE}")
        return said


def further_poolings(pooling: str, also: Iterable[str] | str) -> tuple[str, ...]:
    """The poolings to compare with the main one, each once. Raises UnknownName, and InputError for token rows."""
    asked = [name.strip() for name in also.split(",")] if isinstance(also, str) else list(also)
    asked = list(dict.fromkeys(name for name in asked if name))
    for name in asked:
        check_pooling(name)
    if asked and "none" in (pooling, *asked):
        raise InputError("pooling none keeps a row a token and the others a row a text, so they cannot be held against each other")
    return tuple(name for name in asked if name != pooling)


def slim(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with what a depth curve needs: the numbers of each measure without their reasons."""
    return [
        {key: row[key] for key in ("index", "name", "depth", "status", "identical", "saturated") if key in row}
        | {"measures": {name: {key: cell[key] for key in KEPT} for name, cell in row["measures"].items()}}
        for row in rows
    ]


def _head(text_set: TextSet) -> dict[str, Any]:
    corpus = text_set.corpus
    return {"name": text_set.name, "role": text_set.role, "n": len(corpus), "sha256": corpus.sha256, "source": corpus.source,
            "sampled_from": corpus.sampled_from}  # fmt: skip


def _peak(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    top = most_moved(layers)
    if top is None:
        return {"peak": None}
    return {"peak": {key: top[key] for key in ("index", "name")} | {key: top["measures"]["cka"][key] for key in KEPT[:4]}}


def _verdict(here: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = verdict(here, there)
    return asdict(found) | {"holds": found.holds, "contradicted": [asdict(one) for one in found.contradicted]}


def _overlap(a: str, one: Corpus, b: str, other: Corpus) -> dict[str, Any]:
    exact, folded = shared(one, other)
    return {"a": a, "b": b, "exact": _shares(exact, len(one), len(other)), "folded": _shares(folded, len(one), len(other))}


def _shares(found: Shared, n_a: int, n_b: int) -> dict[str, Any]:
    return {"of_a": {"texts": found.of_a, "share": found.of_a / n_a}, "of_b": {"texts": found.of_b, "share": found.of_b / n_b}}
