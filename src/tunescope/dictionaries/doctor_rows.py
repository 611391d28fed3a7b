"""What can be told of a dictionary from activations: where it fits best, and whether it is read as it was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tunescope.activations import capture
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.doctor_checks import Check, number
from tunescope.dictionaries.firing import TopK
from tunescope.dictionaries.quality import Quality, QualitySums
from tunescope.models.model import Model
from tunescope.models.quiet import quietly

SAME = 0.01  # R² that differ by no more are alike
_SINK = 10.0  # times the median norm (Sun et al. 2024, arXiv:2402.17762)
_ENTRIES = 2**26  # of feature activations written out at a time: 256 MB
GOOD, _NEAR, _FAR = 0.5, 1.5, 3.0  # an R² to expect of any dictionary; factors by which an L0 may differ


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Every token of the texts at a layer and at those beside it; float32, on the CPU."""

    layer: int
    layers: dict[int, Float[Tensor, "tokens d"]]
    document: Int[Tensor, " tokens"]
    first: Bool[Tensor, " tokens"]
    bos: bool  # whether the tokenizer puts a special token first

    @classmethod
    def captured(
        cls,
        model: Model,
        texts: Sequence[str],
        layer: int,
        *,
        max_length: int | None = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> TokenRows:
        near = [at for at in (layer - 1, layer, layer + 1) if 0 <= at <= model.anatomy.n_layers]
        acts = capture(
            model, texts, layers=near, sites=(), pooling="none", prompt="", max_length=max_length, batch_size=batch_size, progress=progress
        )
        document = acts.groups if acts.groups is not None else torch.arange(acts.n)
        first = torch.ones_like(document, dtype=torch.bool)
        first[1:] = document[1:] != document[:-1]
        with quietly():
            begins = model.tokenizer(texts[0])["input_ids"][0] in model.tokenizer.all_special_ids
        return cls(layer, acts.layers, document, first, begins)

    @property
    def norms(self) -> Float[Tensor, " tokens"]:
        return self.layers[self.layer].norm(dim=1)

    @property
    def sink(self) -> Bool[Tensor, " tokens"]:
        norms = self.norms
        return norms > _SINK * norms[~self.first].median() if not self.first.all() else torch.zeros_like(self.first)

    @property
    def kept(self) -> Bool[Tensor, " tokens"]:
        return ~self.first & ~self.sink

    def quality(self, dictionary: Dictionary, *, layer: int | None = None, kept: Tensor | None = None, factor: float = 1.0) -> Quality:
        """Of the dictionary on these tokens, by default those that are kept; factor: what rows are multiplied by first."""
        where = self.kept if kept is None else kept
        rows, document = self.layers[self.layer if layer is None else layer][where], self.document[where]
        size = max(1, _ENTRIES // dictionary.latents)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for x, documents in zip(rows.split(size), document.split(size), strict=True):
                yield (x if factor == 1 else x * factor), documents

        return QualitySums.of_dictionary(dictionary, batches()).compute()

    def r2(self, dictionary: Dictionary, **options: Any) -> float:
        return self.quality(dictionary, **options).r2.value


def check_rows(dictionary: Dictionary, model: Model, rows: TokenRows) -> tuple[list[Check], dict[str, Any]]:
    """The checks that read activations, and the figures behind them."""
    quality = rows.quality(dictionary)
    beside = {at: quality.r2.value if at == rows.layer else rows.r2(dictionary, layer=at) for at in rows.layers}
    figures: dict[str, Any] = {"r2": quality.r2.value, "r2_by_layer": {str(at): value for at, value in beside.items()}}
    elsewhere = max(beside.values()) > max(beside[rows.layer] + SAME, 0)
    readings = [_offset(dictionary, rows, figures), _scale(dictionary, rows, figures)]
    checks = [
        _hook_point(beside, rows.layer),
        _fit(dictionary, quality, figures),
        *(_perhaps(check) if elsewhere and check.status == "wrong" else check for check in readings),
        _first_position(dictionary, rows, figures),
        _bos(dictionary, rows),
        _sinks(dictionary, rows, figures),
        _number_format(dictionary, model, rows, figures),
        _active(dictionary, quality, figures),
        _dead(dictionary, quality, figures),
    ]
    return checks, figures


def _perhaps(check: Check) -> Check:
    """What the layer may be the reason of."""
    return replace(check, status="warn", todo="another layer may be all there is to it: set that right first")


def _hook_point(beside: dict[int, float], layer: int) -> Check:
    best = max(beside, key=lambda at: beside[at])
    found = "R² " + ", ".join(f"{number(value)} at layer {at}" for at, value in sorted(beside.items()))
    expected = f"highest at layer {layer}"
    if beside[best] <= 0:
        todo = "worse than the mean at all three: it is of another model or site, or its inputs were scaled; see the other rows"
        return Check("hook point", found, expected, "wrong", todo)
    if beside[best] - beside[layer] <= SAME:
        return Check("hook point", found, expected, "ok")
    counted = f", the output of block {best - 1} counted from 0" if best else ", what enters the first block"
    return Check("hook point", found, expected, "wrong", f"read it at layer {best}: --layer {best}, hidden_states[{best}]{counted}")


def _fit(dictionary: Dictionary, quality: Quality, figures: dict[str, Any]) -> Check:
    said, found = dictionary.metadata, number(quality.r2.value)
    declared = next((float(said[name]) for name in ("r2", "explained_variance") if isinstance(said.get(name), int | float)), None)
    lost = next((float(said[name]) for name in ("fvu", "unexplained") if isinstance(said.get(name), int | float)), None)
    declared = declared if lost is None or declared is not None else 1 - lost
    figures["r2_declared"] = declared
    least = GOOD if declared is None else declared - 0.05
    expected = f"not declared; {number(GOOD)} or more is usual" if declared is None else f"{number(declared)}, as declared"
    todo = "other texts than it was trained on lower it; if these are of the same kind, see the other rows"
    if quality.r2.value >= least:
        return Check("R²", found, expected, "ok")
    return Check("R²", found, expected, "wrong" if quality.r2.value <= 0 else "warn", todo)


def _offset(dictionary: Dictionary, rows: TokenRows, figures: dict[str, Any]) -> Check:
    other = rows.r2(replace(dictionary, centred=not dictionary.centred))
    own, words = figures["r2"], ("subtracted before it is read", "not subtracted")
    figures["r2_with_the_other_b_dec_convention"] = other
    here, there = words if dictionary.centred else words[::-1]
    found, expected = f"R² {number(own)} {here}, {number(other)} {there}", f"highest {here}, as its format says"
    if other - own <= SAME:
        return Check("b_dec", found, expected, "ok")
    wrong = "apply_b_dec_to_input in its settings is the other way round, or its format is not what it was trained with"
    return Check("b_dec", found, expected, "wrong", f"read it with b_dec {there}: {wrong}")


def _scale(dictionary: Dictionary, rows: TokenRows, figures: dict[str, Any]) -> Check:
    if dictionary.scaling is not None:
        return Check("input scale", "every token is scaled, and scaled back", "as its settings say", "ok")
    factor = rows.layers[rows.layer].shape[1] ** 0.5 / float(rows.norms[rows.kept].mean())
    other, own = rows.r2(dictionary, factor=factor), figures["r2"]
    figures |= {"scale": factor, "r2_of_scaled_inputs": other}
    found, expected = f"R² {number(own)} as they are, {number(other)} at a mean norm of √d", "highest as they are"
    if other - own <= SAME:
        return Check("input scale", found, expected, "ok")
    todo = f"its training multiplied inputs by a constant that is not in the weights, {factor:.3g} on these texts; read it with that scale"
    return Check("input scale", found, expected, "wrong", todo)


def _first_position(dictionary: Dictionary, rows: TokenRows, figures: dict[str, Any]) -> Check:
    other, own = rows.r2(dictionary, kept=~rows.sink | rows.first), figures["r2"]
    size = float(rows.norms[rows.first].median() / rows.norms[rows.kept].median())
    figures |= {"r2_with_position_0": other, "norm_of_position_0": size}
    found = f"R² {number(own)} without it, {number(other)} with it; its norm is {number(size, 1)} × the median"
    if abs(own - other) <= 0.05:
        return Check("position 0", found, "left out", "ok")
    return Check("position 0", found, "left out", "warn", "leave the first token of every text out, in R² and in deltas")


def _bos(dictionary: Dictionary, rows: TokenRows) -> Check:
    declared = dictionary.metadata.get("prepend_bos")
    found = "texts begin with a special token" if rows.bos else "texts begin with their first word"
    expected = "not declared" if declared is None else "a special token first" if declared else "no special token"
    if declared is None or bool(declared) == rows.bos:
        return Check("BOS", found, expected, "ok")
    return Check("BOS", found, expected, "warn", f"have the tokenizer {'add BOS' if declared else 'add none'}, as in its training")


def _sinks(dictionary: Dictionary, rows: TokenRows, figures: dict[str, Any]) -> Check:
    sinks = int((rows.sink & ~rows.first).sum())
    figures["sinks"] = sinks
    if not sinks:
        return Check("attention sinks", f"none beside position 0 (norm above {_SINK:g} × the median)", "left out", "ok")
    other, own = rows.r2(dictionary, kept=~rows.first), figures["r2"]
    figures["r2_with_sinks"] = other
    found = f"{sinks:,} tokens; R² {number(own)} without them, {number(other)} with them"
    if abs(own - other) <= 0.05:
        return Check("attention sinks", found, "left out", "ok")
    return Check("attention sinks", found, "left out", "warn", f"leave tokens above {_SINK:g} × the median norm out, in R² and in deltas")


def _number_format(dictionary: Dictionary, model: Model, rows: TokenRows, figures: dict[str, Any]) -> Check:
    rounded = replace(rows, layers={rows.layer: rows.layers[rows.layer].bfloat16().float()})
    other, own = rounded.r2(dictionary, kept=rows.kept), figures["r2"]
    figures["r2_of_bfloat16_activations"] = other
    stored, runs = dictionary.metadata.get("dtype", "float32"), str(model.dtype).removeprefix("torch.")
    found = f"weights stored as {stored}, model run in {runs}; R² {number(other)} of activations rounded to bfloat16"
    if runs != "float32":
        return Check("dtype", found, "float32", "warn", "run the model in float32: a small delta of rounded activations is mostly rounding")
    status, todo = ("ok", "") if own - other <= SAME else ("warn", "keep activations in float32: rounding costs it R²")
    return Check("dtype", found, "float32", status, todo)


def _active(dictionary: Dictionary, quality: Quality, figures: dict[str, Any]) -> Check:
    l0 = quality.l0.value if quality.l0 is not None else float("nan")
    figures["l0"] = l0
    said, k = dictionary.metadata.get("l0"), dictionary.metadata.get("k")
    declared = dictionary.firing.k if isinstance(dictionary.firing, TopK) else said if isinstance(said, int | float) else k
    todo = "at another L0 than its own it is read wrongly (layer, b_dec, threshold, scale), or these texts are unlike those of its training"
    if not isinstance(declared, int | float) or declared <= 0:
        few = 1 <= l0 <= dictionary.latents / 4
        return Check("L0", number(l0, 1), f"not declared; few of {dictionary.latents:,}", "ok" if few else "warn", "" if few else todo)
    figures["l0_declared"] = declared
    ratio = max(l0 / declared, declared / l0) if l0 > 0 else float("inf")
    status = "ok" if ratio <= _NEAR else "warn" if ratio <= _FAR else "wrong"
    return Check("L0", number(l0, 1), f"{number(declared, 1)}, as declared", status, "" if status == "ok" else todo)


def _dead(dictionary: Dictionary, quality: Quality, figures: dict[str, Any]) -> Check:
    share = quality.dead_share or 0.0
    figures["silent_share"] = share
    found = f"{share:.0%} of {dictionary.latents:,} fired on none of {quality.rows:,} tokens"
    if share <= 0.5:
        return Check("dead latents", found, "at most half on few tokens", "ok")
    todo = "give more texts: rare features need many tokens; those that stay silent are dead"
    return Check("dead latents", found, "at most half on few tokens", "warn", todo)
