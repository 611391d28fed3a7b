"""Data that does not fit: the exact cross-layer map of many rows, and a profile of rows that pass by, each with its peak of memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from memory import in_fresh_process, peak_above
from pairing import Line, duration

THREADS = 1
LAYERS, N, D = 13, 20_000, 768
GIGABYTE = 1e9
FEW, MANY = 20_000, 200_000
STREAMED, WIDTH, BLOCK = 7, 384, 2048
SLACK = 1.25  # the allocator's own; what is held is the same


def lines(repeats: int) -> Iterator[Line]:
    found = in_fresh_process("scale", "cross_map", threads=THREADS)
    inputs = 2 * LAYERS * N * D * 4
    item = f"(3) cross-layer CKA {LAYERS}×{LAYERS}, N={N:,}, D={D}, exact"
    note = f"{found['bytes']:,} bytes above inputs of {inputs:,}; {duration(found['seconds'])}; error to float64 {found['error']:.1e}"
    above = found["bytes"] / GIGABYTE
    yield Line(item, "memory above the inputs", f"{above * 1e3:,.0f} MB", "1,000 MB", f"{above:.2f}", "≤ 1", above <= 1, note)
    few, many = (in_fresh_process("scale", "profile", n, threads=THREADS) for n in (FEW, MANY))
    item = f"(3) profile of {MANY:,} rows passing by, {STREAMED} layers, D={WIDTH}"
    rows = 2 * STREAMED * MANY * WIDTH * 4
    note = f"{many['bytes']:,} bytes, where the rows would be {rows:,}; {duration(many['seconds'])}, making the rows included"
    ratio = many["bytes"] / few["bytes"]
    cells = [f"{side['bytes'] / 1e6:,.0f} MB" for side in (many, few)]
    yield Line(item, f"the memory of {FEW:,} rows", *cells, f"{ratio:.2f}", f"≤ {SLACK}", ratio <= SLACK, note)


def layer(index: int, generator: torch.Generator, n: int, d: int) -> Tensor:
    """Rows with an offset and a 1/k spectrum, another one for every layer."""
    rows = torch.randn(n, d, generator=generator)
    return rows.mul_(torch.arange(1, d + 1).float().rsqrt()).add_(0.1 * index)


def cross_map() -> dict:
    """The exact map of two models whose rows are in memory; bytes are what it needs beyond them."""
    import tunescope as ts

    generator = torch.Generator().manual_seed(0)
    xs = [layer(i, generator, N, D) for i in range(LAYERS)]
    ys = [x + 0.1 * (i + 1) * torch.randn(N, D, generator=generator) for i, x in enumerate(xs)]
    result: list[Tensor] = []
    start = time.perf_counter()
    used = peak_above(lambda: result.append(ts.cross_cka(xs, ys)))
    seconds = time.perf_counter() - start
    errors = [abs(float(result[0][i, i]) - ts.cka(xs[i], ys[i])) for i in (0, LAYERS - 1)]
    return {"bytes": used, "seconds": seconds, "error": max(errors)}


def profile(n: int) -> dict:
    """Values, intervals and chance of the default measures that stream, of n rows a layer of which a block at a time exists."""
    from tunescope.geometry import DEFAULT, MEASURES
    from tunescope.geometry.stream import Passage, PassedRows

    measures = [MEASURES[name] for name in DEFAULT if MEASURES[name].streams]

    def passed() -> None:
        generator = torch.Generator().manual_seed(0)
        totals: list[Passage | None] = [None] * STREAMED
        kept = 1000 // -(-n // BLOCK)
        for start in range(0, n, BLOCK):
            rows = min(BLOCK, n - start)
            for index in range(STREAMED):
                x = layer(index, generator, rows, WIDTH)
                y = x + 0.1 * (index + 1) * torch.randn(rows, WIDTH, generator=generator)
                piece, total = Passage.of(x, y, keep=torch.arange(min(kept, rows))), totals[index]
                totals[index] = piece if total is None else total + piece
        for total in totals:
            for measure in measures:
                measure.estimate(PassedRows(total))

    start = time.perf_counter()
    return {"bytes": peak_above(passed), "seconds": time.perf_counter() - start}
