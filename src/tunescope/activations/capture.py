"""Run texts through a model once and keep one pooled row per text at every layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunescope.activations.batches import TokenisedTexts, check_vocabulary, collate, plan_batches, prompt_tokens, tokenise
from tunescope.activations.pooling import Pool, check_pooling, pooler
from tunescope.activations.rows import Rows
from tunescope.activations.taps import Taps, check_states, layer_name
from tunescope.errors import InputError, TextsError, UnknownName
from tunescope.models.lengths import position_limit
from tunescope.models.model import Model
from tunescope.models.quiet import quietly
from tunescope.ranks import ALONE, Ranks

SITES = ("final", "output")


@dataclass(eq=False)
class Activations:
    """Rows of one model on n texts, in the order the texts were given; float32, on the CPU.

    layers: index 0 is what enters block 1, index i what block i returns (before any final norm). sites: `final` is the body's
    last hidden state (after a final norm), `output` the embedding the model deploys. Rows are texts; with pooling "none" the rows
    of layers and `final` are tokens (text by text, `groups` says which), while `output` stays one row per text. also: the same pass
    under further poolings, by their names; they have no `output`, which is the embedding the model deploys however the layers are read.
    """

    layers: dict[int, Tensor]  # index -> (n, d)
    sites: dict[str, Tensor]  # final (n, d), output (n, e)
    names: dict[int, str]
    n: int
    groups: Tensor | None  # (rows,) text of each token row, with pooling "none"
    tokens: Tensor  # (n,) tokens per text, as read
    truncated: int  # texts cut at max_length
    seconds_forward: float
    pooling: str
    prompt: str
    max_length: int
    also: dict[str, Activations] = field(default_factory=dict)


class Keeper(Protocol):
    """Where rows go that are not to be held in memory: see `Draft`."""

    done: int  # batches whose rows it has from an earlier process

    @property
    def rows(self) -> dict[int | str, Tensor]: ...
    def allocate(self, key: int | str, rows: int, width: int) -> Tensor: ...
    def did(self, batches: int) -> None: ...


def capture(
    model: Model,
    texts: Sequence[str],
    *,
    layers: Iterable[int] | None = None,
    sites: Iterable[str] = SITES,
    pooling: str = "mean",
    also: Sequence[str] = (),
    prompt: str | None = None,
    max_length: int | None = None,
    batch_size: int = 32,
    special_tokens: bool = True,
    templated: bool = False,
    ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    reverse: bool = False,
    draft: Keeper | None = None,
    ranks: Ranks = ALONE,
) -> Activations:
    """Capture pooled hidden states of `texts` at every layer and site, in one forward pass per batch.

    layers: which of 0..L, all by default. sites: of "final", "output". pooling: mean, cls, last or none, over non-padding tokens
    (special ones too unless special_tokens=False). also: further poolings of the same pass (mean, cls, last); each costs its own rows
    in memory, n × d × 4 bytes a layer, and next to no time. prompt: put before every text; None is the model's declared one. max_length:
    in tokens; None is the model's own. templated: the texts come from a chat template and hold their special tokens, so the tokenizer
    adds none. ids: names of the texts for messages. progress(done, total) counts tokens. reverse: the same texts in other batches, to
    measure the noise of the arithmetic. draft: keeps the rows of the one pooling instead of the memory, and says how many batches it
    has already (`ts.save_capture` makes one). ranks: processes that run a share of the batches each; all of them get all rows, bit for
    bit those of one process.

    Batches hold texts of like length and are padded on the right whatever the tokenizer prefers. Two models with one
    tokenizer see identical batches, so rows below the first altered block are bit-identical.

    Raises TextsError (none, not a string, no tokens), InputError (layers, max_length, batch_size), UnknownName (pooling, site),
    ActivationError (NaN or Inf: names model, layer and text), ModelError (a block that cannot be read).
    """
    wanted, sites = check_request(model, texts, layers, sites, batch_size)
    also = _check_poolings(pooling, also if draft is None else ())
    prompt = model.output.prompt if prompt is None else prompt
    max_length = check_length(model, max_length)
    label = _labels(len(texts), ids)
    tokens = tokenise(model, texts, prompt=prompt, max_length=max_length, special_tokens=special_tokens, templated=templated, label=label)
    check_vocabulary(tokens, model)
    rows = {name: Rows(model, tokens, name, label) for name in (pooling, *also)}
    if draft is not None:
        rows[pooling] = Rows(model, tokens, pooling, label, draft.allocate, draft.rows)
    skip = 0 if model.output.include_prompt else prompt_tokens(model, prompt)
    done, total, started = 0, int(tokens.lengths.sum()), time.perf_counter()
    # no_grad and not inference_mode: a table that a module keeps of this pass may be part of a backward pass later
    with quietly(), torch.no_grad(), model.active() as body, Taps(model, wanted) as taps:
        arguments, pad = forward_arguments(model), model.tokenizer.pad_token_id or 0
        for number, batch in enumerate(ranks.share(_plan(tokens, batch_size, reverse, ranks))):
            done += int(tokens.lengths[batch].sum())
            if draft is not None and number < draft.done:
                continue
            inputs, mask, counted = collate(tokens, batch, pad_id=pad, device=model.device)
            pools = {name: pooler(name, counted) for name in rows}
            taps.start(pools, tuple(inputs.shape))
            out = body(input_ids=inputs, attention_mask=mask, **arguments)
            states, pooled = check_states(out[0], taps.shape, "the final state").to(mask.device), getattr(out, "pooler_output", None)
            pooled = None if pooled is None else pooled.to(mask.device)  # the last block of a spread model is elsewhere
            for name, kept in taps.finish().items():
                asked = sites if name == pooling else _but_output(sites)
                rows[name].put(batch, kept | _site_rows(model, asked, states, pools[name], mask, pooling=name, skip=skip, pooled=pooled))
            if draft is not None:
                draft.did(number + 1)
            if progress is not None:
                progress(min(done * ranks.count, total), total)
        for pooled_rows in rows.values():
            for kept_rows in pooled_rows.kept.values():
                ranks.sum(kept_rows)
    own = Activations(
        layers={index: rows[pooling].kept[index] for index in wanted},
        sites={site: rows[pooling].kept[site] for site in sites},
        names={index: layer_name(index) for index in wanted},
        n=len(texts),
        groups=rows[pooling].groups,
        tokens=torch.from_numpy(tokens.lengths),
        truncated=tokens.truncated,
        seconds_forward=time.perf_counter() - started,
        pooling=pooling,
        prompt=prompt,
        max_length=max_length,
    )
    return replace(own, also={name: _pooled(own, rows[name].kept, name) for name in also})


def _plan(tokens: TokenisedTexts, batch_size: int, reverse: bool, ranks: Ranks) -> list[np.ndarray]:
    batches = plan_batches(tokens.lengths, batch_size, reverse=reverse)
    if len(batches) < ranks.count:
        raise InputError(
            f"{ranks.count} processes for {len(batches)} batches of {batch_size} texts; start fewer processes, or lower the batch size"
        )
    return batches


def _pooled(own: Activations, kept: dict[int | str, Tensor], pooling: str) -> Activations:
    """The same capture under another pooling."""
    layers, sites = {index: kept[index] for index in own.layers}, {site: kept[site] for site in _but_output(tuple(own.sites))}
    return replace(own, layers=layers, sites=sites, pooling=pooling)


def _but_output(sites: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(site for site in sites if site != "output")


def _site_rows(
    model: Model, sites: tuple[str, ...], states: Tensor, pool: Pool, mask: Tensor, *, pooling: str, skip: int, pooled: Tensor | None
) -> dict[int | str, Tensor]:
    """The sites of one batch, from its final states (b, t, d): `final` pooled as asked, `output` as the model deploys it."""
    rows: dict[int | str, Tensor] = {}
    if "final" in sites:
        rows["final"] = pool(states)
    if "output" not in sites:
        return rows
    if model.output.declared:
        counted = mask if not skip else mask.index_fill(1, torch.arange(skip, device=mask.device), 0)
        rows["output"] = model.output(states, counted, pooled=pooled)
    elif pooling == "none":
        rows["output"] = pooler("mean", mask)(states)
    else:
        rows["output"] = rows["final"] if "final" in rows else pool(states)
    return rows


def forward_arguments(model: Model) -> dict[str, Any]:
    """Arguments that keep the forward to what is read: no cache, no lists of states."""
    if not isinstance(model.module, PreTrainedModel):
        return {}
    cache = {"use_cache": False} if model.anatomy.causal else {}
    return cache | {"output_hidden_states": False, "output_attentions": False, "return_dict": True}


def _check_poolings(pooling: str, also: Sequence[str]) -> tuple[str, ...]:
    for name in (pooling, *also):
        check_pooling(name)
    if also and "none" in (pooling, *also):
        asked = ", ".join((pooling, *also))
        raise InputError(f"poolings {asked} asked for together; none keeps a row a token and the others a row a text: leave none out")
    return tuple(name for name in dict.fromkeys(also) if name != pooling)


def _labels(n: int, ids: Sequence[str] | None) -> Callable[[int], str]:
    return lambda i: f"text {ids[i]}" if ids is not None else f"text {i + 1:,} of {n:,}"


def check_length(model: Model, asked: int | None) -> int:
    """The length to read at; None asks for the model's own. Raises InputError for one that it has no positions for."""
    if asked is None:
        return model.max_length
    limit, least = position_limit(model.module), model.tokenizer.num_special_tokens_to_add() + 1
    if asked < least or (limit is not None and asked > limit):
        raise InputError(f"max_length {asked} asked for; '{model.name}' takes {least} to {limit or 'any number of'} tokens")
    return asked


def check_request(
    model: Model, texts: Sequence[str], layers: Iterable[int] | None, sites: Iterable[str], batch_size: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if isinstance(texts, str):
        raise TextsError("one string was given where a list of texts is needed; put it in a list")
    if not len(texts):
        raise TextsError("no texts to run; give at least one")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size} asked for; it must be at least 1")
    sites = tuple(sites)
    for site in sites:
        if site not in SITES:
            raise UnknownName("site", site, SITES)
    last = model.anatomy.n_layers
    wanted = tuple(range(last + 1)) if layers is None else tuple(sorted(set(layers)))
    if any(index not in range(last + 1) for index in wanted):
        raise InputError(f"layers {list(wanted)} asked for; '{model.name}' has 0 (embeddings) to {last}")
    return wanted, sites
