"""A finished comparison: what was found, as tables, as a page, as a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.comparison.folder import replace_folder
from tunescope.errors import FormatError
from tunescope.identity import spec_hash
from tunescope.records import Record, write_records

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "tunescope.comparison/1"
FILE = "comparison.json"


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `ts.diff` returns. `payload` is exactly comparison.json; everything else is a view of it."""

    payload: dict[str, Any]

    @property
    def headline(self) -> str:
        """The finding in a sentence or two."""
        return self.payload["headline"]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before leaning on a number."""
        return self.payload["warnings"]

    @property
    def outcomes(self) -> list[dict]:
        """Measured outcomes; empty when nothing was measured about function."""
        return self.payload.get("outcomes", [])

    @property
    def profile(self) -> pd.DataFrame:
        """One row per layer: name, depth, status, and per measure its value, change, low, high, null and null_sd.

        The state after the final norm and the deployed embedding are no layers: see `sites`. No row where only embeddings were compared.
        """
        return _table(self.payload["layers"], "index")

    @property
    def sites(self) -> pd.DataFrame:
        """The same columns, less index and depth, for `final` (after the final norm) and `output` (as deployed), indexed by these names."""
        return _table([row | {"name": name} for name, row in self.payload["sites"].items()], "name")

    @property
    def cross(self) -> pd.DataFrame:
        """Base layers (rows) against tuned layers (columns), linear CKA; empty where there are no layers."""
        import pandas as pd

        cross = self.payload["cross"] or {"values": [], "base_names": [], "tuned_names": []}
        return pd.DataFrame(cross["values"], index=cross["base_names"], columns=cross["tuned_names"], dtype=float)

    @property
    def spec(self) -> str:
        """Hash of what was measured: both models, the data and how they were read."""
        keys = ("base", "tuned", "data")
        return spec_hash({key: self.payload[key] for key in keys} | {"measures": sorted(self.payload["measures"])})

    @property
    def records(self) -> list[Record]:
        """One flat record per number."""
        sites = [{"name": name, "index": None, "depth": None} | row for name, row in self.payload["sites"].items()]
        return [
            Record(
                base=self.payload["base"]["name"],
                tuned=self.payload["tuned"]["name"],
                where=row["name"],
                layer=row["index"],
                depth=row["depth"],
                measure=measure,
                **{key: cell.get(key) for key in ("value", "change", "low", "high", "null", "null_sd", "noise")},
                n=self.payload["data"]["n"],
                spec=self.spec,
                tunescope=self.payload["tunescope"],
            )
            for row in [*self.payload["layers"], *sites]
            for measure, cell in row["measures"].items()
        ]

    def show(self) -> None:
        """Print the headline and the table to the terminal."""
        from rich.console import Console

        from tunescope.report import terminal

        Console().print(terminal(self.payload))

    def html(self) -> str:
        """The report: one self-contained page."""
        from tunescope.report import render

        return render(self.payload)

    def _repr_html_(self) -> str:
        from html import escape

        style = "width:100%;height:900px;border:0"
        return f'<iframe srcdoc="{escape(self.html(), quote=True)}" style="{style}" title="tunescope report"></iframe>'

    def __repr__(self) -> str:
        return f"<Comparison of {self.payload['base']['name']} and {self.payload['tuned']['name']}: {self.headline}>"

    def save(self, folder: str | Path, *, figures: bool = False) -> Path:
        """Write comparison.json, report.html and records.jsonl (and figures/) to a folder, all or nothing.

        An earlier result of ours in that folder is replaced; a folder that holds anything else is refused.

        Raises: OutputError.
        """
        with replace_folder(folder) as draft:
            text = json.dumps(self.payload, indent=1, ensure_ascii=False, allow_nan=False)
            (draft / FILE).write_text(text + "\n", encoding="utf-8")
            (draft / "report.html").write_text(self.html(), encoding="utf-8")
            write_records(self.records, draft / "records.jsonl")
            if figures:
                from tunescope.report import figures as draw

                draw(self.payload, draft / "figures")
        return Path(folder)


def _table(places: list[dict[str, Any]], index: str) -> pd.DataFrame:
    """One row per place, one column per number; `index` names the column that is the index."""
    import pandas as pd

    about = [*(("index", "name", "depth") if index == "index" else ("name",)), "status", "identical", "saturated"]
    rows: list[dict[str, Any]] = []
    for place in places:
        row = {key: place[key] for key in about}
        for measure, cell in place["measures"].items():
            row[measure] = cell["value"]
            row |= {f"{measure}_{key}": cell[key] for key in ("change", "low", "high", "null", "null_sd")}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else about).set_index(index)


def load(folder: str | Path) -> Comparison:
    """Read a saved comparison: its folder, or the comparison.json itself.

    Raises: FormatError when there is none, or its schema is not one this version reads.
    """
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"no {FILE} in '{folder}'; give the folder a comparison was saved to") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"'{path}' is not a saved comparison ({error})") from None
    found = payload.get("schema") if isinstance(payload, dict) else None
    if found != SCHEMA:
        raise FormatError(f"'{path}' has schema {found!r}; this version reads {SCHEMA!r}")
    return Comparison(payload)
