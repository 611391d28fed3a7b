"""`objective_distance`: how far objectives are from what a model was pretrained with, before any of them is trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.comparison.folder import replace_folder
from tunescope.identity import spec_hash
from tunescope.models import load_model, load_pair
from tunescope.records import Record, write_records
from tunescope.training.objective_distance import Progress, distance_request
from tunescope.training.objective_items import objective_items
from tunescope.training.objectives import Objective
from tunescope.training.objectives.reader import LENGTH
from tunescope.training.split_half import SPLITS
from tunescope.training.task_alignment import DRAWS

if TYPE_CHECKING:
    import pandas as pd

FILE = "distance.json"
ITEMS, TASK_ITEMS = 512, 128


@dataclass(frozen=True, repr=False)
class ObjectiveDistances:
    """What `ts.objective_distance` returns. `payload` is exactly distance.json; everything else is a view of it."""

    payload: dict[str, Any]

    @property
    def table(self) -> pd.DataFrame:
        """One row an objective: its distances to the reference (the main one, procrustes, with interval and chance), the size, coherence
        and test of its mean gradient, its cosine with the task where one was given, and why it was refused, where it was."""
        import pandas as pd

        return pd.DataFrame([self._row(row) for row in self.payload["objectives"]]).set_index("objective")

    @property
    def alignment(self) -> pd.DataFrame:
        """One row an objective (or tuned run) and place: the cosine with the task's direction, and its floor; empty without a task."""
        import pandas as pd

        rows = (self.payload["alignment"] or {"rows": []})["rows"]
        cells = [{"name": row["name"], "kind": row["kind"], **cell} for row in rows for cell in (row["overall"], *row["blocks"])]
        return pd.DataFrame(cells)

    @property
    def split_half(self) -> dict[str, dict[str, Any]]:
        """By distance (procrustes, cosine), how far two halves of the items agree on the order of the objectives."""
        return self.payload["split_half"]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before leaning on a number."""
        return self.payload["warnings"]

    @property
    def spec(self) -> str:
        """Hash of what was measured: the model, the items, the objectives with their settings."""
        asked = [row.get("record") or row["name"] for row in self.payload["objectives"]]
        return spec_hash({key: self.payload[key] for key in ("base", "reference", "data")} | {"objectives": asked})

    @property
    def records(self) -> list[Record]:
        """One flat record per number; `tuned` is the objective (or run), `where` the last block's output or the weights of a block."""
        depth = self.payload["base"]["layers"]
        found = [
            self._record(row["name"], ("last block", depth, 1.0), f"gradient_{name}", value, self.payload["data"]["n"])
            for row in self.payload["objectives"] if not row["refused"]
            for name, value in row["distances"].items()
        ]  # fmt: skip
        posed = self.payload["alignment"] or {"rows": [], "task": {"n": 0}}
        for row in posed["rows"]:
            for cell in (row["overall"], *row["blocks"]):
                place = cell["where"], cell["layer"], None if cell["layer"] is None else cell["layer"] / depth
                value = {"value": cell["cosine"], "null": cell["floor"], "null_sd": cell["floor_sd"]}
                found.append(self._record(row["name"], place, "task_alignment", value, posed["task"]["n"]))
        return found

    def _record(self, name: str, place: tuple[str, int | None, float | None], measure: str, value: Mapping[str, Any], n: int) -> Record:
        where, layer, depth = place
        about: dict[str, Any] = {"base": self.payload["base"]["name"], "tuned": name, "where": where, "layer": layer, "depth": depth}
        numbers: dict[str, Any] = {key: value.get(key) for key in ("value", "low", "high", "null", "null_sd")}
        made: dict[str, Any] = {"n": n, "spec": self.spec, "tunescope": self.payload["tunescope"]}
        return Record(**about, **numbers, **made, measure=measure, change=None, noise=None)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"objective": row["name"], "refused": row["refused"]}
        if row["refused"]:
            return found
        for name, value in row["distances"].items():
            found[name] = value["value"]
        found |= {f"procrustes_{key}": row["distances"]["procrustes"][key] for key in ("low", "high", "null")}
        found |= {key: row["gradient"][key] for key in ("norm", "coherence", "coherence_chance", "noise", "nonzero")}
        posed = (self.payload["alignment"] or {"rows": []})["rows"]
        overall = next((one["overall"] for one in posed if one["name"] == row["name"] and one["kind"] == "objective"), None)
        return found | ({} if overall is None else {"task_cosine": overall["cosine"], "task_floor": overall["floor"]})

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the payload."""
        return self.payload

    def show(self) -> None:
        """Print the tables to the terminal."""
        from rich.console import Console

        from tunescope.report.objective_lines import distance_terminal

        Console().print(distance_terminal(self.payload))

    def html(self) -> str:
        """The report: one self-contained page."""
        from tunescope.report.objective_page import render_distances

        return render_distances(self.payload)

    def __repr__(self) -> str:
        names = ", ".join(row["name"] for row in self.payload["objectives"] if not row["is_reference"])
        return f"<ObjectiveDistances of {names} from {self.payload['reference']['name']}, {self.payload['base']['name']}>"

    def save(self, folder: str | Path) -> Path:
        """Write distance.json, report.html and records.jsonl to a folder, all or nothing.

        An earlier result of ours in that folder is replaced; a folder that holds anything else is refused.

        Raises: OutputError.
        """
        with replace_folder(folder) as draft:
            text = json.dumps(self.payload, indent=1, ensure_ascii=False, allow_nan=False)
            (draft / FILE).write_text(text + "\n", encoding="utf-8")
            (draft / "report.html").write_text(self.html(), encoding="utf-8")
            write_records(self.records, draft / "records.jsonl")
        return Path(folder)


def objective_distance(
    model: Any,
    objectives: str | Iterable[str | Objective],
    *,
    texts: Any = None,
    pairs: Any = None,
    labels: Any = None,
    column: str | None = None,
    reference: str | Objective | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    items: int = ITEMS,
    batch_size: int = 32,
    max_length: int = LENGTH,
    seed: int = 0,
    splits: int = SPLITS,
    task: Any = None,
    task_items: int = TASK_ITEMS,
    tuned: Any = None,
    draws: int = DRAWS,
    pretraining: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> ObjectiveDistances:
    """Distances of objectives to what the checkpoint was pretrained with, by the gradients they send into its last block.

    On one sequence of items, G = ∂loss/∂h at the last block's output, mean over real tokens, one row an item (two views, or both sides of a
    pair, summed). Row i is n·∂L/∂h of the loss as one mean over all n items, so that neither batches nor lengths matter to losses that are
    sums over items; a loss of a batch is one of batches of `batch_size`. Every objective is taken as it trains, dropout included.

    Args:
        model: a hub id, a folder, or anything `ts.load_model` reads.
        objectives: names ("mlm", "simcse", …) or Objective instances; one that model or items cannot serve is a row with the reason.
        texts, pairs, labels: what is read. A path, a list, or None for Python's own documentation; pairs of (query, passage), and then
            every objective runs on their texts; labels, a column or one class a text, for classify.
        reference: the objective to measure from; by default the checkpoint's pretraining objective.
        settings: of objectives by name, such as {"mlm": {"head": "fitted"}}, whose head is fitted with the body frozen before it is read.
        items: how many at most, chosen by hash with the seed.
        splits: random halves for the agreement of the order.
        task: a retrieval Collection or its folder, Labelled texts or FILE:COLUMN: where each objective would move the blocks' weights
            against where the task's loss would, with the task shuffled `draws` times as chance. task_items: read of it.
        tuned: a run of this base, whose ΔW is aligned with the task too.
        pretraining: what the checkpoint was pretrained with, where its name does not tell.

    Raises: InputError, ModelError, TextsError, NotEnoughRows, UnknownName, and what loading raises.

    Reference: the definition follows the depth study's objective distance; the tests, intervals and refusals are ours.
    """
    names = [part.strip() for part in objectives.split(",") if part.strip()] if isinstance(objectives, str) else list(objectives)
    sequence = objective_items(texts, pairs, labels, column=column, items=items, batch_size=batch_size, seed=seed)
    loading: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code, "pretraining": pretraining}
    base, run = (load_model(model, **loading), None) if tuned is None else load_pair(model, tuned, **loading)
    asked: dict[str, Any] = {"reference": reference, "settings": settings, "task": task, "task_items": task_items, "tuned": run}
    more: dict[str, Any] = {"max_length": max_length, "splits": splits, "draws": draws}
    request = distance_request(base, names, sequence, **asked, **more)
    return ObjectiveDistances(request.measure() if progress is None else request.measure(progress))
