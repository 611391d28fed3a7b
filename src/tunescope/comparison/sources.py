"""What a person compares, models, saved captures or plain rows, becomes two sides on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tunescope.activations import Activations, Capture, is_capture, load_capture
from tunescope.activations.chat import ChatTemplate, template_for
from tunescope.comparison import captured, in_turn
from tunescope.comparison.arrays import corpus_of, is_arrays, matched, read_arrays, side_of
from tunescope.comparison.elsewhere import further_poolings
from tunescope.comparison.estimate import announce
from tunescope.comparison.findings import Progress
from tunescope.comparison.reader import NOISE_TEXTS, Noise, Reader, layers_of_base
from tunescope.comparison.side import Pairing, Side, check_tokenizers, pairings
from tunescope.comparison.streaming import stream, streaming, takes_too_much
from tunescope.errors import InputError, NotEnoughRows
from tunescope.geometry.measures import Measure
from tunescope.models import Model, load_model, load_pair
from tunescope.models.placement import check_in_memory
from tunescope.ranks import ALONE, Ranks
from tunescope.texts import Corpus, as_corpus, as_text_sets
from tunescope.texts.sets import TextSet

Lap = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is to be read, as it was asked for; None where nothing was said."""

    measures: Mapping[str, Measure]
    texts: Any = None
    tuning: Iterable[str] = ()
    tuning_data: Any = None
    column: str | None = None
    sample: int | None = None
    seed: int = 0
    layers: list[int] | None = None
    pooling: str | None = None
    also_pooling: Iterable[str] | str = ()
    chat_template: bool = False
    prompt: str | None = None
    max_length: int | None = None
    batch_size: int = 32
    method: str = "auto"
    named: Iterable[str] | str | None = None  # measures as they were asked for
    ranks: Ranks = ALONE
    loading: Mapping[str, Any] = field(default_factory=dict)  # of `load_pair`
    one_at_a_time: bool = False
    announce: Callable[[str], None] | None = None
    check: Callable[[Corpus], object] | None = None  # of the main texts, before a model is loaded
    need_models: Sequence[str] = ()  # what was asked for that only two models can answer
    outcomes: bool = False  # whether tasks are measured after the pass
    check_pair: Callable[[Model, Model], object] | None = None  # of two models, before they read

    def sets(self) -> tuple[TextSet, ...]:
        """The texts, read now; the main set first. Raises what `check` raises of it."""
        found = as_text_sets(
            self.texts, tuning=self.tuning, column=self.column, sample=self.sample, seed=self.seed, chats=self.chat_template
        )
        if self.check is not None:
            self.check(found[0].corpus)
        return found

    def refuse_more(self, what: str, *, why: str = "only models can read texts anew", instead: str = "give both models") -> None:
        """Raises InputError when texts are to be read more than once, or in a way of their own, where no side can."""
        asked = {"tuning": self.tuning, "tuning_data": self.tuning_data is not None, "also_pooling": self.also_pooling}
        if more := [name for name, value in (asked | {"chat_template": self.chat_template}).items() if value]:
            raise InputError(f"{', '.join(more)} asked for with {what}: {why}; {instead}, or leave it out")

    def single(self, what: str, *, why: str = "only models can read texts anew", instead: str = "give both models") -> Corpus:
        """The texts where no side can read more than once. Raises InputError when more is asked for than one set read in one way."""
        self.refuse_more(what, why=why, instead=instead)
        sets = self.sets()
        if len(sets) > 1:
            raise InputError(f"{len(sets)} text sets were given with {what}, which is of one set; {instead}, or one set")
        return sets[0].corpus


