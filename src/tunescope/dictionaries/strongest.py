"""Which rows make each latent fire most, and how often and how strongly it fires, from rows that pass by once.

Axis legend: m places (row, latent) where a latent fires, n latents, k rows kept of each, s sets of texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.sparse_products import Places, read, written

_NUMBERS = 2**23  # of one block of codes (rows, n): 32 MB, and a few of them at a time
_ROWS = 2048


def rows_at_a_time(dictionary: Dictionary) -> int:
    """How many rows are encoded at once."""
    return max(1, min(_ROWS, _NUMBERS // dictionary.latents))


@dataclass(frozen=True, eq=False)
class Fired:
    """One block of rows as a dictionary reads it: where a latent fires, how strongly, and the growth of the error without it there."""

    places: Places
    values: Tensor  # (m,) float32
    growth: Tensor | None  # (m,) float64: 2 f d·e + f²|d|², None for a dictionary that scales tokens

    @classmethod
    def of(cls, dictionary: Dictionary, x: Tensor) -> Fired:
        """x (rows, d) float32 on the dictionary's device."""
        codes = dictionary.encode(x)
        row, latent = codes.nonzero(as_tuple=True)
        places, values = Places(row, latent, len(x), dictionary.latents), codes[row, latent]
        if dictionary.scaling is not None:
            return cls(places, values, None)
        error = x - dictionary.b_dec - (0 if dictionary.skip is None else x @ dictionary.skip.T)
        if not len(values):
            return cls(places, values, values.double())
        error = error - written(places, values, dictionary.decoder)
        norms = dictionary.decoder.double().square().sum(1)[latent]
        wide, onto = values.double(), read(places, error, dictionary.decoder).double()
        return cls(places, values, 2 * wide * onto + wide.square() * norms)


class Strongest:
    """The k rows (n, k) where each latent fires most, strongest first, of equals the earlier; −1 where there are fewer. Memory: n · k."""

    def __init__(self, latents: int, k: int, device: torch.device | str = "cpu"):
        self.k = k
        self.values = torch.full((latents, k), -torch.inf, device=device)
        self.rows = torch.full((latents, k), -1, dtype=torch.int64, device=device)

    def add(self, row: Tensor, latent: Tensor, values: Tensor) -> None:
        """Places (m,) in the order of their rows, which come after all that were added before."""
        stays = values > self.values[latent, -1]
        row, latent, values = row[stays], latent[stays], values[stays]
        order = values.argsort(descending=True, stable=True)
        order = order[latent[order].argsort(stable=True)]
        row, latent, values = row[order], latent[order], values[order]
        touched, inverse, counts = latent.unique_consecutive(return_inverse=True, return_counts=True)
        rank = torch.arange(len(latent), device=latent.device) - (counts.cumsum(0) - counts)[inverse]
        best = rank < self.k
        new_values = self.values.new_full((len(touched), self.k), -torch.inf)
        new_rows = self.rows.new_full((len(touched), self.k), -1)
        new_values[inverse[best], rank[best]], new_rows[inverse[best], rank[best]] = values[best], row[best]
        joined = torch.cat([self.values[touched], new_values], dim=1).sort(dim=1, descending=True, stable=True)
        self.values[touched] = joined.values[:, : self.k]
        self.rows[touched] = torch.cat([self.rows[touched], new_rows], dim=1).gather(1, joined.indices[:, : self.k])


class FiringSums:
    """Sums over the rows of each latent: how often, how strongly and in how many documents it fires, and what it explains.

    fired, documents (n, s): rows and documents by set; total, highest, growth (n,). A document's rows must follow one another.
    """

    def __init__(self, latents: int, sets: int, device: torch.device | str = "cpu"):
        zeros: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.fired, self.documents = torch.zeros(latents, sets, **zeros), torch.zeros(latents, sets, **zeros)
        self.total, self.growth = torch.zeros(latents, **zeros), torch.zeros(latents, **zeros)
        self.highest = torch.zeros(latents, device=device)
        self.weighed = True
        self._last, self._in_last = -1, torch.zeros(latents, dtype=torch.bool, device=device)

    def add(self, block: Fired, document: Tensor, of_set: Tensor) -> None:
        """One block; document and of_set (rows,) of its rows."""
        row, latent = block.places.row, block.places.latent
        latents, sets = self.fired.shape
        self.fired += torch.bincount(latent * sets + of_set[row], minlength=latents * sets).view(latents, sets)
        self.total += torch.bincount(latent, weights=block.values.double(), minlength=latents)
        self.highest = self.highest.scatter_reduce(0, latent, block.values, "amax")
        if block.growth is None:
            self.weighed = False
        else:
            self.growth += torch.bincount(latent, weights=block.growth, minlength=latents)
        self._add_documents(row, latent, document, of_set)

    def _add_documents(self, row: Tensor, latent: Tensor, document: Tensor, of_set: Tensor) -> None:
        """Documents that began in an earlier block are counted once."""
        latents, sets = self.documents.shape
        number, first = document.unique_consecutive(return_inverse=True)
        begins = torch.zeros(len(number), dtype=torch.int64, device=row.device).scatter_reduce(0, first, of_set, "amax")
        pairs = (first[row] * latents + latent).unique()
        of, which = pairs // latents, pairs % latents
        again = (number[of] == self._last) & self._in_last[which]
        counted = (which * sets + begins[of])[~again]
        self.documents += torch.bincount(counted, minlength=latents * sets).view(latents, sets)
        same = len(number) == 1 and int(number[0]) == self._last
        ends = torch.zeros_like(self._in_last)
        ends[which[of == len(number) - 1]] = True
        self._in_last = ends | self._in_last if same else ends
        self._last = int(number[-1])
