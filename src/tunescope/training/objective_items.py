"""The one sequence of items that every objective reads, whatever it makes of an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunescope.errors import InputError, NotEnoughRows, TextsError, UnknownName
from tunescope.texts import as_corpus
from tunescope.texts.pairs import as_pairs
from tunescope.training.objectives.base import LABELS, PAIRS, TEXTS, Objective

FEWEST = 10  # five items a half, the fewest that Procrustes is defined on
_GIVE = {
    PAIRS: "learns from pairs; give pairs (--pairs), and every objective runs on their texts",
    LABELS: "learns from labelled texts; give texts with labels (--labels)",
}


@dataclass(frozen=True)
class ObjectiveItems:
    """Items in the order and the batches in which every objective reads them.

    kind: "texts", "pairs" or "labels". items: strings, (query, passage[, negatives]), or (text, class number). total: how many there were
    before a sample was taken.
    """

    kind: str
    items: tuple[Any, ...]
    classes: tuple[str, ...]
    batch_size: int
    source: str
    sha256: str
    total: int
    seed: int
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def batches(self) -> list[tuple[int, ...]]:
        """Places of the items of each batch: as few batches as the size allows, of nearly equal length, so that none is left of one."""
        count = -(-len(self.items) // self.batch_size)
        return [tuple(part.tolist()) for part in torch.arange(len(self.items)).tensor_split(count)]

    def refusal(self, objective: Objective) -> str | None:
        """Why these items are nothing `objective` can learn from; None where they are."""
        for need in objective.needs:
            if need not in (TEXTS, self.kind):
                why = _GIVE.get(need, f"learns from {need}, and the other objectives from texts; leave it out")
                return f"{objective.name} {why}"
        if self.kind == PAIRS and len(set(objective.needs)) > 1:
            return f"{objective.name} takes pairs and texts at once, which here are the same; compare its parts one by one"
        return None

    def entries(self, objective: Objective, places: Sequence[int]) -> tuple[list[Any], Tensor]:
        """What `objective` collates for these items, and for each entry the place in `places` of the item it is of.

        Both texts of a pair are entries of an objective that learns from texts.
        """
        chosen = [self.items[place] for place in places]
        owners = torch.arange(len(chosen))
        columns = [self._column(need, chosen) for need in objective.needs]
        if self.kind == PAIRS and TEXTS in objective.needs:
            owners = owners.repeat(2)
        return (columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))), owners

    def _column(self, need: str, chosen: list[Any]) -> list[Any]:
        if need == self.kind:
            return chosen
        if self.kind == PAIRS:
            return [item[0] for item in chosen] + [item[1] for item in chosen]
        return [item[0] for item in chosen]

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind, "n": len(self), "of": self.total, "source": self.source, "sha256": self.sha256,
                "classes": len(self.classes) or None, "batch_size": self.batch_size, "seed": self.seed}  # fmt: skip


def objective_items(
    texts: Any, pairs: Any, labels: Any, *, column: str | None = None, items: int, batch_size: int, seed: int
) -> ObjectiveItems:
    """The items: pairs, or texts, or texts with labels; at most `items` of them, chosen by hash with the seed, in an order of that seed.

    texts: a path, a list, or None for Python's own documentation. labels: a column of the texts' file, or one class a text.

    Raises: InputError (texts and pairs, or labels and pairs; sizes), TextsError, UnknownName, NotEnoughRows.
    """
    if pairs is not None and (texts is not None or labels is not None):
        raise InputError(f"pairs and {'texts' if texts is not None else 'labels'} were both given; every objective reads one set: give one")
    for name, value, least in (("items", items, FEWEST), ("batch_size", batch_size, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name}={value!r} asked for; give a whole number from {least}")
    if pairs is not None:
        given = as_pairs(pairs)
        chosen = given.sample(items, seed=seed)
        found = ObjectiveItems(PAIRS, tuple(chosen.items), (), batch_size, given.source, chosen.sha256, len(given), seed, given.warnings)
    else:
        corpus = as_corpus(texts, column=column)
        rows = corpus.chosen(items, seed=seed) if items < len(corpus) else list(range(len(corpus)))
        kept, names = corpus.rows(rows), [] if labels is None else _labels(corpus, labels)
        classes = tuple(sorted(set(names)))
        if labels is not None and len(classes) < 2:
            raise TextsError(f"{corpus.source}: one class only, '{classes[0]}'; classification needs two or more")
        place = {name: number for number, name in enumerate(classes)}
        made = kept.texts if labels is None else tuple((corpus.texts[row], place[names[row]]) for row in rows)
        kind = TEXTS if labels is None else LABELS
        found = ObjectiveItems(kind, made, classes, batch_size, corpus.source, kept.sha256, len(corpus), seed, corpus.warnings)
    if len(found) < FEWEST:
        raise NotEnoughRows(f"{found.source}: {len(found)} {found.kind}; an objective distance needs at least {FEWEST}")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    mixed = tuple(found.items[row] for row in order)  # neighbours in a file are often alike, and would be each other's negatives
    return ObjectiveItems(found.kind, mixed, found.classes, batch_size, found.source, found.sha256, found.total, seed, found.warnings)


def _labels(corpus: Any, labels: Any) -> list[str]:
    if isinstance(labels, str):
        if labels not in corpus.columns:
            raise UnknownName(f"column of labels in {corpus.source}", labels, corpus.columns)
        cells = list(corpus.columns[labels])
    else:
        cells = list(labels)
    if len(cells) != len(corpus):
        raise InputError(f"{len(cells):,} labels were given for {len(corpus):,} texts; give one a text")
    missing = next((row for row, cell in enumerate(cells) if cell is None or cell != cell or not str(cell).strip()), None)
    if missing is not None:
        raise TextsError(f"{corpus.source}: {corpus.ids[missing]} has no label; fill it in or take the row out")
    return [str(cell).strip() for cell in cells]
