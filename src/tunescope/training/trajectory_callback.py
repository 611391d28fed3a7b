"""A run watched as it moves: measures against its start and outcomes at chosen points, for any Trainer of transformers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tunescope.errors import ActivationError, InputError
from tunescope.folders import writable_folder
from tunescope.geometry import MEASURES
from tunescope.models import Model
from tunescope.training.trained_model import in_shards, put_together, trained_model
from tunescope.training.trajectory_file import FILE, GEOMETRY, Row, Start, plateau, read_rows, write_rows
from tunescope.training.trajectory_geometry import Reading
from tunescope.training.trajectory_log import geometry_logs, log, outcome_logs
from tunescope.training.trajectory_outcomes import at_start, read_tasks, tasks_identity
from tunescope.training.trajectory_points import Cost, Points, Spending, check_share
from tunescope.training.trajectory_stop import StopRule, make_no_step
from tunescope.training.untouched import finish, untouched

MEASURED = ("nps", "debiased_cka", "relative_drift")
_SHORT = 60.0  # seconds of training below which every measurement is dear, and none costs anybody time
_SOURCE = "<tunescope>"  # where warnings say they are from: no line of ours says more than their sentence


class TrajectoryCallback(TrainerCallback):
    """Measure a model against its start while it trains: `Trainer(..., callbacks=[ts.TrajectoryCallback(texts)])`.

    Works in any transformers.Trainer, on a PreTrainedModel or PeftModel, in SentenceTransformerTrainer, and on a Learner. Training goes on
    bit for bit as without it. The rows are in `rows` and, as of every point, in trajectory.jsonl of the run's folder, which
    `ts.read_trajectory` reads; the Trainer's loggers get trajectory/<measure>/<place> and trajectory/<kind>/<name>/<metric>. Beside it lie
    the rows of the start, so that a resumed run is measured against the real start, and at given points ends with the same file as one
    that was not interrupted.

    Args:
        texts: fixed texts: a path, a list of strings, or None for 256 paragraphs of Python's documentation. All of them are read.
        measures: names of measures. Values and the mean of chance are recorded, without intervals.
        steps, epochs: when to measure: a number (every so many) or a list; fractions of an epoch are allowed. The start is always
            measured. With neither, points are spaced evenly so that measuring costs at most `budget` of the training time; these depend
            on the speed of the machine, so give points where two runs must agree.
        layers, sites: which layers (0 … L, all by default) and sites (output, final), read in one pass.
        max_length: in tokens. None: 64 (or the model's own where that is less) for measures, and the model's own for outcomes.
        retrieval: collections, as `ts.retrieval` takes them; nDCG@10 and the other metrics, paired by query with the start.
        labels, test: a column of the texts that holds classes, and further texts to be judged by; a strong and a weak probe of the
            deployed embedding, paired by held-out text with the start.
        budget: the share of training time that geometry may take. Given points are measured whatever they cost; a run of a minute
            or more warns once.
        outcome_budget: the same for outcomes. None: at every given point, else as `budget`.
        stop: "retrieval/scifact/ndcg@10: worse" stops when the paired verdict is worse and the loss is beyond the margin (.01);
            "…: drop>.02" when it is larger than that. On outcomes only.
        out: the folder; None is the Trainer's output_dir.
        tokenizer: where the Trainer has no processing_class.

    Raises: InputError (points, budgets, stop), UnknownName, NotEnoughRows, and what reading the texts and collections raises; when
        training begins ModelError (sharded weights), OutputError, AlignmentError (resumed with other texts, measures, places, outcomes or
        points).
    """

    def __init__(
        self,
        texts: Any = None,
        *,
        measures: Iterable[str] | str = MEASURED,
        steps: int | Iterable[int] | None = None,
        epochs: float | Iterable[float] | None = None,
        layers: Iterable[int] | None = None,
        sites: Iterable[str] = ("output",),
        pooling: str = "mean",
        max_length: int | None = None,
        batch_size: int = 32,
        retrieval: Any = (),
        labels: str | None = None,
        test: Any = None,
        budget: float = 0.05,
        outcome_budget: float | None = None,
        stop: str | None = None,
        out: str | Path | None = None,
        seed: int = 0,
        tokenizer: Any = None,
    ):
        check_share("budget", budget)
        check_share("outcome_budget", outcome_budget)
        self._points = Points.of(steps, epochs)
        if self._points is None and math.isinf(budget):
            raise InputError("budget=inf asked for without points; say when to measure (steps=… or epochs=…), or give a share")
        self._reading = Reading.of(
            texts, measures, layers=layers, sites=sites, pooling=pooling, max_length=max_length, batch_size=batch_size, seed=seed
        )
        read: dict[str, Any] = {"pooling": pooling, "max_length": max_length, "batch_size": batch_size, "seed": seed}
        places: dict[str, Any] = {"layers": self._reading.layers, "sites": self._reading.sites}
        self._tasks = read_tasks(retrieval, labels, test, self._reading.corpus, **places, **read)
        self._rule = None if stop is None else StopRule.of(stop, self._tasks)
        self._budgets = budget, outcome_budget
        self._out, self._tokenizer = out, tokenizer
        self._model: Model | None = None
        self.rows: list[Row] = []
        self.stopped: str | None = None
        self._began: float | None = None
        self._ended: float | None = None
        self._anew(0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the start, or what is kept of it."""
        self._model, self.rows, self.stopped = None, [], None
        self._anew(state.global_step, state.epoch or 0.0)
        if state.is_world_process_zero:
            self._model = trained_model(kwargs["model"], self._tokenizer or kwargs.get("processing_class"), args)
            self._folder = writable_folder(self._out or args.output_dir)
            self._folder.mkdir(parents=True, exist_ok=True)
        with put_together(kwargs["model"]):
            if self._model is not None:
                with untouched(self._model.module):
                    self._resume(state) if state.global_step else self._begin(state)
        if state.global_step:
            self._judge(state, control)
            self._stop_together(args, control)
            if self._rule is not None and control.should_training_stop and state.global_step < state.max_steps:
                make_no_step()
        self._began = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the epoch, to see which points the step passes."""
        self._before = state.epoch or 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where a point is due."""
        geometry, outcomes = self._due_here(args, state, kwargs["model"])
        if geometry or outcomes:
            with put_together(kwargs["model"]):
                if self._model is not None:
                    self._measure(self._model, state, control, geometry=geometry, outcomes=outcomes)
        self._stop_together(args, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say where the budget did not fit the run."""
        self._ended = time.perf_counter()
        if self._model is None:
            return
        cost = self.cost()
        self._warn_dear(cost.share, cost.outcome_share, cost.training)
        if self._points is None and self._spending.count < 2 and self.stopped is None:
            self._warn(
                "short",
                f"a budget of {self._budgets[0]:.0%} left no time to measure in a run of {cost.training:.1f} s (a point takes "
                f"{self._spending.each:.1f} s); say when (steps=… or epochs=…), raise budget, or give fewer texts",
            )

    def ends_at(self, step: int, rows: Iterable[Row]) -> str | None:
        """The stop rule and the step, where the rows of that step meet it."""
        met = self._rule is not None and any(self._rule.met(row) for row in rows if row["step"] == step)
        return f"{self._rule.said} at step {step:,}" if self._rule is not None and met else None

    def cost(self) -> Cost:
        """What measuring has cost since training began (or went on), the reading of the start with it."""
        now = time.perf_counter() if self._ended is None else self._ended
        one, two = self._spending, self._judging
        return Cost(0.0 if self._began is None else now - self._began - self._spent, one.spent, two.spent, one.count, two.count)

    def plateaus(self, *, tolerance: float = 0.05) -> dict[str, dict[str, int | None]]:
        """measure -> place -> the step from which the distance to the start grew no further; see `ts.plateau`."""
        found: dict[str, dict[str, int | None]] = {}
        for row in self.rows:
            name = row.get("measure")
            if row["kind"] == GEOMETRY and row["step"] == 0 and name is not None and not MEASURES[name].one_sided:
                step = plateau(self.rows, measure=name, where=row["where"], tolerance=tolerance)
                found.setdefault(name, {})[row["where"]] = step
        return found

    def _anew(self, step: int, epoch: float) -> None:
        """The books of a session that begins at this step."""
        budget, judging = self._budgets
        self._spending = Spending(budget, at=step)
        self._judging = Spending(judging or (math.inf if self._points else budget), at=step)
        self._first, self._before, self._said = step, epoch, set[str]()
        self._began, self._ended = None, None
        self._spent = 0.0  # seconds of measuring since training began

    def _begin(self, state: Any) -> None:
        model, started = self._alive, time.perf_counter()
        identity = self._identity(model)
        weights = model.identity()["weights_sha256"]
        reading = time.perf_counter()
        rows = self._reading.rows(model)
        each = time.perf_counter() - reading
        self._start = Start(identity, weights, rows)
        self._enter(state, self._reading.measured(rows, rows, model.anatomy.n_layers))
        self._spending.measured(0, time.perf_counter() - started, each=1.25 * each)  # a point also compares
        if self._tasks:
            started = time.perf_counter()
            scores = {key: task.scores(model) for key, task in self._tasks.items()}
            self._start = Start(identity, weights, rows, scores)
            found = [(key, at_start(row)) for key, task in self._tasks.items() for row in task.outcomes(scores[key], scores[key])]
            self._enter(state, [outcome.row() for _, outcome in found])
            self._judging.measured(0, time.perf_counter() - started)
            log(outcome_logs(found))
        self._start.save(self._folder)
        write_rows(self.rows, self._folder)

    def _resume(self, state: Any) -> None:
        try:
            self._start = Start.load(self._folder)
        except FileNotFoundError:
            raise InputError(
                f"training goes on from step {state.global_step:,}, and '{self._folder}' holds no rows of its start; resume in the folder "
                "of a run that had this callback (out=…), or begin anew"
            ) from None
        self._start.check(self._identity(self._alive), self._folder)
        kept = read_rows(self._folder) if (self._folder / FILE).is_file() else []
        self.rows = [row for row in kept if row["step"] <= state.global_step]
        write_rows(self.rows, self._folder)

    def _identity(self, model: Model) -> dict[str, Any]:
        points = "as the budget has it" if self._points is None else self._points.describe()
        return self._reading.identity(model) | tasks_identity(self._tasks) | {"points": points}

    @property
    def _alive(self) -> Model:
        if self._model is None:
            raise InputError("the callback has no model yet; it gets one when a Trainer begins to train")
        return self._model

    def _due(self, state: Any) -> tuple[bool, bool]:
        step, epoch = state.global_step, state.epoch or 0.0
        pace: dict[str, Any] = {"first": self._first, "last": state.max_steps, "trained": self.cost().training}
        point = self._points.due(step, epoch, self._before) if self._points else self._spending.due(step, **pace)
        if self._points or not self._tasks:
            return point, point and bool(self._tasks)
        return point, self._judging.due(step, **pace)

    def _due_here(self, args: Any, state: Any, module: Any) -> tuple[bool, bool]:
        """What this process has a part in: all of them where each has a part of the weights, else the main one."""
        due = self._due(state) if self._model is not None else (False, False)
        if not in_shards(module):
            return due
        flags = torch.tensor(due, dtype=torch.int32, device=args.device)
        torch.distributed.broadcast(flags, src=0)
        geometry, outcomes = flags.tolist()
        return bool(geometry), bool(outcomes)

    def _measure(self, model: Model, state: Any, control: Any, *, geometry: bool, outcomes: bool) -> None:
        finish(model.device)
        started = time.perf_counter()
        with untouched(model.module):
            logs = self._geometry(model, state) if geometry else {}
            between = time.perf_counter()
            logs |= self._outcomes(model, state, control) if outcomes else {}
            write_rows(self.rows, self._folder)
            log(logs, control)
        ended = time.perf_counter()
        self._spent += ended - started
        if geometry:
            self._spending.measured(state.global_step, between - started + (0 if outcomes else ended - between))
        if outcomes:
            self._judging.measured(state.global_step, ended - between)
        if self._points is not None:
            self._foresee(state, self._points)

    def _geometry(self, model: Model, state: Any) -> dict[str, float]:
        depth = model.anatomy.n_layers
        try:
            rows = self._reading.measured(self._start.rows, self._reading.rows(model), depth)
        except ActivationError as error:  # the run has diverged, and going on is the Trainer's affair
            rows = self._reading.unmeasured(self._start.identity["places"], depth, str(error))
            self._warn("geometry", f"step {state.global_step:,} was not measured: {error}")
        self._enter(state, rows)
        return geometry_logs(rows)

    def _outcomes(self, model: Model, state: Any, control: Any) -> dict[str, float]:
        try:
            scores = {key: task.scores(model) for key, task in self._tasks.items()}
        except ActivationError as error:
            self._warn("outcomes", f"no outcome was measured at step {state.global_step:,}: {error}")
            return {}
        found = [(key, row) for key, task in self._tasks.items() for row in task.outcomes(dict(self._start.scores[key]), scores[key])]
        self._enter(state, [outcome.row() for _, outcome in found])
        self._judge(state, control)
        return outcome_logs(found)

    def _judge(self, state: Any, control: Any) -> None:
        if said := self.ends_at(state.global_step, self.rows):
            self.stopped, control.should_training_stop = said, True

    def _enter(self, state: Any, rows: Sequence[Row]) -> None:
        at = {"step": state.global_step, "epoch": state.epoch or 0.0}
        self.rows += [{"kind": row["kind"], **at, **{key: value for key, value in row.items() if key != "kind"}} for row in rows]

    def _foresee(self, state: Any, points: Points) -> None:
        """Warn once it is clear that the given points will cost more than the budget."""
        done = state.global_step - self._first
        left = points.left(state.global_step, state.epoch or 0.0, state.max_steps)
        whole = self.cost().training * (state.max_steps - self._first) / done
        geometry, outcomes = ((each.spent + left * each.each) / whole for each in (self._spending, self._judging))
        self._warn_dear(geometry, outcomes, whole)

    def _warn_dear(self, geometry: float, outcomes: float, seconds: float) -> None:
        """Shares of a training that takes so many seconds."""
        budget, judging = self._budgets
        shares = (("geometry", geometry, budget), ("outcomes", outcomes, judging))
        dear = [(what, share, most) for what, share, most in shares if most is not None and share > most]
        if dear and self._points is not None and seconds >= _SHORT:
            what, share, most = dear[0]
            self._warn(
                "dear",
                f"the given points cost {share:.0%} of the training time for {what}, more than the {most:.0%} of its budget; they are "
                "measured all the same: give fewer points, texts or layers, or leave steps and epochs out and the budget spaces them",
            )

    def _warn(self, what: str, message: str) -> None:
        """Each kind of warning once a run."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn_explicit(message, UserWarning, _SOURCE, 1)

    def _stop_together(self, args: Any, control: Any) -> None:
        """Under torchrun only the main process measures, and all must stop at the same step."""
        if self._rule is None or getattr(args, "world_size", 1) < 2:
            return
        flag = torch.tensor([int(control.should_training_stop)], device=args.device)
        torch.distributed.broadcast(flag, src=0)
        control.should_training_stop = bool(flag.item())
