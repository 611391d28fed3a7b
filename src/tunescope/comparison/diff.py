"""`diff`: what was given becomes two sides, what they show becomes findings, and these a Comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunescope.activations import Activations
from tunescope.comparison.controls import named_controls
from tunescope.comparison.declared import declared
from tunescope.comparison.elsewhere import Elsewhere
from tunescope.comparison.findings import Findings, Progress, locality_of
from tunescope.comparison.layers import value_and_change
from tunescope.comparison.outcomes import with_outcomes
from tunescope.comparison.probing import NO_ROWS
from tunescope.comparison.result import Comparison
from tunescope.comparison.ruler import ruler as measure_ruler
from tunescope.comparison.ruler_outcomes import Judge
from tunescope.comparison.sources import Given, Request, two_sides
from tunescope.comparison.tasks import Asked
from tunescope.comparison.weight_profile import RANK_WORK, weight_profile
from tunescope.errors import InputError, UnknownName
from tunescope.geometry import select
from tunescope.geometry.measures import Measure
from tunescope.models import Model
from tunescope.ranks import ALONE, Ranks
from tunescope.texts import Corpus


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
    pooling: str | None = None,
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
    controls: Mapping[str, Model] | Iterable[Model] | None = None,
    ruler: bool = False,
    tuned_by: Mapping[str, str] | str | None = None,
    retrieval: Any = (),
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
    labels: str | None = None,
    test: Any = None,
    audit: bool = False,
    lm: Any = (),
    results: Any = (),
    mteb: Any = (),
    margin: float | Mapping[str, float] | str | None = None,
    method: str = "auto",
    distributed: bool = False,
    device_map: Any = None,
    one_at_a_time: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Where did the representations change, and by how much against chance?

    Args:
        base, tuned: hub ids, folders, PEFT adapter folders, sentence-transformers folders or loaded models. With tuned None, base is an
            adapter (or a PeftModel) and its own base is read from its config. Or saved captures (folders, `ts.save_capture`), one or
            both. Or rows without a model: .npy, .npz or .parquet files, arrays, or dicts of arrays by layer or site; parquet rows are
            matched by id.
        texts: a file (txt, jsonl, csv, tsv, parquet), "hf:org/name:split", a list of strings or a Corpus; None is the documentation that
            ships with Python. {name: such a thing, …} is several sets: the result is about the first, and `text_sets` says whether its
            headline holds on the others, each of which costs a pass of its own and the measures again. With captures they may be left out
            unless a model has to read them; with rows they only put words to the rows that moved.
        tuning: names of the sets whose texts the model was tuned on. tuning_data: texts it was tuned on, only looked for in the sets.
        measures: names, "all", or None for the default set (cka, debiased_cka, procrustes, nps, isotropy).
        layers: 0 (embeddings) to L; all by default. sample: that many texts, hash-chosen. column: of a table or jsonl.
        pooling: mean (what None is for models), cls, last, or none (token rows; intervals are over texts). prompt: put before every text;
            None: as the base declares.
        also_pooling: others, from the same pass, to see whether the headline depends on it; each costs its rows in memory and the measures
            again. chat_template: texts are user turns (or the conversations in a file's `messages`), in the tuned tokenizer's template.
        pretraining: the base checkpoint's objective ("mlm+nsp", "causal-lm", "unknown"); None: from the table of known checkpoints.
        max_length: tokens; None: the shorter of what the two declare.
        controls: further models of the same base (`ts.perturb`) shown beside the tuned one: a list of Models, or {name: Model}.
        ruler: also measure known disturbances of the base (weight noise, rounding to 8 and 4 bits, dropout) on up to 256 of the texts.
        tuned_by: what is known of the tuning, objective, corpus and rule: {"objective": "mlm"} or "objective=mlm,corpus=wiki"; recorded.
        retrieval: did search get better or worse? A folder in the BEIR layout ("folder:split"), a Collection, or a list of these.
            query_prompt, passage_prompt: put before every query and passage; None: as the base declares.
        labels: did classes become easier to tell apart? The column of the texts' classes; a linear probe at every layer of both. test:
            further labelled texts that are only judged by; without them a quarter of every class is held out. audit: also how much of the
            base's accuracy is the probe itself (rows, C, scaling).
        lm: held-out texts (a file, a list of files, {name: texts}) on which both are compared as language models.
        results: per-item results measured elsewhere: (base, tuned) files of lm-evaluation-harness, Inspect, MTEB or a table, or one table
            of id, base, tuned ("acc=scores.csv" where the metric has to be named); or a list of these. mteb: names of MTEB tasks, where
            the package mteb and a network are there.
        margin: the difference that would not matter: a number, or {kind: number} of retrieval, probe, language, external.
        method: exact keeps every row. stream lets the texts go by in constant memory: all measures but those of neighbours and ranks.
            auto is exact while the rows fit in half the free memory. distributed: share the work over torch's default process group
            (start it with torchrun); every rank returns the same result.
        device_map: how `from_pretrained` spreads large models, instead of device: "auto", "balanced", "sequential", a device, or {module:
            device or "disk"}.
        one_at_a_time: for pairs too large to hold: the base is read and freed before the tuned model is loaded. The numbers are the same;
            weights are not compared, and ruler, further text sets and poolings are refused.
        announce: called before the texts are read, with a line that says about how long that takes and what memory it needs.
        progress: called with (stage, done, total).

    Raises: TunescopeError, one clear line; see `tunescope.errors`.
    """
    _check_ruler(ruler, pooling, one_at_a_time=one_at_a_time)
    controls = named_controls(controls)
    _check_method(method, ruler=ruler, controls=controls)
    asked = Asked(retrieval, query_prompt, passage_prompt, labels, test, audit, lm, results, mteb, margin)
    _check_asked(asked, pooling, method, one_at_a_time=one_at_a_time)
    tasks = asked.read(column=column, seed=seed)
    chosen, said, say = select(measures), declared(tuned_by), progress or (lambda stage, done, total: None)
    request = Request(
        measures=chosen,
        texts=texts,
        tuning=tuning,
        tuning_data=tuning_data,
        column=column,
        sample=sample,
        seed=seed,
        layers=None if layers is None else _indices(layers),
        pooling=pooling,
        also_pooling=also_pooling,
        chat_template=chat_template,
        prompt=prompt,
        max_length=max_length,
        batch_size=batch_size,
        method="exact" if method == "auto" and (ruler or controls or labels or mteb) else method,
        named=measures,
        ranks=Ranks.of_group() if distributed else ALONE,
        loading={
            "revision": revision,
            "tuned_revision": tuned_revision,
            "device": device,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "pretraining": pretraining,
            "device_map": device_map,
        },
        one_at_a_time=one_at_a_time,
        announce=announce,
        check=tasks.labelled,
        need_models=tasks.need_models,
        outcomes=bool(tasks),
        check_pair=tasks.check_pair,
    )
    clock = _Clock()
    base, tuned = (None, base) if tuned is None else (base, tuned)
    given = two_sides(base, tuned, request, say=say, lap=clock.lap)
    _check_ruler(ruler, given.reading.get("pooling"))
    disturbed = given.base_model() if ruler else None
    known = replace(given.tuned, identity=given.tuned.identity | ({"declared": said} if said else {}))
    measured = given.measures or chosen
    findings = Findings(given.base, known, given.corpus, measured, given.noise, seed, say, given.passed, request.ranks)
    result = findings.payload(given.reading)
    result["warnings"] = [*given.warnings, *result["warnings"]]
    clock.lap("geometry")
    result = _with_models(result, given, findings, clock)
    acts = given.base.acts
    result["controls"] = [_control(name, model, acts, given.read(model, name), chosen) for name, model in controls.items()]
    if controls:
        clock.lap("controls")
    if disturbed is not None:
        judge = Judge(disturbed, tasks, batch_size, max_length, say) if tasks.collections or tasks.texts else None
        judged = None if judge is None else judge.rows
        result["ruler"] = measure_ruler(disturbed, findings.pairings, len(given.corpus), measures=chosen, read=given.read, judged=judged)
        if judge is not None and given.pair is not None:
            result["ruler"]["outcomes"] += judge.rows(given.pair[1], "the tuned model", tuned=True)
        clock.lap("ruler")
    result = with_outcomes(result, tasks, given, controls=controls, max_length=max_length, batch_size=batch_size, say=say)
    clock.lap("outcomes")
    return Comparison(result | {"seconds": clock.laps})


