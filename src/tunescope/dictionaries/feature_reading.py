"""Reading features: of every latent how often it fires, on what, what it explains, what it is like, and which tokens it promotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.dictionaries.contexts import Documents, activations_of, context, windows_of
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.placed_rows import PlacedRows
from tunescope.dictionaries.promoted_tokens import DEFINITION, Promoted, head_or_reason, promoted_tokens
from tunescope.dictionaries.strongest import Fired, FiringSums, Strongest, rows_at_a_time
from tunescope.errors import AlignmentError, InputError
from tunescope.models import Model
from tunescope.texts import as_corpus

CONTEXTS, AROUND, MOST, TOKENS = 12, 12, 500, 10
_SPARE = 4  # rows kept for every context shown: those in a window that is shown already are no second one
DEFINITIONS = {
    "density": "the share of rows a feature fires in",
    "mean": "its mean activation where it fires",
    "explained_share": "how much the squared error would grow were its activation 0, over the variance of Δ; below 0 where it does harm",
    "density_by_set": "the share of each set's rows it fires in",
    "documents_by_set": "in how many documents of each set it fires",
    "tokens": DEFINITION,
}


@dataclass(frozen=True, eq=False)
class NearestIn:
    """The features of another dictionary that are nearest to each latent, (n,) or (n, k), best first: cosines and latents.

    name: of that dictionary. floor: the cosine that chance gives, for the page to say.
    """

    cosines: Any
    latents: Any
    name: str
    floor: float | None = None


@dataclass(frozen=True)
class FeatureReading:
    """A page's worth of features: a flat, JSON-able dict of each latent, in the order of their explained share.

    Every dict has latent, density, max, mean, explained_share, density_by_set, documents_by_set; of the first `described` that fire also
    contexts, nearest, promotes and suppresses, which are empty or None otherwise. notes: what could not be said, and why.
    """

    name: str
    rows: int
    documents: int
    latents: int
    dead: int
    described: int
    sets: dict[str, int]
    notes: tuple[str, ...]
    features: tuple[dict[str, Any], ...]

    def describe(self) -> dict[str, Any]:
        """JSON-able: all of it, with the definitions."""
        head = {name: getattr(self, name) for name in ("name", "rows", "documents", "latents", "dead", "described", "sets")}
        return head | {"definitions": DEFINITIONS, "notes": list(self.notes), "features": list(self.features)}


def read_features(
    dictionary: Dictionary,
    rows: PlacedRows,
    *,
    model: Model,
    texts: Any,
    sets: Sequence[str] | None = None,
    nearest: NearestIn | None = None,
    most: int = MOST,
    contexts: int = CONTEXTS,
    around: int = AROUND,
    tokens: int = TOKENS,
) -> FeatureReading:
    """Read the features of a dictionary off the rows (Δ, or a base's own) that made them fire. Rows pass by twice; no more than a block of
    codes and the strongest rows of each latent are held.

    Args:
        rows: `PlacedRows.of_store(...)` or `.of_batches(...)`. model: whose tokenizer and language head tokens are named by: the base.
        texts: those the rows were made from, in the same order. sets: what each document is, such as "tuning" or "general".
        nearest: what another dictionary has that is like each latent. most: of how many latents, in the order of what they explain,
        contexts and tokens are given. contexts: windows of each; around: tokens on each side; tokens: how many are named.

    Raises: AlignmentError (rows, sets or nearest are not of these texts or latents), InputError (width, counts), NotEnoughRows.
    """
    corpus = as_corpus(texts)
    _check(dictionary, rows, len(corpus), sets, nearest, most=most, contexts=contexts, around=around)
    names = list(dict.fromkeys(sets or ["all"]))
    of_set = torch.tensor([names.index(name) for name in sets or ["all"] * len(corpus)])[rows.document.long()]
    sums, strongest, variance = _firing(dictionary, rows, of_set, sets=len(names), k=contexts * _SPARE)
    order = _order(sums)
    chosen = [latent for latent in order[:most].tolist() if sums.total[latent] > 0]
    prompt = model.output.prompt if rows.prompt is None else rows.prompt
    documents = Documents(model, corpus, prompt, model.max_length if rows.max_length is None else rows.max_length)
    shown = _contexts(dictionary, rows, documents, chosen, strongest, most=contexts, around=around, sets=sets)
    promoted, reason = _promoted(model, dictionary.decoder[chosen], tokens)
    figures = _figures(sums, variance, names, torch.bincount(of_set, minlength=len(names)))
    near = _nearest(nearest)
    features = []
    for place, latent in enumerate(order.tolist()):
        more: dict[str, Any] = {"contexts": [], "nearest": [], "promotes": None, "suppresses": None}
        if place < len(chosen):
            more |= {"contexts": shown[latent], "nearest": near(latent)} | _named(promoted[place] if promoted else None, documents)
        features.append(figures(latent) | more)
    notes = [*([] if reason is None else [reason]), *([] if sums.weighed else [_UNWEIGHED])]
    return FeatureReading(
        name=dictionary.name,
        rows=len(rows),
        documents=len(rows.document.unique()),
        latents=dictionary.latents,
        dead=int((sums.total == 0).sum()),
        described=len(chosen),
        sets={name: int((of_set == number).sum()) for number, name in enumerate(names)},
        notes=tuple(notes),
        features=tuple(features),
    )


_UNWEIGHED = "the dictionary scales every token, so what one feature explains depends on all others: features are in order of their firing"


def _firing(dictionary: Dictionary, rows: PlacedRows, of_set: Tensor, *, sets: int, k: int) -> tuple[FiringSums, Strongest, float]:
    """One pass: sums and strongest rows of every latent, and Σ|x − x̄|²."""
    device = dictionary.decoder.device
    sums, strongest = FiringSums(dictionary.latents, sets, device), Strongest(dictionary.latents, k, device)
    total, squares = torch.zeros(dictionary.width, dtype=torch.float64, device=device), 0.0
    for start, block in rows.blocks(rows_at_a_time(dictionary)):
        x = block.to(device, dictionary.decoder.dtype)
        fired, stop = Fired.of(dictionary, x), start + len(block)
        sums.add(fired, rows.document[start:stop].to(device), of_set[start:stop].to(device))
        strongest.add(fired.places.row + start, fired.places.latent, fired.values)
        total += x.sum(0, dtype=torch.float64)
        squares += float(x.double().square().sum())
    return sums, strongest, squares - float(total.square().sum()) / len(rows)


def _order(sums: FiringSums) -> Tensor:
    """Latents by what they explain, those that fire before those that never do."""
    weight = sums.growth if sums.weighed else sums.total
    return weight.masked_fill(sums.total == 0, -torch.inf).argsort(descending=True, stable=True).cpu()


def _figures(sums: FiringSums, variance: float, names: list[str], counts: Tensor) -> Any:
    rows = int(counts.sum())
    fired, documents = sums.fired.cpu(), sums.documents.cpu()
    total, growth, highest = sums.total.cpu(), sums.growth.cpu(), sums.highest.cpu()

    def of(latent: int) -> dict[str, Any]:
        times = float(fired[latent].sum())
        densities = (fired[latent] / counts.clamp_min(1)).tolist()
        return {
            "latent": latent,
            "density": times / rows,
            "max": float(highest[latent]),
            "mean": float(total[latent]) / times if times else 0.0,
            "explained_share": float(growth[latent]) / variance if sums.weighed and variance > 0 else None,
            "density_by_set": dict(zip(names, densities, strict=True)),
            "documents_by_set": dict(zip(names, map(int, documents[latent].tolist()), strict=True)),
        }

    return of


def _contexts(
    dictionary: Dictionary,
    rows: PlacedRows,
    documents: Documents,
    chosen: list[int],
    strongest: Strongest,
    *,
    most: int,
    around: int,
    sets: Sequence[str] | None,
) -> dict[int, list[dict[str, Any]]]:
    kept = strongest.rows[chosen].cpu()
    windows = windows_of(rows, chosen, kept, most=most, around=around)
    centres = torch.tensor([window.row for some in windows.values() for window in some], dtype=torch.int64)
    documents.add(rows.document[centres].tolist())
    documents.check(rows, centres)
    activations = activations_of(dictionary, rows, windows)
    found = {latent: [context(window, documents, rows, activations) for window in some] for latent, some in windows.items()}
    for some in found.values():
        for each in some:
            each["set"] = None if sets is None else sets[each["document"]]
    return found


def _promoted(model: Model, directions: Tensor, k: int) -> tuple[list[Promoted] | None, str | None]:
    head, reason = head_or_reason(model)
    return (None, reason) if head is None or not len(directions) else (promoted_tokens(head, directions, k=k), None)


def _named(promoted: Promoted | None, documents: Documents) -> dict[str, Any]:
    if promoted is None:
        return {}
    ends = {"promotes": promoted.promotes, "suppresses": promoted.suppresses}
    return {end: [{"token": documents.token(token), "id": token, "score": score} for token, score in some] for end, some in ends.items()}


def _nearest(nearest: NearestIn | None) -> Any:
    if nearest is None:
        return lambda latent: []
    cosines, latents = (np.asarray(each).reshape(len(each), -1) for each in (nearest.cosines, nearest.latents))

    def of(latent: int) -> list[dict[str, Any]]:
        pairs = zip(latents[latent].tolist(), cosines[latent].tolist(), strict=True)
        return [{"dictionary": nearest.name, "latent": int(other), "cosine": cosine, "floor": nearest.floor} for other, cosine in pairs]

    return of


def _check(
    dictionary: Dictionary, rows: PlacedRows, texts: int, sets: Sequence[str] | None, nearest: NearestIn | None, **counts: int
) -> None:
    bad: Mapping[str, int] = {name: value for name, value in counts.items() if value < (0 if name == "around" else 1)}
    if bad:
        name, value = next(iter(bad.items()))
        raise InputError(f"{name}={value} asked for; it must be {0 if name == 'around' else 1} or more")
    if len(rows) and int(rows.document.max()) >= texts:
        last = int(rows.document.max()) + 1
        raise AlignmentError(f"rows of text {last:,} and {texts:,} texts given; give the texts the rows were made from")
    if sets is not None and len(sets) != texts:
        raise AlignmentError(f"{len(sets):,} sets named for {texts:,} texts; name one a text")
    if nearest is not None and len(nearest.cosines) != dictionary.latents:
        raise AlignmentError(f"nearest features of {len(nearest.cosines):,} latents given for a dictionary of {dictionary.latents:,}")
