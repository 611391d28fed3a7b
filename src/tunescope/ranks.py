"""Processes that share one comparison: who of how many this one is, and the two ways their results come together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process is `rank` of `count` in torch's default process group; alone by default, and then nothing is communicated."""

    rank: int = 0
    count: int = 1

    @classmethod
    def of_group(cls) -> Ranks:
        """The ranks of torch's default process group; alone where there is none."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's items: every count-th."""
        return items[self.rank :: self.count]

    def sum(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all ranks, in place."""
        if self.count > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor

    def all(self, mine: Sequence[Item]) -> list[Item]:
        """The items of all ranks in their order, from each rank's `share`."""
        if self.count == 1:
            return list(mine)
        from torch import distributed

        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, list(mine))
        return [parts[at % self.count][at // self.count] for at in range(sum(map(len, parts)))]


ALONE = Ranks()


@contextmanager
def started_by_torchrun() -> Iterator[Ranks]:
    """The ranks that torchrun's environment names, with their group (gloo: rows are on the CPU) for the time of the block."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        yield Ranks.of_group()
    finally:
        distributed.destroy_process_group()
