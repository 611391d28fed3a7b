"""A finished comparison of features: its tables and its dictionaries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.dictionaries import Dictionary
from tunescope.dictionaries.formats import read_dictionary

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class FeatureComparison:
    """What `ts.features` returns. `payload` is exactly features.json; everything else is a view of it, or read from the folder."""

    payload: dict[str, Any]
    folder: Path

    @property
    def quality(self) -> pd.DataFrame:
        """One row a layer, tuned model and seed: how well its dictionary rebuilds held-out deltas."""
        return self._table("quality")

    @property
    def alignment(self) -> pd.DataFrame:
        """One row a comparison with the base's dictionary: value, floor, ceiling, interval, verdict."""
        return self._table("alignment")

    @property
    def controls(self) -> pd.DataFrame:
        """The controls in the same columns."""
        return self._table("controls")

    @property
    def verdicts(self) -> pd.DataFrame:
        """New, reused, partly reused, nothing or undecided, by layer and tuned model, and why."""
        return self._table("verdicts")

    @property
    def flags(self) -> list[dict[str, Any]]:
        """What must not be believed alone, in words."""
        return self.payload["flags"]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before leaning on a number."""
        return self.payload["warnings"]

    def dictionary(self, layer: int, name: str | None = None, *, seed: int | None = None) -> Dictionary:
        """One of the trained dictionaries, read from the folder; the first that fits. Raises KeyError when none does."""
        for row in self.payload["dictionaries"]:
            if row["layer"] == layer and name in (None, row["name"]) and seed in (None, row["seed"]):
                return read_dictionary(self.folder / row["folder"])
        raise KeyError(f"no dictionary of layer {layer}, {name or 'any model'}, seed {'any' if seed is None else seed}")

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        return pd.json_normalize(self.payload[name])