@dataclass(frozen=True, eq=False)
class Given:
    """Two sides on the same rows, and what is known of these.

    reading: how tokens became rows; empty where rows came without a model. reader: runs further models over the texts in the same way;
    None where the texts are not at hand. models: base and tuned, each None where its rows were read before.
    """

    base: Side
    tuned: Side
    corpus: Corpus
    reading: dict[str, Any]
    noise: Noise
    reader: Reader | None
    models: tuple[Model | None, Model | None] = (None, None)
    sets: tuple[TextSet, ...] = ()
    tuning_data: Corpus | None = None
    template: ChatTemplate | None = None
    passed: Sequence[Pairing] | None = None  # the places, where the texts went by in a stream
    measures: Mapping[str, Measure] = field(default_factory=dict)  # where not all that were asked for could be given
    warnings: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[Model, Model] | None:
        """Both models, where both sides are models."""
        base, tuned = self.models
        return None if base is None or tuned is None else (base, tuned)

    def base_model(self) -> Model:
        """The base as a model, for the ruler. Raises InputError where it is only rows."""
        if self.models[0] is None:
            raise InputError(f"the ruler disturbs weights, and '{self.base.name}' was given as rows; give the model, or no --ruler")
        check_in_memory(self.models[0].module, name=self.models[0].name, what="the ruler")
        return self.models[0]

    def read_both(self, corpus: Corpus, label: str) -> Sequence[Pairing]:
        """The places of further texts, read by both models as the comparison's were. Raises InputError where they are not both models."""
        if self.pair is None or self.reader is None:
            raise InputError(f"both models must read the texts of {label}, and rows were given; give the models, or leave these texts out")
        corpus = corpus if self.template is None else self.template.rendered(corpus)
        sides = (
            replace(side, acts=self.reader.read(model, f"{name} ({label})", corpus=corpus))
            for side, model, name in zip((self.base, self.tuned), self.pair, ("base", "tuned"), strict=True)
        )
        return pairings(*sides)

    def read(self, model: Model, label: str, some: Sequence[int] | None = None) -> Activations:
        """The rows of a further model. Raises InputError where there are no texts to read."""
        if self.reader is None:
            raise InputError(f"'{model.name}' must read the texts, and these were not given; give the texts, or leave that model out")
        return self.reader.read(model, label, some)


def two_sides(base: Any, tuned: Any, request: Request, *, say: Progress, lap: Lap) -> Given:
    """Load, read and align whatever the two sides are.

    Raises: InputError, AlignmentError, NotEnoughRows, and what loading and capturing raise.
    """
    if request.loading.get("pretraining") is not None and (is_arrays(base) or _is_capture(base)):
        raise InputError("pretraining is of a base checkpoint, and rows were given; say it when the model is captured, or leave it out")
    if request.one_at_a_time and any(is_arrays(side) or _is_capture(side) for side in (base, tuned)):
        raise InputError("one_at_a_time is about two models, and rows were given; leave it out")
    arrays, captures = ([_is(side) for side in (base, tuned)] for _is in (is_arrays, _is_capture))
    if request.need_models and any(arrays + captures):
        named = ", ".join(request.need_models)
        raise InputError(f"{named} asked for: only models can read further texts, and rows were given; give both models, or leave it out")
    if any(arrays):
        if not all(arrays):
            odd = "the other side is missing" if base is None or tuned is None else "the other side is a model or a capture"
            raise InputError(f"rows were given for one side, and {odd}; give rows for both (a capture's folder holds them as .npy files)")
        return _from_arrays(base, tuned, request, lap)
    if any(captures):
        if base is None or tuned is None:
            raise InputError("one capture was given; give two, the base first, or a model beside it")
        return _from_captures(base, tuned, request, say, lap)
    return (_one_at_a_time if request.one_at_a_time else _from_models)(base, tuned, request, say, lap)


def _is_capture(source: Any) -> bool:
    return isinstance(source, Capture) or (isinstance(source, str | Path) and is_capture(source))


def _one_at_a_time(base: Any, tuned: Any, request: Request, say: Progress, lap: Lap) -> Given:
    apart = in_turn.separate(base, tuned, request)
    if apart is None:
        given = _from_models(base, tuned, request, say, lap)
        return replace(given, warnings=(*given.warnings, in_turn.SHARED))
    corpus = request.single("one_at_a_time", why="a model is freed once it has read", instead="hold both models")
    if request.pooling != "none":
        _check_enough(request.measures, len(corpus), "texts", corpus.source)
    found = in_turn.read_in_turn(base, apart, request, corpus, say=say, lap=lap)
    return Given(
        found.base, found.tuned, corpus, dict(found.reader.reading), found.noise, found.reader, warnings=(in_turn.NO_WEIGHTS,)
    )  # fmt: skip


