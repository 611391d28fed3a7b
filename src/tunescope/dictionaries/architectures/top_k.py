"""TopK and BatchTopK: the k largest latents of each row fire, or the rows · k largest of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tunescope.dictionaries.architectures.base import Step, Weights
from tunescope.dictionaries.architectures.coded import add_revival, coded_step
from tunescope.dictionaries.architectures.selection import screen, top_of_batch, top_of_rows
from tunescope.dictionaries.firing import Firing, Threshold, TopK

_FORGET = 0.01  # share of the newest batch in the running threshold


@dataclass(frozen=True)
class TopKTraining:
    """Gao et al. 2024, arXiv:2406.04093."""

    k: int

    def begin(self, weights: Weights) -> None:
        """It learns and remembers nothing beside the weights."""

    def step(self, weights: Weights, x: Tensor, dead: Tensor | None) -> Step:
        centred = x - weights.offset
        seen = screen(weights, centred)
        step, error = coded_step(weights, x, centred, *top_of_rows(weights, centred, seen, self.k))
        if dead is not None and len(dead):
            add_revival(step.gradients, weights, centred, seen, error, dead)
        return step

    def firing(self, weights: Weights, scale: float) -> Firing:
        return TopK(self.k)


@dataclass(frozen=True)
class BatchTopKTraining:
    """Bussmann et al. 2024, arXiv:2412.06410. At inference a latent fires above one threshold, the running mean of the smallest
    activation that a batch kept."""

    k: int

    def begin(self, weights: Weights) -> None:
        weights.memory |= {"last": torch.zeros(()), "threshold": torch.zeros(())}

    def step(self, weights: Weights, x: Tensor, dead: Tensor | None) -> Step:
        centred = x - weights.offset
        seen = screen(weights, centred)
        places, pre = top_of_batch(weights, centred, seen, self.k, float(weights.memory["last"]))
        self._remember(weights, pre)
        step, error = coded_step(weights, x, centred, places, pre)
        if dead is not None and len(dead):
            add_revival(step.gradients, weights, centred, seen, error, dead)
        return step

    def firing(self, weights: Weights, scale: float) -> Firing:
        return Threshold(weights.memory["threshold"] * scale, "batchtopk")

    def _remember(self, weights: Weights, pre: Tensor) -> None:
        least = pre.min().relu()
        running = weights.memory["threshold"]
        running.copy_(torch.where(running == 0, least, running.lerp(least, _FORGET)))
        weights.memory["last"].copy_(least)
