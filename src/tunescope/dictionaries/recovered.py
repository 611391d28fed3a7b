"""Behaviour recovered: how much of what tuning changed comes back when only what a dictionary reads in Δ is added to the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.batches import collate, plan_batches
from tunescope.dictionaries.behaviours import BASE, TUNED, Behaviour, check_finite, make_behaviour
from tunescope.dictionaries.delta_norms import row_lengths
from tunescope.dictionaries.delta_pass import Calibration, DeltaPass
from tunescope.dictionaries.deltas import take
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.hygiene import Dropped, Hygiene
from tunescope.dictionaries.partial_forward import Place
from tunescope.dictionaries.recovered_table import MEAN, TRUE, ZERO, BehaviourRecovered, sums_to_rows
from tunescope.dictionaries.spliced_forward import WholePass, continued_from, whole_pass
from tunescope.errors import InputError, NotEnoughRows, UnknownName
from tunescope.models import Model
from tunescope.models.quiet import quietly

Key = tuple[str, int]  # a tuned model and a layer
Spliced = dict[str, Callable[[Tensor], Tensor]]  # by name, what is added to the base for Δ (rows, d)


def behaviour_recovered(
    base: Model,
    tuned: Mapping[str, Model],
    texts: Any,
    dictionaries: Mapping[tuple[str, Place], Any],
    *,
    behaviour: str | None = None,
    kind: str = "residual",
    means: Mapping[tuple[str, Place], Tensor] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    prompt: str | None = None,
    hygiene: Hygiene | None = None,
    held_out_share: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> BehaviourRecovered:
    """Add what a dictionary makes of the residual delta to the base's states at one layer, and let the base go on from there.

    closed = 1 − KL(tuned ‖ spliced) / KL(tuned ‖ base) over held-out documents; loss_closed = (loss_base − loss_spliced) /
    (loss_base − loss_tuned). For embedders, closed = 1 − Σ|e_tuned − e_spliced|² / Σ|e_tuned − e_base|². Beside every dictionary stand
    the true Δ at the same tokens (what a dictionary without error would close), its mean alone, and nothing. At tokens that `hygiene` drops
    nothing is added. One forward of the base and of each tuned model a batch; a spliced forward runs only the blocks after its layer.

    Args:
        tuned: by name. dictionaries: by (tuned model, layer) a Dictionary, several, or {name: Dictionary}.
        behaviour: "predictions" (causal: every token; masked: 15%, as `ts.language_loss` has them) or "embeddings"; None: the first that
            all models have.
        means: EΔ (d,) by (tuned model, layer), such as a store's; None: of the documents that are not held out, one more pass over them.
        seed: of the masks. The rest as in `delta_batches`; progress(done, total) counts windows.

    Raises: InputError (a kind or place that is not spliced, widths), UnknownName, NotEnoughRows (no held-out document), NoLanguageHead
        (no head, and no embedding declared), ActivationError (NaN or Inf), and as `delta_batches`.
    """
    wanted = _wanted(base, tuned, dictionaries, kind)
    reading: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "prompt": prompt}
    layers = sorted({layer for _, layer in wanted})
    used = {name: model for name, model in tuned.items() if name in {key[0] for key in wanted}}
    whole = DeltaPass.of(base, used, texts, layers=layers, hygiene=hygiene, held_out_share=held_out_share, **reading)
    held = np.flatnonzero(whole.held)
    if not len(held):
        n = len(whole.corpus)
        raise NotEnoughRows(f"none of {n:,} documents is held out at a share of {held_out_share}; give more texts, or raise it")
    chosen = make_behaviour(behaviour, whole, whole.corpus.rows(held.tolist()), seed=seed)
    calibration = whole.calibrate()
    found = _means(whole, calibration, wanted) if means is None else means
    spliced = {key: _spliced(each, found[key]) for key, each in wanted.items()}
    run = _Run(whole, chosen, calibration, spliced, _Sums(len(held)))
    return run.result(progress)


@dataclass(eq=False)
class _Sums:
    """Sums over the answers of each document, (n,) float64, by tuned model, layer (None: of base and tuned themselves) and name."""

    documents: int

    def __post_init__(self) -> None:
        self.distance: dict[tuple[str, int | None, str], np.ndarray] = {}
        self.loss: dict[tuple[str, int | None, str], np.ndarray] = {}
        self.answers = np.zeros(self.documents)
        self.dropped = Dropped()

    def add(self, key: tuple[str, int | None, str], document: np.ndarray, distance: np.ndarray, loss: np.ndarray | None) -> None:
        for table, values in ((self.distance, distance), (self.loss, loss)):
            if values is not None:
                total = table.setdefault(key, np.zeros(self.documents))
                np.add.at(total, document, check_finite(values, f"{key[0]}, {key[2]}"))


@dataclass(frozen=True, eq=False)
class _Run:
    """Everything one call needs on its way through the held-out windows."""

    whole: DeltaPass
    behaviour: Behaviour
    calibration: Calibration
    spliced: dict[Key, Spliced]
    sums: _Sums

    def result(self, progress: Callable[[int, int], None] | None) -> BehaviourRecovered:
        read, done = self.behaviour.windows.read, 0
        with quietly(), torch.no_grad():
            for batch in plan_batches(read.lengths, self.whole.reading["batch_size"]):
                self._batch(batch)
                done += len(batch)
                if progress is not None:
                    progress(done, len(read.lengths))
        sums, rows = self.sums, []
        for (name, layer), names in self.spliced.items():
            rows += sums_to_rows(name, layer, names, distance=sums.distance, loss=sums.loss, answers=sums.answers)
        return BehaviourRecovered(tuple(rows), self.behaviour.name, self.behaviour.distance, self.behaviour.says, sums.dropped)

    def _batch(self, batch: np.ndarray) -> None:
        whole, base = self.whole, self.whole.base
        pad = base.tokenizer.pad_token_id or 0
        ids, mask, counted = collate(self.behaviour.windows.read, batch, pad_id=pad, device=base.device)
        with base.active():
            found = whole_pass(base, ids, mask, whole.places)  # type: ignore[arg-type]  # places are layers here
        kept = self._kept(found, mask, counted)
        for number, (name, model) in enumerate(whole.tuned.items()):
            answers: dict[Any, Tensor] = {BASE: self.behaviour.answer(base, found.out, mask, batch)}
            with model.active():
                theirs = whole_pass(model, ids, mask, self._layers(name))
                answers[TUNED] = self.behaviour.answer(model, theirs.out, mask, batch)
            with base.active():
                for layer, states, added in self._states(name, theirs, found, kept):
                    out = continued_from(base, found, layer, states)
                    answers[layer, added] = self.behaviour.answer(base, out, mask, batch)
            self._measure(name, answers, batch, count=number == 0)

    def _layers(self, name: str) -> list[int]:
        return [layer for tuned, layer in self.spliced if tuned == name]

    def _states(self, name: str, theirs: WholePass, found: WholePass, kept: Tensor) -> Iterator[tuple[int, Tensor, str]]:
        """(layer, states with something added, its name) for everything that is spliced for one tuned model."""
        for layer in self._layers(name):
            rows = take(found.states[layer], kept)
            delta = take(theirs.states[layer], kept).to(rows.device) - rows
            for added, make in self.spliced[name, layer].items():
                states = found.states[layer].clone()
                states.flatten(0, 1)[kept.to(states.device)] = (rows + make(delta)).to(states.dtype)
                yield layer, states, added

    def _kept(self, found: WholePass, mask: Tensor, counted: Tensor) -> Tensor:
        """Flat positions of the tokens that hold a delta."""
        hygiene = self.whole.hygiene
        kept = hygiene.kept(counted)
        norms = {place: row_lengths(take(states, kept)).cpu() for place, states in found.states.items()}
        sinks = hygiene.sinks_in(norms, self.calibration.medians)  # type: ignore[arg-type]
        stays = ~torch.stack(list(sinks.values())).any(dim=0) if sinks else torch.ones(len(kept), dtype=torch.bool)
        kept = kept[stays.to(kept.device)]
        self.sums.dropped += Dropped.of(hygiene, mask.cpu(), counted.cpu(), sinks, len(kept))
        return kept

    def _measure(self, name: str, answers: dict[Any, Tensor], batch: np.ndarray, *, count: bool) -> None:
        documents = self.behaviour.windows.document
        for key, windows, distance, loss in self.behaviour.measure(name, answers, batch):
            where = key if isinstance(key, tuple) else (None, key)
            self.sums.add((name, *where), documents[windows], distance, loss)
            if count and key == TUNED:
                np.add.at(self.sums.answers, documents[windows], 1)


def _wanted(base: Model, tuned: Mapping[str, Model], asked: Mapping[tuple[str, Place], Any], kind: str) -> dict[Key, dict[str, Dictionary]]:
    """The dictionaries by tuned model, layer and name, all of which can be spliced."""
    if not asked:
        raise InputError('no dictionary given; name where each belongs, as in {("rank8", 6): dictionary}')
    wanted = {}
    for (name, layer), given in asked.items():
        if kind != "residual" or isinstance(layer, str):
            what = f"{kind} deltas" if kind != "residual" else f"deltas of the module {layer}"
            raise InputError(f"{what} are not spliced: only what all blocks before a layer changed is; give residual deltas of a layer")
        if name not in tuned:
            raise UnknownName("tuned model", name, tuned)
        named = _named(given)
        for label, dictionary in named.items():
            if dictionary.width != base.anatomy.width:
                sizes = f"width {dictionary.width} given for '{base.name}', whose blocks return {base.anatomy.width} features"
                raise InputError(f"dictionary '{label}' of {sizes}")
        wanted[name, layer] = named
    return wanted


def _named(given: Any) -> dict[str, Dictionary]:
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        several: Sequence[Dictionary] = [given] if isinstance(given, Dictionary) else list(given)
        named = {each.name: each for each in several}
        if len(named) < len(several):
            raise InputError(f"{len(several)} dictionaries given, some under one name ({', '.join(named)}); give {{name: dictionary}}")
    taken = next((name for name in named if name in (MEAN, TRUE, ZERO)), None)
    if taken or not named:
        raise InputError(f"a dictionary called '{taken}' given, which is a reference" if taken else "no dictionary given for a tuned model")
    return named


def _spliced(dictionaries: Mapping[str, Dictionary], mean: Tensor) -> Spliced:
    """What is added to the base, by name: nothing is not among it, as its answers are the base's own."""

    def rebuilt(dictionary: Dictionary) -> Callable[[Tensor], Tensor]:
        return lambda delta: dictionary.reconstruct(delta.to(dictionary.decoder.device)).to(delta.device)

    own = {name: rebuilt(dictionary) for name, dictionary in dictionaries.items()}
    return {MEAN: lambda delta: mean.to(delta).expand_as(delta), **own, TRUE: lambda delta: delta}


def _means(whole: DeltaPass, calibration: Calibration, wanted: Mapping[Key, Any]) -> dict[tuple[str, Place], Tensor]:
    """EΔ (d,) float64 over the rows that are not held out. Raises NotEnoughRows where there are none."""
    totals: dict[tuple[str, Place], Tensor] = {}
    rows = 0
    for batch in whole.batches(calibration):
        mine = ~batch.held_out
        rows += int(mine.sum())
        for key in wanted:
            total = batch.deltas[key][mine].sum(dim=0, dtype=torch.float64)
            totals[key] = totals[key] + total if key in totals else total
    if not rows:
        raise NotEnoughRows("every document is held out, so there is no mean delta to compare with; give more texts, or means=")
    return {key: total / rows for key, total in totals.items()}


