"""The comparison once the deltas are stored: layer after layer, one tuned model after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunescope.comparison.features.control_models import CONTROL
from tunescope.comparison.features.measured import Alignment, BaseSide, Row, base_quality, control_row, largest, quality_rows, spectrum_row
from tunescope.comparison.features.output import FeatureFolder
from tunescope.comparison.features.payload import SCHEMA, SECTIONS, flags_of
from tunescope.comparison.features.request import Request
from tunescope.comparison.features.rows import BASE, TRAINED, PlaceRows, shuffled_pairs, spread
from tunescope.comparison.features.trained import Trainer, keep, staged
from tunescope.dictionaries import DeltaStore, Dictionary
from tunescope.dictionaries.alignment_tables import alignment_table
from tunescope.dictionaries.chance_dictionaries import norm_matched_noise
from tunescope.dictionaries.delta_pass import NOISE
from tunescope.dictionaries.directions import directions, nearest_features
from tunescope.dictionaries.feature_reading import NearestIn, read_features
from tunescope.dictionaries.placed_rows import PlacedRows
from tunescope.dictionaries.quality import DEFINITIONS, QualitySums
from tunescope.dictionaries.recovered import behaviour_recovered
from tunescope.dictionaries.reuse import RULE
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.identity import versions
from tunescope.models import Model
from tunescope.models.heads import NoLanguageHead
from tunescope.texts import Corpus
from tunescope.version import __version__

UNMOVED = {"verdict": "nothing changed", "words": "the delta is the same at every token, 0 or a constant: nothing before it was tuned"}
NEAREST = 3  # of the base's features that are named beside each feature


@dataclass(frozen=True, eq=False)
class Work:
    """Everything it needs on its way."""

    request: Request
    store: DeltaStore
    folder: FeatureFolder
    trainer: Trainer
    base: Model
    tuned: Mapping[str, Model]
    given: Mapping[int, Dictionary]
    unmoved: frozenset[tuple[int, str]]  # nothing is trained there

    def payload(self, corpus: Corpus) -> dict[str, Any]:
        """features.json."""
        found: dict[str, list[Row]] = {name: [] for name in SECTIONS}
        trained: dict[tuple[int, str], list[Dictionary]] = {}
        spectra: dict[tuple[int, str], Spectrum] = {}
        for layer in self.request.layers:
            side = self._base_side(layer)
            found["spectrum"].append({"layer": layer, **spectrum_row(side.spectrum, name=BASE, rank=None)})
            for name in self.tuned:
                if (layer, name) in self.unmoved:
                    found["verdicts"].append({"layer": layer, "name": name, "noise_r2": None, **UNMOVED})
                else:
                    trained[layer, name], spectra[layer, name] = self._place(corpus, layer, name, side, found)
            found["controls"] += self._controls(layer, side)
        recovered, unsaid = self._recovered(corpus, trained)
        manifest, models = self.store.manifest, (self.base, *self.tuned.values())
        return {
            "schema": SCHEMA,
            "tunescope": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "base": manifest["base"],
            "tuned": manifest["tuned"],
            "texts": manifest["texts"],
            "reading": {name: manifest[name] for name in ("kind", "hygiene", "held_out", "max_length", "dropped", "rows", "dtype")},
            "request": self.request.describe(),
            "norms": self._norms(),
            **found,
            "tables": _tables(trained, spectra),
            "recovered": recovered,
            "pages": [{"layer": layer, "name": name} for layer, name in trained],
            "definitions": DEFINITIONS | {"verdict": RULE},
            "warnings": sorted({*corpus.warnings, *unsaid, *(said for model in models for said in model.warnings)}),
            "versions": versions(),
        }

    def _base_side(self, layer: int) -> BaseSide:
        own = self.given.get(layer)
        if own is None:
            own = self.trainer.of_store(self.store, layer, BASE, seeds=self.request.seeds[:1])[0]
            keep([own], self.folder.path, layer=layer, name=BASE, model=self.base.name)
        return BaseSide(own, Spectrum.of(spread(self.store, layer, BASE, "train", TRAINED)))

    def _place(
        self, corpus: Corpus, layer: int, name: str, side: BaseSide, found: dict[str, list[Row]]
    ) -> tuple[list[Dictionary], Spectrum]:
        """The dictionaries of a delta, and its spectrum."""
        saes = self.trainer.of_store(self.store, layer, name, seeds=self.request.seeds)
        rows = PlaceRows.of(self.store, layer, name, least=self._latents(layer))
        at: Row = {"layer": layer, "name": name}
        noise = self._noise_r2(rows)
        aligned = Alignment.of(rows, saes, side, noise_r2=noise, seed=self.request.data_seed)
        base = next((row for row in found["base_quality"] if row["layer"] == layer), None)
        if base is None:
            base = {"layer": layer} | base_quality(rows, side)
            found["base_quality"].append(base)
        found["quality"] += [at | row for row in quality_rows(rows, saes)]
        found["spectrum"].append(at | spectrum_row(rows.spectrum, name=name, rank=(self.tuned[name].adapter or {}).get("rank")))
        found["alignment"] += [at | row for row in aligned.rows]
        reuse = aligned.reconstruction.reuse
        found["verdicts"].append(at | {"verdict": reuse.verdict, "words": reuse.words, "noise_r2": noise})
        found["flags"] += [at | flag for flag in flags_of(aligned, base)]
        self._read(corpus, rows, saes[0], side, aligned)
        places = keep(saes, self.folder.path, layer=layer, name=name, model=self.base.name)
        found["dictionaries"] += [at | {"seed": sae.metadata["seed"], "folder": place} for sae, place in zip(saes, places, strict=True)]
        return saes, rows.spectrum

    def _read(self, corpus: Corpus, rows: PlaceRows, sae: Dictionary, side: BaseSide, aligned: Alignment) -> None:
        """The features of a dictionary, one by one, as a page and a file."""
        near = nearest_features(directions(sae), directions(side.dictionary), k=NEAREST)
        nearest = NearestIn(near.of_a, near.at_b, side.dictionary.name, floor=aligned.match.chance.near_99)
        placed = PlacedRows.of_store(self.store, rows.layer, rows.name)
        found = read_features(sae, placed, model=self.base, texts=corpus, nearest=nearest)
        self.folder.keep_features({"layer": rows.layer, "name": rows.name}, found.describe())

    def _recovered(self, corpus: Corpus, trained: Mapping[tuple[int, str], list[Dictionary]]) -> tuple[dict[str, Any] | None, list[str]]:
        """What the dictionaries bring back of the tuned models' behaviour, or why that cannot be said."""
        manifest = self.store.manifest
        if manifest["kind"] != "residual":
            return None, [f"behaviour recovered is of residual deltas; these are {manifest['kind']}"]
        spliced: dict[tuple[str, int | str], Any] = {
            (name, layer): {f"seed {sae.metadata['seed']}": sae for sae in saes} for (layer, name), saes in trained.items()
        }
        means: dict[tuple[str, int | str], Any] = {(name, layer): self.store.rows(layer, name, "train").mean for layer, name in trained}
        reading: dict[str, Any] = {name: manifest[name] for name in ("batch_size", "max_length", "prompt")}
        moved = {name: self.tuned[name] for name, _ in spliced}
        try:
            found = behaviour_recovered(
                self.base, moved, corpus, spliced, means=means, held_out_share=manifest["held_out"], **reading,
                progress=staged(self.trainer.progress, "behaviour recovered"),
            )  # fmt: skip
        except NoLanguageHead as error:
            return None, [f"behaviour recovered is not measured: {error}"]
        return found.describe(), []

    def _latents(self, layer: int) -> int:
        return self.request.latents_for(self.store.rows(layer, BASE, "train").width)

    def _noise_r2(self, rows: PlaceRows) -> float:
        """R² of an autoencoder of the same size on noise of the same norms, from held-out noise."""
        mean = rows.train.mean(0)
        sae = self.trainer.of_rows(norm_matched_noise(rows.train, mean=mean, seed=0), rows.layer, rows.name, control="noise")
        held = norm_matched_noise(rows.held, mean=mean, seed=1)
        pairs = zip(held.split(2048), rows.document.split(2048), strict=True)
        return QualitySums.of_dictionary(sae, pairs).compute().r2.value

    def _controls(self, layer: int, side: BaseSide) -> list[Row]:
        asked, found = self.request.controls, []
        for control in ("zero", "noise"):
            if control in asked:
                stream = NOISE if control == "noise" else f"{CONTROL}zero"
                norms = self.store.norms("train")[stream, layer]
                most = largest(spread(self.store, layer, stream, "held_out", TRAINED))
                found.append({"control": control, "layer": layer, "name": None, "relative": norms.relative, "largest": most})
        for name in (name for name in self.tuned if (layer, name) not in self.unmoved):
            if "random" in asked:
                stream = f"{CONTROL}random-{name}"
                rows = PlaceRows.of(self.store, layer, stream, least=self._latents(layer))
                sae = self.trainer.of_store(self.store, layer, stream, seeds=self.request.seeds[:1])[0]
                relative = self.store.norms("train")[stream, layer].relative
                row = control_row(rows, sae, side, control="random", seed=self.request.data_seed)
                found.append(row | {"name": name, "relative": relative})
            if "shuffled" in asked:
                found.append(self._shuffled(layer, name, side))
        return found

    def _shuffled(self, layer: int, name: str, side: BaseSide) -> Row:
        true = PlaceRows.of(self.store, layer, name, least=self._latents(layer))
        train = shuffled_pairs(true.train, spread(self.store, layer, BASE, "train", max(TRAINED, self._latents(layer))), seed=0)
        rows = PlaceRows(layer, name, train, shuffled_pairs(true.held, true.x, seed=1), true.x, true.document)
        sae = self.trainer.of_rows(train, layer, name, control="shuffled")
        return control_row(rows, sae, side, control="shuffled", seed=self.request.data_seed)

    def _norms(self) -> list[Row]:
        ranks = {name: (model.adapter or {}).get("rank") for name, model in self.tuned.items()}
        parts = ("norm", "relative", "squared", "constant")
        return [
            {"layer": layer, "name": name, "rank": ranks.get(name), **{part: getattr(row, part) for part in parts}}
            for (name, layer), row in self.store.norms("train").items()
            if name != BASE
        ]


def _tables(trained: Mapping[tuple[int, str], list[Dictionary]], spectra: Mapping[tuple[int, str], Spectrum]) -> list[Row]:
    """Adapter × adapter at each layer, and layer × layer of each adapter, where there are two or more; chance is drawn like the deltas."""
    found, layers = [], sorted({layer for layer, _ in trained})
    for layer in layers:
        adapters = {name: saes for (at, name), saes in trained.items() if at == layer}
        if len(adapters) > 1:
            table = alignment_table(adapters, activations={name: spectra[layer, name] for name in adapters})
            found += [{"layer": layer, "name": None, **row.as_dict()} for row in table.rows("adapter")]
    for name in dict.fromkeys(name for _, name in trained):
        places = {str(layer): trained[layer, name] for layer in layers if (layer, name) in trained}
        if len(places) > 1:
            table = alignment_table(places, activations={layer: spectra[int(layer), name] for layer in places})
            found += [{"layer": None, "name": name, **row.as_dict()} for row in table.rows("layer")]
    return found
