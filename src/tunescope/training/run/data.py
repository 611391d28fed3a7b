"""What a run reads, in which order: everything follows from the seed, the epoch and the place, so that a resumed run reads the same."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from tunescope.training.objectives import Learner

Keys = tuple[frozenset[Hashable], frozenset[Hashable]]  # own texts, hard negatives
Place = tuple[int, int, int]  # epoch, position in the epoch, number of the item


class RunData(Dataset):
    """Items of an objective, made of one column a need: the leading one is read once an epoch, the others are read along beside it.

    columns: sequences of entries. Those that do not lead go round and round, shuffled anew each time.
    """

    def __init__(self, columns: Sequence[Sequence[Any]], *, seed: int, leading: int = 0):
        self.columns, self.seed, self.leading = columns, seed, leading

    def __len__(self) -> int:
        return len(self.columns[self.leading])

    def __getitem__(self, place: Place) -> tuple[Place, Any]:
        epoch, position, number = place
        item = tuple(
            column[number] if which == self.leading else self._beside(which, epoch * len(self) + position)
            for which, column in enumerate(self.columns)
        )
        return place, item if len(item) > 1 else item[0]

    def _beside(self, which: int, place: int) -> Any:
        entries = self.columns[which]
        return entries[shuffled(len(entries), self.seed + which, place // len(entries))[place % len(entries)]]


class RunOrder(Sampler[Place]):
    """The places of one epoch after another: a new order each, by seed and epoch.

    keys: per item, its own texts and its hard negatives. No two items of one batch share one of their own, nor is one's own another's
    negative, since it would count against itself; where it can be helped, such items go to a later batch.
    """

    def __init__(self, count: int, *, seed: int, batch: int, keys: Sequence[Keys] | None = None):
        self.count, self.seed, self.batch, self.keys, self.epoch = count, seed, batch, keys, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next; the Trainer says so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Place]:
        order = shuffled(self.count, self.seed, self.epoch)
        order = order if self.keys is None else _apart(order, self.keys, self.batch)
        epoch = self.epoch
        return ((epoch, position, number) for position, number in enumerate(order))


class RunCollator:
    """Places and items to the batch of an objective; its draws follow from the seed and the places."""

    def __init__(self, learner: Learner, *, seed: int):
        self.learner, self.seed = learner, seed

    def __call__(self, rows: Sequence[tuple[Place, Any]]) -> dict[str, Any]:
        places = [place for place, _ in rows]
        digest = hashlib.blake2b(repr((self.seed, places)).encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        return {"batch": self.learner.collate([item for _, item in rows], generator)}


@lru_cache(maxsize=16)
def shuffled(count: int, seed: int, turn: int) -> list[int]:
    """A permutation of `count` numbers, by the seed and the turn."""
    digest = hashlib.blake2b(f"{seed} {turn}".encode(), digest_size=7).digest()
    return torch.randperm(count, generator=torch.Generator().manual_seed(int.from_bytes(digest, "big"))).tolist()


def _apart(order: Sequence[int], keys: Sequence[Keys], batch: int) -> list[int]:
    """The order with items put off that get into the way of one of their batch; what is left over at the end is put where it falls."""
    left, found = list(order), list[int]()
    while left:
        taken, put_off, owned, against = list[int](), list[int](), set[Hashable](), set[Hashable]()
        for place, number in enumerate(left):
            if len(taken) == batch:
                put_off += left[place:]
                break
            own, negatives = keys[number]
            if own & owned or own & against or negatives & owned:
                put_off.append(number)
            else:
                taken.append(number)
                owned |= own
                against |= negatives
        taken, left = (taken, put_off) if len(taken) == batch else (taken + put_off, [])
        found += taken
    return found