def _from_models(base: Any, tuned: Any, request: Request, say: Progress, lap: Lap) -> Given:
    sets, pooling = request.sets(), request.pooling or "mean"
    tuning_data = None if request.tuning_data is None else as_corpus(request.tuning_data, chats=request.chat_template)
    further = further_poolings(pooling, request.also_pooling)
    for one in sets if pooling != "none" else ():
        _check_enough(request.measures, len(one.corpus), "texts", one.corpus.source)
    pair = load_pair(base, tuned, **request.loading)
    lap("load")
    if request.check_pair is not None:
        request.check_pair(*pair)
    if pooling == "none":
        check_tokenizers(*(model.identity() for model in pair))
    reading = {
        "pooling": pooling,
        "prompt": pair[0].output.prompt if request.prompt is None else request.prompt,
        "max_length": min(model.max_length for model in pair) if request.max_length is None else request.max_length,
        "batch_size": request.batch_size,
    }
    template = template_for(*pair, prompt=request.prompt) if request.chat_template else None
    if template is not None:
        sets, reading = template.render(sets), reading | template.reading
    depths = pair[0].anatomy.n_layers, pair[1].anatomy.n_layers
    layers = layers_of_base(request.layers, *depths, name=pair[1].name), request.layers
    reader = Reader(sets[0].corpus, reading, layers, pair[1], request.measures, say, request.ranks)
    streams = _streams(request, pair, reader, more=len(sets) > 1 or further or tuning_data is not None)
    if request.announce is not None:
        method, corpora = "stream" if streams else "exact", [one.corpus for one in sets]
        read = list(zip(pair, layers, strict=True))
        said = partial(_with_outcomes, request.announce) if request.outcomes else request.announce
        announce(said, read, corpora, reading, also=further, method=method, processes=request.ranks.count)
        lap("estimate")
    if streams:
        return _streamed(request, pair, reader, lap, template)
    acts = [reader.read(model, label, also=further) for model, label in zip(pair, ("base", "tuned"), strict=True)]
    noise = reader.noise(pair[0], acts[0])
    lap("forward")
    shared: dict[Any, Any] = {}
    sides = [Side.of(model, read, model.identity(known=shared)) for model, read in zip(pair, acts, strict=True)]
    return Given(sides[0], sides[1], reader.corpus, reading, noise, reader, pair, sets, tuning_data, template)


def _with_outcomes(announce: Callable[[str], None], line: str) -> None:
    announce(f"{line}; outcomes take their own time after that")


def _streams(request: Request, pair: tuple[Model, Model], reader: Reader, *, more: object) -> bool:
    """Whether the texts are to go by in a stream: when asked for, or when their rows would not fit and what is asked for streams.

    Raises: InputError, when a stream was asked for together with what needs all rows.
    """
    pooled = reader.reading["pooling"] != "none"
    if request.method == "stream":
        if more or not pooled:
            what = "further text sets and poolings need" if pooled else "token rows (--pooling none) need"
            raise InputError(f"--method stream keeps no rows, and {what} them; use --method exact, or leave them out")
        return True
    named = () if request.named is None else request.measures.values()
    can = pooled and not more and all(measure.streams for measure in named)
    return request.method == "auto" and can and takes_too_much(pair, len(reader.corpus))


