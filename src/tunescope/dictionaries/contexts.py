"""Where a feature fires: the tokens around, with the token marked, and how strongly it fires on each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.batches import TokenisedTexts, tokenise
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.placed_rows import PlacedRows
from tunescope.dictionaries.strongest import rows_at_a_time
from tunescope.errors import AlignmentError
from tunescope.models import Model
from tunescope.texts import Corpus


@dataclass(frozen=True, eq=False)
class Window:
    """Tokens `start` to `stop` of a document around the row that a latent fires on; rows (stop − start,), −1 where none was kept."""

    latent: int
    row: int
    start: int
    stop: int
    rows: np.ndarray


@dataclass(eq=False)
class Documents:
    """The documents that contexts are cut from, as the model reads them; only those asked for are tokenised."""

    model: Model
    corpus: Corpus
    prompt: str
    max_length: int
    read: dict[int, np.ndarray] = field(default_factory=dict)
    pieces: dict[tuple[int, int], str] = field(default_factory=dict)

    def add(self, numbers: Sequence[int]) -> None:
        """Tokenise these documents, as the pass that made the rows did."""
        new = [number for number in dict.fromkeys(numbers) if number not in self.read]
        if not new:
            return
        texts, ids = [self.corpus.texts[number] for number in new], self.corpus.ids
        found: TokenisedTexts = tokenise(
            self.model, texts, prompt=self.prompt, max_length=self.max_length, special_tokens=True, label=lambda i: f"text {ids[new[i]]}"
        )
        for place, number in enumerate(new):
            self.read[number] = found.ids[found.offsets[place] : found.offsets[place + 1]]

    def check(self, rows: PlacedRows, chosen: Tensor) -> None:
        """Raises AlignmentError where a row's token is not the one that stands there: other texts, prompt or tokenizer."""
        for row in chosen.tolist():
            number, position, token = int(rows.document[row]), int(rows.position[row]), int(rows.token[row])
            ids = self.read[number]
            if position >= len(ids) or ids[position] != token:
                raise AlignmentError(
                    f"row {row:,} is token {token} at position {position} of text {self.corpus.ids[number]}, which reads otherwise here; "
                    "give the texts, prompt and tokenizer that the deltas were made with"
                )

    def shown(self, number: int, start: int, stop: int) -> list[str]:
        """The tokens as they stand in the text: joined, they read as it does."""
        ids = self.read[number]
        return [self._piece(int(ids[at - 1]) if at else -1, int(ids[at])) for at in range(start, stop)]

    def token(self, token: int) -> str:
        """One token of the vocabulary, with the space it begins with."""
        return self._piece(-1, token)

    def _piece(self, before: int, token: int) -> str:
        """What a token adds to the text of the token before it."""
        key = (before, token)
        if key not in self.pieces:
            tokenizer = self.model.tokenizer
            alone = tokenizer.decode([token])
            if before >= 0:
                first, both = tokenizer.decode([before]), tokenizer.decode([before, token])
                alone = both[len(first) :] if both.startswith(first) else alone
            elif str(tokenizer.convert_ids_to_tokens(token)).startswith("▁") and not alone.startswith(" "):
                alone = f" {alone}"
            self.pieces[key] = alone
        return self.pieces[key]


def windows_of(rows: PlacedRows, latents: Sequence[int], strongest: Tensor, *, most: int, around: int) -> dict[int, list[Window]]:
    """Of each latent the windows around its strongest rows (latents, k), −1 for none; a row that lies in a window taken already is no
    second one, so that a phrase is shown once."""
    found: dict[int, list[Window]] = {}
    document, position = rows.document.numpy(), rows.position.numpy()
    for latent, candidates in zip(latents, strongest.tolist(), strict=True):
        taken: list[Window] = []
        for row in (row for row in candidates if row >= 0):
            if len(taken) < most and not any(row in window.rows for window in taken):
                taken.append(_window(document, position, latent, row, around))
        found[latent] = taken
    return found


def _window(document: np.ndarray, position: np.ndarray, latent: int, row: int, around: int) -> Window:
    """A document's rows stand together, in its order, so the rows of a window are neighbours of the row."""
    at = int(position[row])
    start = max(at - around, 0)
    rows = np.full(at + around + 1 - start, -1, dtype=np.int64)
    near = np.arange(max(row - around, 0), min(row + around + 1, len(document)))
    places = position[near].astype(np.int64) - start
    mine = (document[near] == document[row]) & (places >= 0) & (places < len(rows))
    rows[places[mine]] = near[mine]
    return Window(latent, row, start, start + len(rows), rows)


def activations_of(dictionary: Dictionary, rows: PlacedRows, windows: Mapping[int, list[Window]]) -> dict[tuple[int, int], float]:
    """The activation of every (latent, row) in the windows: only the rows in them are encoded, as they pass by a second time."""
    pairs = np.unique(
        np.array([(row, each.latent) for some in windows.values() for each in some for row in each.rows if row >= 0]).reshape(-1, 2), axis=0
    )
    found: dict[tuple[int, int], float] = {}
    if not len(pairs):
        return found
    for start, block in rows.blocks(rows_at_a_time(dictionary)):
        low, high = np.searchsorted(pairs[:, 0], [start, start + len(block)])
        if low == high:
            continue
        mine = pairs[low:high]
        needed, inverse = np.unique(mine[:, 0], return_inverse=True)
        codes = dictionary.encode(block[torch.from_numpy(needed - start)].to(dictionary.decoder.device)).cpu()
        values = codes[torch.from_numpy(inverse), torch.from_numpy(mine[:, 1])]
        found |= {(int(latent), int(row)): value for (row, latent), value in zip(mine, values.tolist(), strict=True)}
    return found


def context(window: Window, documents: Documents, rows: PlacedRows, activations: Mapping[tuple[int, int], float]) -> dict[str, Any]:
    """JSON-able: document and its id, position, activation, tokens, which of them is marked, and the activation on each (None: no row)."""
    number, at = int(rows.document[window.row]), int(rows.position[window.row])
    tokens = documents.shown(number, window.start, min(window.stop, len(documents.read[number])))
    own = [activations.get((window.latent, int(row))) if row >= 0 else None for row in window.rows[: len(tokens)]]
    return {
        "document": number,
        "id": documents.corpus.ids[number],
        "position": at,
        "activation": activations[window.latent, window.row],
        "marked": at - window.start,
        "tokens": tokens,
        "activations": own,
    }
