"""`weight_profile`: which weights tuning moved, and how far, without running either model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.comparison.folder import replace_folder
from tunescope.comparison.weight_profile import weight_profile as profile_of
from tunescope.errors import ModelError
from tunescope.identity import versions
from tunescope.models import load_pair

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "tunescope.weights/1"
FILE = "weights.json"


@dataclass(frozen=True, repr=False)
class WeightProfile:
    """What `ts.weight_profile` returns. `payload` is exactly weights.json; everything else is a view of it."""

    payload: dict[str, Any]

    @property
    def blocks(self) -> pd.DataFrame:
        """One row per block (0: the embeddings): relative_change, stable_rank, effective_rank, most_changed, frozen."""
        return self._table("blocks")

    @property
    def matrices(self) -> pd.DataFrame:
        """One row per matrix: block, shape, relative_change, stable_rank, effective_rank, frozen."""
        return self._table("matrices")

    @property
    def slope(self) -> float | None:
        """Least-squares slope of the blocks' relative change on relative depth."""
        return self.payload["weights"]["slope"]

    def show(self) -> None:
        """Print the table to the terminal."""
        from rich.console import Console

        from tunescope.report.weight_table import weights_terminal

        Console().print(weights_terminal(self.payload))

    def save(self, folder: str | Path) -> Path:
        """Write weights.json to a folder, all or nothing; an earlier result of ours there is replaced, a folder of anything else refused.

        Raises: OutputError.
        """
        with replace_folder(folder) as draft:
            text = json.dumps(self.payload, indent=1, ensure_ascii=False, allow_nan=False)
            (draft / FILE).write_text(text + "\n", encoding="utf-8")
        return Path(folder)

    def _table(self, key: str) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.payload["weights"][key]).set_index("name")

    def __repr__(self) -> str:
        moved = [row for row in self.payload["weights"]["blocks"] if not row["frozen"]]
        said = f"{len(moved)} of {len(self.payload['weights']['blocks'])} parts changed"
        return f"<WeightProfile of {self.payload['base']['name']} and {self.payload['tuned']['name']}: {said}>"


def weight_profile(
    base: Any,
    tuned: Any = None,
    *,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    tuned_revision: str | None = None,
    trust_remote_code: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> WeightProfile:
    """Which weights were moved, and how far: |ΔW|/|W|, stable and effective rank and exact freezing, per block and matrix.

    base, tuned and the options mean what they do in `ts.diff`; neither model is run and no texts are needed. An adapter counts as its
    merged model would.

    Raises: ModelError when the two have another depth, width or names; else as `ts.load_pair`.
    """
    base, tuned = (None, base) if tuned is None else (base, tuned)
    pair = load_pair(
        base, tuned, revision=revision, tuned_revision=tuned_revision, device=device, dtype=dtype, trust_remote_code=trust_remote_code
    )
    found = profile_of(*pair, progress=progress)
    if "reason" in found:
        raise ModelError(f"no weight profile: {found['reason']}; `diff` compares their representations all the same")
    return WeightProfile(
        {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "tunescope": versions()["tunescope"],
            "base": pair[0].identity(),
            "tuned": pair[1].identity(),
            "weights": found,
            "warnings": list(dict.fromkeys(warning for model in pair for warning in model.warnings)),
            "versions": versions(),
        }
    )
