"""What a model will be judged by, as a loss with gradients: finding passages, or telling classes apart with a fitted probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunescope.errors import InputError, NotEnoughRows
from tunescope.models import Model
from tunescope.outcome.logistic import Problem, solve
from tunescope.texts import Collection, read_collection, read_texts
from tunescope.texts.labelled import Labelled, labelled
from tunescope.training.objective_gradients import Weights, block_weights, collated, wanting
from tunescope.training.objectives import Classify, Contrastive, Learner, Objective
from tunescope.training.objectives.classify import CLASSES
from tunescope.training.objectives.embedding import resolved_pooling

FEWEST = 8
PROBE_C = 1.0  # of the logistic regression whose weights the loss runs through


@dataclass(frozen=True)
class EvaluationTask:
    """A loss without dropout over `items`; where there are `fitting` items, a probe is fitted to those first and held still.

    kind: "retrieval" (InfoNCE of a query and one relevant passage, the other passages of the batch as negatives) or "probe"
    (cross-entropy of held-out texts under a logistic regression on the training texts).
    """

    kind: str
    name: str
    objective: Objective
    items: tuple[Any, ...]
    fitting: tuple[Any, ...]
    total: int
    source: str
    sha256: str

    def shuffled(self, seed: int) -> EvaluationTask:
        """The same texts without the task: which passage or which class belongs to which text is drawn anew."""
        generator = torch.Generator().manual_seed(seed)
        return replace(self, items=_repaired(self.items, generator), fitting=_repaired(self.fitting, generator))

    def descent(self, model: Model, *, batch_size: int, max_length: int, progress: Callable[[int, int], None] | None = None) -> Weights:
        """−∂L/∂W of the blocks' weights, float32 by name, L the mean over all items."""
        with model.active():
            learner, wanted = Learner(model, self.objective, max_length=max_length).eval(), block_weights(model)
            if self.fitting:
                _fit_probe(learner, self.fitting, batch_size)
            total: Weights = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in wanted.items()}
            parts = _batches(len(self.items), batch_size)
            with wanting(learner, wanted.values()):
                for number, places in enumerate(parts):
                    loss = learner.loss(collated(learner, [self.items[place] for place in places], seed=0)).value
                    found = torch.autograd.grad(loss * (len(places) / len(self.items)), list(wanted.values()), allow_unused=True)
                    for name, gradient in zip(total, found, strict=True):
                        if gradient is not None:
                            total[name] -= gradient.float()
                    if progress is not None:
                        progress(number + 1, len(parts))
            return total

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {"kind": self.kind, "name": self.name, "objective": self.objective.describe(), "n": len(self.items), "of": self.total,
                "fitted_on": len(self.fitting), "source": self.source, "sha256": self.sha256}  # fmt: skip


def evaluation_task(task: Any, model: Model, *, items: int, seed: int, contrastive: Contrastive | None = None) -> EvaluationTask:
    """The task of a Collection (or its folder), or of Labelled texts (or FILE:COLUMN); at most `items` of it, chosen with the seed.

    contrastive: temperature, prompts and pooling of a retrieval loss; by default those of the objective of that name.

    Raises: InputError, NotEnoughRows, and what reading the files raises.
    """
    found = _read(task) if isinstance(task, str | Path) else task
    if isinstance(found, Collection):
        objective = contrastive or Contrastive()
        objective.check(model)
        return _retrieval(found, objective, items, seed)
    if isinstance(found, Labelled):
        return _probe(found, model, items, seed)
    raise InputError(f"task is a {type(task).__name__}; give a retrieval collection (a BEIR folder), or labelled texts as FILE:COLUMN")


def _read(task: str | Path) -> Collection | Labelled:
    place, _, after = str(task).rpartition(":")
    if place and Path(place).is_file():
        return labelled(read_texts(place), after)
    if Path(task).is_file():
        raise InputError(f"--task {task}: a file; a folder is a retrieval collection, labelled texts are {task}:COLUMN")
    return read_collection(task)


def _retrieval(found: Collection, objective: Contrastive, items: int, seed: int) -> EvaluationTask:
    """One query a passage: a passage that two queries share would be a negative of its own."""
    documents, chosen = dict(zip(found.doc_ids, found.doc_texts, strict=True)), dict[str, tuple[str, str]]()
    for id, text in zip(found.query_ids, found.query_texts, strict=True):
        grades = found.qrels[id]
        best = max(grades, key=grades.__getitem__)
        if grades[best] > 0 and documents[best].strip():
            chosen.setdefault(best, (text, documents[best]))
    pairs = _some(list(chosen.values()), items, seed)
    return EvaluationTask("retrieval", found.name, objective, _enough(pairs, found.source, "queries with a passage of their own"), (),
                          len(found.query_ids), found.source, found.sha256)  # fmt: skip


def _probe(found: Labelled, model: Model, items: int, seed: int) -> EvaluationTask:
    rows = list(zip(found.texts, found.labels, strict=True))
    train, held = ([row for row, test in zip(rows, found.test, strict=True) if test == side] for side in (False, True))
    objective = Classify(classes=len(found.classes), pooling=resolved_pooling(model, "auto"))
    name = f"{Path(found.source).name}:{found.column}"
    chosen = _enough(_some(held, items, seed), found.source, "held-out texts")
    return EvaluationTask("probe", name, objective, chosen, tuple(train), len(held), found.source, found.sha256)


def _some(rows: list[Any], items: int, seed: int) -> tuple[Any, ...]:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:items].tolist()
    return tuple(rows[place] for place in order)


def _enough(rows: tuple[Any, ...], source: str, what: str) -> tuple[Any, ...]:
    if len(rows) < FEWEST:
        raise NotEnoughRows(f"{source}: {len(rows)} {what}; the direction of a task needs at least {FEWEST}")
    return rows


def _repaired(rows: Sequence[Any], generator: torch.Generator) -> tuple[Any, ...]:
    order = torch.randperm(len(rows), generator=generator).tolist()
    return tuple((first, rows[place][1]) for (first, _), place in zip(rows, order, strict=True))


def _batches(n: int, batch_size: int) -> list[list[int]]:
    return [part.tolist() for part in torch.arange(n).tensor_split(-(-n // batch_size))]


def _fit_probe(learner: Learner, rows: Sequence[Any], batch_size: int) -> None:
    """Put the logistic regression of the pooled states on the classes into the learner's head, standardisation folded in."""
    states = torch.cat([_embedded(learner, [rows[place] for place in places]) for places in _batches(len(rows), batch_size)]).double()
    mean, sd = states.mean(0), states.std(0).clamp_min(1e-12)
    labels = torch.tensor([label for _, label in rows], device=states.device)
    head = learner.heads[CLASSES]
    fit = solve([Problem((states - mean) / sd, labels, head.out_features)], [PROBE_C])[0][0]
    weights = fit.weights.double() / sd.unsqueeze(1)
    with torch.no_grad():
        head.weight.copy_(weights.T)
        head.bias.copy_(fit.intercept.double().flatten() - mean @ weights)


@torch.no_grad()
def _embedded(learner: Learner, rows: list[Any]) -> Tensor:
    batch = collated(learner, rows, seed=0)
    return learner.embed(learner.read(batch["ids"], batch["mask"]), learner.objective.pooling)
