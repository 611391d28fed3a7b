"""What the controls do to the tasks the tuned model was judged by: the same queries, paired with the same base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunescope.comparison.findings import Progress
from tunescope.comparison.tasks import Tasks
from tunescope.models import Model
from tunescope.outcome.embedding import Vectors
from tunescope.outcome.retrieval import retrieval


def control_outcomes(
    controls: Mapping[str, Model], tasks: Tasks, base: Mapping[str, Vectors], *, max_length: int | None, batch_size: int, say: Progress
) -> dict[str, list[dict[str, Any]]]:
    """name of the control -> the main row of every collection, as in `outcomes`. base: the base's vectors, by collection."""
    options: dict[str, Any] = {"margin": tasks.margins["retrieval"], "seed": tasks.seed, "max_length": max_length, "batch_size": batch_size}
    return {
        name: [
            retrieval(base[each.sha256], model, each, **tasks.prompts, **options, progress=say).outcomes[0].row()
            for each in tasks.collections
            if each.sha256 in base
        ]
        for name, model in controls.items()
    }
