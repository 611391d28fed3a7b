"""`diff`: run both models over the same texts and compare what they make of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunescope.activations import Activations, capture
from tunescope.activations.chat import template_for
from tunescope.comparison.elsewhere import Elsewhere, further_poolings
from tunescope.comparison.findings import Findings, Progress, locality_of
from tunescope.comparison.layers import value_and_change
from tunescope.comparison.result import Comparison
from tunescope.comparison.ruler import ruler as measure_ruler
from tunescope.comparison.side import Side, partner
from tunescope.comparison.weight_profile import RANK_WORK, weight_profile
from tunescope.errors import AlignmentError, InputError, NotEnoughRows
from tunescope.geometry import select
from tunescope.geometry.measures import Measure
from tunescope.models import Model, load_pair
from tunescope.texts import Corpus, as_corpus, as_text_sets

NOISE_TEXTS = 64  # texts run a second time, in other batches, to measure the noise of the arithmetic


def diff(
    base: Any,
    tuned: Any = None,
    texts: Any = None,
    *,
    tuning: Iterable[str] = (),
    tuning_data: Any = None,
    measures: Iterable[str] | str | None = None,
    layers: Iterable[int] | None = None,
    sample: int | None = None,
    column: str | None = None,
    pooling: str = "mean",
    also_pooling: Iterable[str] | str = (),
    chat_template: bool = False,
    prompt: str | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    tuned_revision: str | None = None,
    trust_remote_code: bool = False,
    pretraining: str | None = None,
    seed: int = 0,
    controls: Mapping[str, Model] | None = None,
    ruler: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Where did the representations change, and by how much against chance?

    Args:
        base, tuned: hub ids, folders, PEFT adapter folders, sentence-transformers folders or loaded models. With tuned None, base is an
            adapter (or a PeftModel) and its own base is read from its config.
        texts: a file (txt, jsonl, csv, tsv, parquet), "hf:org/name:split", a list of strings or a Corpus; None is the documentation that
            ships with Python. {name: such a thing, …} is several sets: the result is about the first, and `text_sets` says whether its
            headline holds on the others, each of which costs a pass of its own and the measures again.
        tuning: names of the sets whose texts the model was tuned on. tuning_data: texts it was tuned on, only looked for in the sets.
        measures: names, "all", or None for the default set (cka, debiased_cka, procrustes, nps, isotropy).
        layers: 0 (embeddings) to L; all by default. sample: that many texts, hash-chosen. column: of a table or jsonl.
        pooling: mean, cls, last, or none (token rows; intervals are over texts). prompt: put before every text; None: as the base declares.
        also_pooling: others, from the same pass, to see whether the headline depends on it; each costs its rows in memory and the measures
            again. chat_template: texts are user turns (or the conversations in a file's `messages`), in the tuned tokenizer's template.
        pretraining: the base checkpoint's objective ("mlm+nsp", "causal-lm", "unknown"); None: from the table of known checkpoints.
        max_length: tokens; None: the shorter of what the two declare.
        controls: further models of the same base (`ts.perturb`) shown beside the tuned one.
        ruler: also measure known disturbances of the base (weight noise, rounding to 8 and 4 bits, dropout) on up to 256 of the texts.
        progress: called with (stage, done, total).

    Raises: TunescopeError, one clear line; see `tunescope.errors`.
    """
    chosen = select(measures)
    if ruler and pooling == "none":
        raise InputError("the ruler compares pooled texts; leave --ruler out, or choose another pooling than none")
    layers = None if layers is None else _indices(layers)
    sets = as_text_sets(texts, tuning=tuning, column=column, sample=sample, seed=seed, chats=chat_template)
    tuned_on = None if tuning_data is None else as_corpus(tuning_data, chats=chat_template)
    further = further_poolings(pooling, also_pooling)
    for text_set in sets if pooling != "none" else ():
        _check_enough(chosen, text_set.corpus)
    clock = _Clock()
    base, tuned = (None, base) if tuned is None else (base, tuned)
    pair = load_pair(
        base,
        tuned,
        revision=revision,
        tuned_revision=tuned_revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        pretraining=pretraining,
    )
    clock.lap("load")
    _check_tokenizers(*pair, pooling)
    reading = {
        "pooling": pooling,
        "prompt": pair[0].output.prompt if prompt is None else prompt,
        "max_length": min(model.max_length for model in pair) if max_length is None else max_length,
        "batch_size": batch_size,
    }
    template = template_for(*pair, prompt=prompt) if chat_template else None
    if template is not None:
        sets, reading = template.render(sets), reading | template.reading
    corpus = sets[0].corpus
    say = progress or (lambda stage, done, total: None)

    def read(
        model: Model, label: str, some: Sequence[int] | None = None, corpus: Corpus = corpus, also: Sequence[str] = ()
    ) -> Activations:
        read_from = corpus if some is None else corpus.rows(some)
        asked = _per_side(reading, layers, pair, model) | {"also": also}
        return capture(model, read_from.texts, **asked, ids=read_from.ids, progress=lambda d, t: say(f"reading texts with {label}", d, t))

    def both(corpus: Corpus, name: str = "", also: Sequence[str] = ()) -> list[Activations]:
        labels = [f"{side} ({name})" if name else side for side in ("base", "tuned")]
        return [read(model, label, corpus=corpus, also=also) for model, label in zip(pair, labels, strict=True)]

    def quiet(corpus: Corpus, acts: Activations) -> dict[int | str, dict[str, float | None]]:
        return _noise(pair[0], corpus, acts, chosen, reading | {"pooling": acts.pooling}, layers) if acts.pooling != "none" else {}

    acts = both(corpus, also=further)
    noise = quiet(corpus, acts[0])
    clock.lap("forward")
    sides = Side.of(pair[0], acts[0]), Side.of(pair[1], acts[1])
    findings = Findings(*sides, corpus, chosen, noise, seed, say)
    result = findings.payload(reading)
    clock.lap("geometry")
    changes = {row["index"]: row["measures"]["cka"]["change"] for row in result["layers"]}
    result["weights"] = weight_profile(*pair, changes=changes, work=RANK_WORK, progress=say)
    clock.lap("weights")
    result["text_sets"] = None
    elsewhere = Elsewhere(sets, tuned_on, any(model.anatomy.causal for model in pair), chosen, seed, say)
    if elsewhere.asked(further):
        result = elsewhere.added_to(result, sides, both, quiet)
        clock.lap("elsewhere")
    if template is not None:
        result = template.added_to(result)
    result["controls"] = [_control(name, model, acts[0], read(model, name), chosen) for name, model in (controls or {}).items()]
    if controls:
        clock.lap("controls")
    if ruler:
        result["ruler"] = measure_ruler(pair[0], findings.pairings, len(corpus), measures=chosen, read=read)
        clock.lap("ruler")
    return Comparison(result | {"seconds": clock.laps})


