"""The dictionaries of a comparison: those of the deltas, of its controls, and of the base where none was given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tunescope.comparison.features.request import Request
from tunescope.comparison.features.rows import BASE
from tunescope.dictionaries import DeltaStore, Dictionary, train_sae
from tunescope.dictionaries.formats import save_dictionary
from tunescope.dictionaries.formats.hook_points import residual_hook
from tunescope.errors import NotEnoughRows

Progress = Callable[[str, int, int], None]


def staged(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """The progress of one stage, for what knows of no other."""
    return None if progress is None else lambda done, total: progress(stage, done, total)


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains what is asked for, each from its checkpoint in `folder`, and tells how far it is."""

    request: Request
    folder: Path
    device: str
    progress: Progress | None

    def train(self, rows: Any, *, label: str, file: str, width: int, seeds: tuple[int, ...]) -> list[Dictionary]:
        """One dictionary a seed, of stored rows or a tensor. Raises as `ts.train_sae`, naming what was trained.

        Each has a start of its own (`start_of`): two dictionaries that began at the same weights are alike for that alone.
        """
        asked, starts = self.request, tuple(start_of(seed, label) for seed in seeds)

        def tell(done: int, total: int, figures: dict[str, Any]) -> None:
            if self.progress is not None:
                self.progress(f"dictionaries of {label}", done, total)

        try:
            trained = train_sae(
                rows, latents=asked.latents_for(width), k=asked.k_for(width), architecture=asked.architecture, seeds=starts,
                steps=asked.steps, data_seed=asked.data_seed, device=self.device, progress=tell,
                checkpoint=self.folder / f"{file}.safetensors",
            )  # fmt: skip
        except NotEnoughRows as error:
            raise NotEnoughRows(f"{label}: {error}") from error
        pairs = zip(trained, seeds, starts, strict=True)
        return [
            replace(one, name=one.name.replace(f"seed{start}", f"seed{seed}"), metadata=one.metadata | {"seed": seed, "start": start})
            for one, seed, start in pairs
        ]

    def of_store(self, store: DeltaStore, layer: int, name: str, *, seeds: tuple[int, ...]) -> list[Dictionary]:
        """Of the training rows of one layer and delta."""
        rows = store.rows(layer, name, "train")
        return self.train(rows, label=f"layer {layer} {name}", file=f"delta.{layer}.{name}", width=rows.width, seeds=seeds)

    def of_rows(self, rows: Tensor, layer: int, name: str, *, control: str) -> Dictionary:
        """Of a control's rows in memory, from the first seed."""
        label, file = f"layer {layer} {name}, {control}", f"{control}.{layer}.{name}"
        return self.train(rows, label=label, file=file, width=rows.shape[1], seeds=self.request.seeds[:1])[0]


def start_of(seed: int, label: str) -> int:
    """The seed of the weights that a dictionary begins with, of the seed asked for and of what it is trained on."""
    return int(hashlib.sha256(f"{label} {seed}".encode()).hexdigest()[:8], 16)


def keep(dictionaries: list[Dictionary], folder: Path, *, layer: int, name: str, model: str) -> list[str]:
    """Write them in SAELens' format; the folders, relative to `folder`."""
    places = []
    for dictionary in dictionaries:
        place = Path("dictionaries", name, f"layer-{layer}", f"seed-{dictionary.metadata['seed']}")
        said = dictionary if name == BASE else replace(dictionary, metadata=dictionary.metadata | {"delta_of": name})
        save_dictionary(said, folder / place, model=model, hook_name=residual_hook(layer))
        places.append(place.as_posix())
    return places
