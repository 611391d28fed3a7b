"""The rows of all texts, written batch by batch into their final places and checked for NaN and Inf on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.batches import TokenisedTexts
from tunescope.activations.taps import layer_name
from tunescope.errors import ActivationError
from tunescope.models.model import Model

Allocate = Callable[[int | str, int, int], Tensor]  # (layer or site, rows, width) -> a float32 tensor of zeros


def _in_memory(key: int | str, rows: int, width: int) -> Tensor:
    return torch.zeros(rows, width)


class Rows:
    """Preallocated float32 rows by layer and site, in the order the texts were given; `groups` maps token rows to texts.

    allocate: makes the place for a layer's rows when its first batch comes. kept: places that are there already.
    """

    def __init__(
        self,
        model: Model,
        tokens: TokenisedTexts,
        pooling: str,
        label: Callable[[int], str],
        allocate: Allocate = _in_memory,
        kept: dict[int | str, Tensor] | None = None,
    ):
        self.model, self.label, self.n, self.allocate = model, label, len(tokens.lengths), allocate
        self.kept: dict[int | str, Tensor] = dict(kept or {})
        self.groups: Tensor | None = None
        if pooling == "none":
            self.lengths = tokens.counted_lengths
            self.starts = np.cumsum(self.lengths) - self.lengths
            self.groups = torch.from_numpy(np.repeat(np.arange(self.n), self.lengths))

    def put(self, batch: np.ndarray, rows: dict[int | str, Tensor]) -> None:
        """Write the rows of one batch of text numbers. Raises ActivationError when one holds NaN or Inf."""
        texts = torch.from_numpy(batch)
        tokens = texts if self.groups is None else torch.from_numpy(self._token_places(batch))
        for key, values in _to_cpu(rows).items():
            per_text = self.groups is None or key == "output"
            places = texts if per_text else tokens
            if not torch.isfinite(values).all():
                self._refuse(key, values, places, per_text=per_text)
            if key not in self.kept:
                self.kept[key] = self.allocate(key, self.n if per_text else len(self.groups), values.shape[1])
            self.kept[key][places] = values

    def _token_places(self, batch: np.ndarray) -> np.ndarray:
        return np.concatenate([np.arange(self.starts[i], self.starts[i] + self.lengths[i]) for i in batch])

    def _refuse(self, key: int | str, values: Tensor, places: Tensor, *, per_text: bool) -> None:
        bad = ~torch.isfinite(values).all(dim=1)
        row = int(places[bad].min())
        text = row if per_text else int(self.groups[row])
        kind = "NaN" if values[bad].isnan().any() else "Inf"
        place = layer_name(key) if isinstance(key, int) else f"site {key}"
        hint = "float16 overflows easily, try float32" if self.model.dtype == torch.float16 else "the model is damaged or diverged"
        raise ActivationError(f"'{self.model.name}' gives {kind} at {place} for {self.label(text)}; {hint}")


def _to_cpu(rows: dict[int | str, Tensor]) -> dict[int | str, Tensor]:
    """The rows of a batch on the CPU, in their order, with one transfer per device and row count instead of one per layer."""
    moved: dict[int | str, Tensor] = {}
    for count, device in {(len(values), values.device) for values in rows.values()}:
        group = {key: values for key, values in rows.items() if (len(values), values.device) == (count, device)}
        if device.type == "cpu":
            moved |= group
        else:
            joined = torch.cat(list(group.values()), dim=1).cpu()
            moved |= dict(zip(group, joined.split([values.shape[1] for values in group.values()], dim=1), strict=True))
    return {key: moved[key] for key in rows}