def _with_models(result: dict[str, Any], given: Given, findings: Findings, clock: _Clock) -> dict[str, Any]:
    """The payload with what only models can tell: their weights, and further texts and poolings; None where there are none."""
    result |= {"weights": None, "text_sets": None}
    pair, reader = given.pair, given.reader
    if pair is None or reader is None:
        return result
    changes = {row["index"]: row["measures"]["cka"]["change"] for row in result["layers"]}
    result["weights"] = weight_profile(*pair, changes=changes, work=RANK_WORK, progress=findings.say)
    clock.lap("weights")

    def both(corpus: Corpus, name: str) -> list[Activations]:
        sides = zip(pair, ("base", "tuned"), strict=True)
        return [reader.read(model, f"{side} ({name})", corpus=corpus) for model, side in sides]

    causal = any(model.anatomy.causal for model in pair)
    elsewhere = Elsewhere(given.sets, given.tuning_data, causal, findings.measures, findings.seed, findings.say)
    if elsewhere.asked(tuple(given.base.acts.also)):
        sides = given.base, given.tuned
        result = elsewhere.added_to(result, sides, both, lambda corpus, acts: reader.noise(pair[0], acts, corpus))
        clock.lap("elsewhere")
    return result if given.template is None else given.template.added_to(result)


@dataclass
class _Clock:
    """Seconds between laps, by name; laps of one name add up."""

    laps: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self.last = round(self.laps.get(name, 0.0) + now - self.last, 3), now