def _streamed(request: Request, pair: tuple[Model, Model], reader: Reader, lap: Lap, template: ChatTemplate | None) -> Given:
    measures, left_out = streaming(request.measures, asked=request.named)
    corpus, quiet, done = reader.corpus, replace(reader, measures=measures, say=_silent, ranks=ALONE), 0
    identities = [model.identity() for model in pair]

    def both(piece: Corpus) -> tuple[Side, Side]:
        nonlocal done
        one, two = (Side.of(model, quiet.read(model, "", corpus=piece), known) for model, known in zip(pair, identities, strict=True))
        done = min(done + len(piece) * reader.ranks.count, len(corpus))
        reader.say("reading texts with both", done, len(corpus))
        return one, two

    base, tuned, places = stream(both, corpus, measures=measures, ranks=reader.ranks)
    some = corpus.rows(range(0, len(corpus), max(1, len(corpus) // NOISE_TEXTS))[:NOISE_TEXTS])
    noise = quiet.noise(pair[0], quiet.read(pair[0], "", corpus=some), some)
    lap("forward")
    kept = len(places[0].x)
    said = [f"the texts went by in a stream: values are of all {len(corpus):,}, intervals from {kept:,} of them chosen by hash"]
    said += [f"{', '.join(left_out)}, the map of layers, the standardised check and the most-moved texts need all rows at once: left out"]
    whole = replace(reader, ranks=ALONE)
    return Given(
        base, tuned, corpus, dict(reader.reading), noise, whole, pair,
        (TextSet("texts", corpus),), None, template, places, measures, tuple(said),
    )  # fmt: skip


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _from_captures(base: Any, tuned: Any, request: Request, say: Progress, lap: Lap) -> Given:
    """Two captures, or a capture and a model that reads the same texts now."""
    held = [side if isinstance(side, Capture) else load_capture(side) for side in (base, tuned) if _is_capture(side)]
    corpus = captured.corpus_of_capture(held[0])
    if request.texts is not None:
        corpus = request.single("a capture")
    elif request.sample is not None:
        raise InputError(f"sample {request.sample} asked for, and captures are compared on all texts they were made on; leave it out")
    for stored in held:
        captured.check_asked(stored, {"pooling": request.pooling, "prompt": request.prompt, "max_length": request.max_length})
        if request.texts is not None:
            captured.check_texts(stored, corpus)
    models: tuple[Model | None, Model | None] = (None, None)
    noise: Noise = {}
    if len(held) == 2:
        captured.check_agreement(*held)
        reading = captured.joint_reading(*held)
        one, two = map(captured.side_of_capture, held)
        two = replace(two, warnings=(*two.warnings, *captured.versions_differ(*held)))
        lap("load")
        reader = Reader(corpus, reading, (None, None), None, request.measures, say)
    else:
        captured.check_here(held[0], request.texts)
        one, two, noise, reader, models = _beside(held[0], base, tuned, corpus, request, say, lap)
    if reader.reading["pooling"] == "none":
        check_tokenizers(one.identity, two.identity)
    else:
        _check_enough(request.measures, len(corpus), "texts", corpus.source)
    one, two = captured.pairable(one, two, request.layers)
    shown = {key: value for key, value in reader.reading.items() if key != "special_tokens" or not value}
    further = None if request.texts is None else replace(reader, layers=(list(one.acts.layers), None))
    return Given(one, two, corpus, shown, noise, further, models)


def _beside(
    stored: Capture, base: Any, tuned: Any, corpus: Corpus, request: Request, say: Progress, lap: Lap
) -> tuple[Side, Side, Noise, Reader, tuple[Model | None, Model | None]]:
    """A capture and the model on the other side, which reads as the capture was read."""
    is_base, own = _is_capture(tuned), captured.side_of_capture(stored)
    loading = {**request.loading, "revision": request.loading["revision" if is_base else "tuned_revision"]}
    del loading["tuned_revision"]
    model = load_model(base if is_base else tuned, **loading)
    lap("load")
    layers = request.layers
    if is_base:
        layers = layers_of_base(request.layers, model.anatomy.n_layers, own.depth, name=own.name)
    reading = captured.reading_beside(stored, model, batch_size=request.batch_size)
    reader = Reader(corpus, reading, (layers, layers), None, request.measures, say)
    side = Side.of(model, reader.read(model, "base" if is_base else "tuned"))
    captured.check_cut(stored, side)
    noise = reader.noise(model, side.acts) if is_base else {}
    lap("forward")
    return (side, own, noise, reader, (model, None)) if is_base else (own, side, noise, reader, (None, model))


def _from_arrays(base: Any, tuned: Any, request: Request, lap: Lap) -> Given:
    for name in ("pooling", "prompt", "max_length", "sample"):
        if (value := getattr(request, name)) is not None:
            raise InputError(f"{name} {value!r} was asked for, and rows without a model are compared as they are; leave it out")
    if request.texts is None:
        request.refuse_more("rows")
    tables = any(str(side).lower().endswith(".parquet") for side in (base, tuned) if isinstance(side, str | Path))
    column, texts = (request.column, replace(request, column=None)) if tables else (None, request)
    sides = [read_arrays(side, name, column=column) for side, name in ((base, "base"), (tuned, "tuned"))]
    identities = [side.identity() for side in sides]
    one, two, how, said = matched(*sides)
    corpus = corpus_of(one, how, None if texts.texts is None else partial(texts.single, "rows"))
    _check_enough(request.measures, one.n, "rows", how)
    left, right = captured.pairable(side_of(one, identities[0]), side_of(two, identities[1], said), request.layers)
    lap("load")
    return Given(left, right, corpus, {}, {}, None)


def _check_enough(measures: Mapping[str, Measure], n: int, kind: str, source: str) -> None:
    neediest = max(measures.values(), key=lambda measure: measure.minimum_rows)
    if n < neediest.minimum_rows:
        raise NotEnoughRows(
            f"{neediest.name} needs at least {neediest.minimum_rows} {kind}, got {n:,} ({source}); "
            f"give more {kind}, or leave the measure out with --measures"
        )