@dataclass
class _Clock:
    """Seconds between laps, by name."""

    laps: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self.last = round(now - self.last, 3), now


def _indices(layers: Iterable[int]) -> list[int]:
    wanted = list(layers)
    if not wanted or not all(isinstance(index, int) and not isinstance(index, bool) for index in wanted):
        raise InputError(f"layers {wanted} asked for; give whole numbers, 0 is the embeddings")
    return sorted(set(wanted))


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


def _per_side(reading: dict[str, Any], layers: Iterable[int] | None, pair: tuple[Model, Model], model: Model) -> dict[str, Any]:
    """What `capture` is asked for: `layers` count on the tuned side; the base side reads their partners."""
    if layers is None:
        return reading
    wanted = list(layers)
    depth = pair[1].anatomy.n_layers
    if any(not 0 <= index <= depth for index in wanted):
        raise InputError(f"layers {','.join(map(str, wanted))} asked for; '{pair[1].name}' has 0 (embeddings) to {depth}")
    return reading | {"layers": wanted if model is pair[1] else [partner(index, depth, model.anatomy.n_layers) for index in wanted]}


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
            "depth": i / model.anatomy.n_layers,
            "measures": value_and_change(base.layers[i], acts.layers[i], measures),
        }
        for i in acts.layers
    ]
    return {"name": name, "note": "; ".join(model.warnings), "layers": rows, "locality": locality_of(rows, measures)}
