"""What the nulls and 95% intervals of the default measures cost beside the measures themselves; Procrustes' ten null draws apart."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pairing import Line, Pairs
from tunescope.geometry import DEFAULT, MEASURES, Rows

THREADS = 1
SIZES = ((1000, 384), (290, 768), (4000, 768))


def lines(repeats: int) -> Iterator[Line]:
    """Both sides start from two arrays and share views among measures: one gives the values alone, the other values, intervals and
    nulls, as a row of the profile does. What the second costs more than the first is the price of nulls and intervals."""
    for n, d in SIZES:
        x, y = one_layer(n, d)
        pairs = Pairs.time(lambda x=x, y=y: everything(x, y), lambda x=x, y=y: values(x, y), repeats)
        extra = Pairs([both - alone for both, alone in zip(pairs.ours, pairs.theirs, strict=True)], pairs.theirs)
        yield extra.costs(f"(d) nulls and intervals, default set, N={n:,}, D={d}", "the measures themselves", target=2.0)


def one_layer(n: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, d + 1).float().rsqrt()
    x = torch.randn(n, d, generator=generator) * scale
    return x, x + 0.3 * torch.randn(n, d, generator=generator) * scale


def values(x: Tensor, y: Tensor) -> list[float]:
    rows = Rows.of(x, y)
    measures = [MEASURES[name] for name in DEFAULT]
    return [measure.value(measure.view(rows)) for measure in measures] + [m.of_base(rows) for m in measures if m.one_sided]


def everything(x: Tensor, y: Tensor) -> None:
    rows = Rows.of(x, y)
    for measure in (MEASURES[name] for name in DEFAULT):
        measure.of_rows(rows)
        if measure.one_sided:
            measure.of_base(rows)
        measure.spread(rows)
        if measure.name != "procrustes":
            measure.chance(rows, seed=0)