def _check_ruler(ruler: bool, pooling: str | None, *, one_at_a_time: bool = False) -> None:
    if ruler and one_at_a_time:
        raise InputError("the ruler disturbs the base's weights, which --one-at-a-time has freed by then; leave one of the two out")
    if ruler and pooling == "none":
        raise InputError("the ruler compares pooled texts; leave --ruler out, or choose another pooling than none")


def _check_asked(asked: Asked, pooling: str | None, method: str, *, one_at_a_time: bool) -> None:
    """Raises InputError for outcomes that cannot be had together with how the texts are to be read."""
    if (asked.labels or asked.mteb) and (pooling == "none" or method == "stream"):
        raise InputError(NO_ROWS)
    named = {"retrieval": asked.retrieval, "test": asked.test, "lm": asked.lm, "mteb": asked.mteb}
    more = [name for name, value in named.items() if value is not None and value != ()]
    if one_at_a_time and more:
        raise InputError(f"{', '.join(more)} asked for: both models must read further texts, and --one-at-a-time holds one; leave one out")


METHODS = ("auto", "exact", "stream")


def _check_method(method: str, **more: object) -> None:
    """Raises UnknownName for a method nobody knows, InputError for what a stream cannot be asked for."""
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    wanted = [name for name, value in more.items() if value]
    if method == "stream" and wanted:
        raise InputError(f"--method stream keeps no rows, and {' and '.join(wanted)} needs them; use --method exact, or leave it out")


def _indices(layers: Iterable[int]) -> list[int]:
    wanted = list(layers)
    if not wanted or not all(isinstance(index, int) and not isinstance(index, bool) for index in wanted):
        raise InputError(f"layers {wanted} asked for; give whole numbers, 0 is the embeddings")
    return sorted(set(wanted))


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
    both = [site for site in acts.sites if site in base.sites]
    sites = {site: {"measures": value_and_change(base.sites[site], acts.sites[site], measures)} for site in both}
    found = {"layers": rows, "sites": sites, "locality": locality_of(rows, measures), "outcomes": []}
    return {"name": name, "note": "; ".join(model.warnings), **found}
