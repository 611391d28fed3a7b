"""`ts.features`: which features did fine-tuning write, against those the base had and against chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunescope.comparison.features.control_models import CONTROL, control_models
from tunescope.comparison.features.measured import Alignment, BaseSide, Row, control_row, largest, quality_rows, spectrum_row
from tunescope.comparison.features.output import FeatureFolder
from tunescope.comparison.features.payload import SCHEMA, SECTIONS, flags_of
from tunescope.comparison.features.request import CONTROLS, Request, named
from tunescope.comparison.features.result import FeatureComparison
from tunescope.comparison.features.rows import BASE, TRAINED, PlaceRows, shuffled_pairs, spread
from tunescope.comparison.features.trained import Progress, Trainer, keep, pretrained
from tunescope.dictionaries import DeltaStore, Dictionary, save_deltas
from tunescope.dictionaries.alignment_tables import alignment_table
from tunescope.dictionaries.chance_dictionaries import norm_matched_noise
from tunescope.dictionaries.delta_pass import NOISE
from tunescope.dictionaries.quality import DEFINITIONS, QualitySums
from tunescope.dictionaries.spectrum import Spectrum
from tunescope.errors import InputError
from tunescope.identity import versions
from tunescope.models import Model, load_several
from tunescope.texts import Corpus, as_corpus
from tunescope.version import __version__


def features(
    base: Any,
    tuned: Any,
    texts: Any,
    *,
    out: str | Path,
    layers: int | Sequence[int],
    dictionary: Any = None,
    latents: int | None = None,
    k: int | None = None,
    architecture: str = "topk",
    seeds: Sequence[int] = (0, 1),
    steps: int | None = None,
    controls: Sequence[str] = tuple(CONTROLS),
    kind: str = "residual",
    held_out_share: float = 0.1,
    column: str | None = None,
    sample: int | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    store_dtype: str = "float32",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> FeatureComparison:
    """Train sparse autoencoders on what tuning changed at some layers, and set their features against the base's and against chance.

    The deltas of all tuned models come from one pass; dictionaries learn on the training documents and are judged on the held-out ones.
    Every number stands beside its floor (random dictionaries, shuffled tokens) and, with two seeds or more, its ceiling; controls go the
    same way as the tuned models. Everything is kept in `out`: the deltas, the dictionaries (in SAELens' format), `features.json`, the
    pages. An interrupted run goes on from there with resume.

    Args:
        base: what `load_model` takes. tuned: an adapter or model, a list, or {name: source}; adapters on one base share its weights.
        texts, column, sample: as `as_corpus` takes them; the deltas are of their tokens.
        layers: 0 (embeddings) to L. kind: residual or patched, see `dictionaries.deltas`.
        dictionary: the base's own, in any format `ts.read_dictionary` reads, or {layer: dictionary}; None trains one on the same tokens.
        latents: 4 × the width by default. k: active features, a 24th of the width (4 to 32). architecture, seeds, steps: as `ts.train_sae`.
        controls: of `CONTROLS`. held_out_share: of documents. store_dtype: of the deltas on disk, float32 or bfloat16.
        announce: is told the size of the store before it is written. progress(stage, done, total).

    Raises: InputError, UnknownName, NotEnoughRows (fewer tokens than latents), AlignmentError (tokenizers, widths), ActivationError (NaN),
    OutputError (the folder holds something else, no room on the disk), and what loading models and reading texts raise.
    """
    request = Request.of(
        layers, latents=latents, k=k, architecture=architecture, seeds=seeds, steps=steps, controls=controls, data_seed=seed
    )
    folder = FeatureFolder.of(out, resume=resume)
    sources, corpus = named(tuned), as_corpus(texts, column=column, sample=sample, seed=seed)
    if taken := [name for name in sources if name.startswith(CONTROL)]:
        raise InputError(f"'{taken[0]}' names a tuned model; names that begin with '{CONTROL}' are those of controls")
    if kind == "local":
        raise InputError("local deltas are of modules, not of layers; `ts.save_deltas` and `ts.train_sae` take them")
    loading: dict[str, Any] = {"revision": revision, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    own, models = load_several(base, sources, **loading)
    reading: dict[str, Any] = {"kind": kind, "batch_size": batch_size, "max_length": max_length, "held_out_share": held_out_share}
    with folder.held(request.describe() | reading | {"sources": {name: str(source) for name, source in sources.items()}}):
        done = folder.finished()
        if done is not None:
            return FeatureComparison(done, folder.path)
        store = save_deltas(
            own, models | control_models(request.controls, own, models, seed=seed), corpus, folder.deltas, layers=request.layers,
            dtype=store_dtype, noise="noise" in request.controls, base_rows=True, announce=announce, progress=_staged(progress, "deltas"),
            **reading,
        )  # fmt: skip
        work = _Work(request, store, folder, Trainer(request, folder.training, device, progress), own, models, dictionary)
        payload = work.payload(corpus)
        folder.finish(payload)
    return FeatureComparison(payload, folder.path)


@dataclass(frozen=True, eq=False)
class _Work:
    """The comparison once the deltas are stored: layer after layer, one tuned model after the other."""

    request: Request
    store: DeltaStore
    folder: FeatureFolder
    trainer: Trainer
    base: Model
    tuned: Mapping[str, Model]
    given: Any

    def payload(self, corpus: Corpus) -> dict[str, Any]:
        """features.json."""
        found: dict[str, list[Row]] = {name: [] for name in SECTIONS}
        trained: dict[tuple[int, str], list[Dictionary]] = {}
        spectra: dict[int, Spectrum] = {}
        for layer in self.request.layers:
            side = self._base_side(layer)
            spectra[layer] = side.spectrum
            found["spectrum"].append({"layer": layer, **spectrum_row(side.spectrum, name=BASE, rank=None)})
            for name in self.tuned:
                trained[layer, name] = self._place(layer, name, side, found)
            found["controls"] += self._controls(layer, side)
        manifest = self.store.manifest
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
            "tables": _tables(trained, spectra, list(self.tuned)),
            "definitions": DEFINITIONS,
            "warnings": sorted({*manifest["warnings"], *corpus.warnings}),
            "versions": versions(),
        }

    def _base_side(self, layer: int) -> BaseSide:
        given = self.given.get(layer) if isinstance(self.given, Mapping) else self.given
        dictionary = pretrained(given, layer, self.store, self.trainer)
        return BaseSide(dictionary, Spectrum.of(spread(self.store, layer, BASE, "train", TRAINED)))

    def _place(self, layer: int, name: str, side: BaseSide, found: dict[str, list[Row]]) -> list[Dictionary]:
        saes = self.trainer.of_store(self.store, layer, name, seeds=self.request.seeds)
        rows = PlaceRows.of(self.store, layer, name)
        at: Row = {"layer": layer, "name": name}
        noise = self._noise_r2(rows)
        aligned = Alignment.of(rows, saes, side, noise_r2=noise, seed=self.request.data_seed)
        found["quality"] += [at | row for row in quality_rows(rows, saes)]
        found["spectrum"].append(at | spectrum_row(rows.spectrum, name=name, rank=(self.tuned[name].adapter or {}).get("rank")))
        found["alignment"] += [at | row for row in aligned.rows]
        reuse = aligned.reconstruction.reuse
        found["verdicts"].append(at | {"verdict": reuse.verdict, "words": reuse.words, "noise_r2": noise})
        found["flags"] += [at | flag for flag in flags_of(aligned)]
        places = keep(saes, self.folder.path, layer=layer, name=name, model=self.base.name)
        found["dictionaries"] += [at | {"seed": sae.metadata["seed"], "folder": place} for sae, place in zip(saes, places, strict=True)]
        return saes

    def _noise_r2(self, rows: PlaceRows) -> float:
        """R² of an autoencoder of the same size on noise of the same norms, from held-out noise."""
        mean = rows.train.mean(0)
        sae = self.trainer.of_rows(norm_matched_noise(rows.train, mean=mean, seed=0), rows.layer, f"{rows.name} as noise")
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
        for name in self.tuned:
            if "random" in asked:
                stream = f"{CONTROL}random-{name}"
                rows = PlaceRows.of(self.store, layer, stream)
                sae = self.trainer.of_store(self.store, layer, stream, seeds=self.request.seeds[:1])[0]
                relative = self.store.norms("train")[stream, layer].relative
                row = control_row(rows, sae, side, control="random", seed=self.request.data_seed)
                found.append(row | {"name": name, "relative": relative})
            if "shuffled" in asked:
                found.append(self._shuffled(layer, name, side))
        return found

    def _shuffled(self, layer: int, name: str, side: BaseSide) -> Row:
        true = PlaceRows.of(self.store, layer, name)
        train = shuffled_pairs(true.train, spread(self.store, layer, BASE, "train", TRAINED), seed=0)
        rows = PlaceRows(layer, name, train, shuffled_pairs(true.held, true.x, seed=1), true.x, true.document)
        sae = self.trainer.of_rows(train, layer, f"{name} shuffled")
        return control_row(rows, sae, side, control="shuffled", seed=self.request.data_seed)

    def _norms(self) -> list[Row]:
        ranks = {name: (model.adapter or {}).get("rank") for name, model in self.tuned.items()}
        parts = ("norm", "relative", "squared", "constant")
        return [
            {"layer": layer, "name": name, "rank": ranks.get(name), **{part: getattr(row, part) for part in parts}}
            for (name, layer), row in self.store.norms("train").items()
            if name != BASE
        ]


def _tables(trained: Mapping[tuple[int, str], list[Dictionary]], spectra: Mapping[int, Spectrum], names: list[str]) -> list[Row]:
    """Adapter × adapter at each layer, and layer × layer of each adapter, where there are two or more."""
    found, layers = [], sorted(spectra)
    if len(names) > 1:
        for layer in layers:
            table = alignment_table({name: trained[layer, name] for name in names}, activations=spectra[layer])
            found += [{"layer": layer, "name": None, **row.as_dict()} for row in table.rows("adapter")]
    if len(layers) > 1:
        for name in names:
            table = alignment_table({str(layer): trained[layer, name] for layer in layers}, activations=spectra[layers[-1]])
            found += [{"layer": None, "name": name, **row.as_dict()} for row in table.rows("layer")]
    return found


def _staged(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)
