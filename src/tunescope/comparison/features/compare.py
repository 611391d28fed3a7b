"""`ts.features`: which features did fine-tuning write, against those the base had and against chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunescope.comparison.features.control_models import CONTROL, control_models
from tunescope.comparison.features.fitness import read_dictionaries, texts_held_out, told, unmoved_places, weights_of
from tunescope.comparison.features.output import FeatureFolder
from tunescope.comparison.features.request import CONTROLS, Request, named
from tunescope.comparison.features.result import FeatureComparison
from tunescope.comparison.features.trained import Progress, Trainer, staged
from tunescope.comparison.features.work import Work
from tunescope.dictionaries import save_deltas
from tunescope.dictionaries.deltas import KINDS
from tunescope.errors import InputError, UnknownName
from tunescope.models import load_several
from tunescope.texts import as_corpus


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
    if kind not in KINDS:
        raise UnknownName("kind of delta", kind, KINDS)
    if kind == "local":
        raise InputError("local deltas are of modules, not of layers; `ts.save_deltas` and `ts.train_sae` take them")
    loading: dict[str, Any] = {"revision": revision, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    own, models = load_several(base, sources, **loading)
    request.check(depth=own.anatomy.n_layers, width=own.anatomy.width)
    reading: dict[str, Any] = {"kind": kind, "batch_size": batch_size, "max_length": max_length, "held_out_share": held_out_share}
    texts_held_out(corpus, held_out_share)
    given = read_dictionaries(dictionary, request.layers, width=own.anatomy.width)
    made_from = {"base": weights_of(own), "tuned": {name: weights_of(model) for name, model in models.items()}, "texts": corpus.sha256}
    stored = {"dictionary": told(dictionary), "store_dtype": store_dtype}
    with folder.held(request.describe() | reading | made_from | stored):
        done = folder.finished()
        if done is not None:
            return FeatureComparison(done, folder.path)
        store = save_deltas(
            own, models | control_models(request.controls, own, models, seed=seed), corpus, folder.deltas, layers=request.layers,
            dtype=store_dtype, noise="noise" in request.controls, base_rows=True, announce=announce, progress=staged(progress, "deltas"),
            **reading,
        )  # fmt: skip
        unmoved = unmoved_places(store, request.layers, list(models))
        work = Work(request, store, folder, Trainer(request, folder.training, device, progress), own, models, given, unmoved)
        payload = work.payload(corpus)
        folder.finish(payload)
    return FeatureComparison(payload, folder.path)
