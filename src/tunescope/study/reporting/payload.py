"""The whole payload: what ran, what was found, what it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.study.reporting.among import among_published
from tunescope.study.reporting.choices import PRINTED
from tunescope.study.reporting.conditions import condition_sections
from tunescope.study.reporting.depth import depth_sections
from tunescope.study.reporting.distances import distance_sections
from tunescope.study.reporting.layers import feature_sections, layer_sections
from tunescope.study.reporting.plain import plain
from tunescope.study.row import COLUMNS
from tunescope.version import __version__

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "tunescope.study-report/1"
SECTIONS = (
    "profiles",
    "slopes",
    "steps",
    "widths",
    "signs",
    "shares",
    "distances",
    "conditions",
    "matched",
    "anchors",
    "trajectories",
    "layers",
    "features",
    "among",
)


def study_payload(
    rows: pd.DataFrame,
    *,
    name: str | None = None,
    runs: Iterable[Mapping[str, Any]] = (),
    left_out: int = 0,
    verdicts: Sequence[Mapping[str, Any]] = (),
    deviations: Sequence[str] | None = None,
    sealed: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    blocks: Mapping[str, str] | None = None,
    created: datetime | None = None,
) -> dict[str, Any]:
    """Everything that the page of a study shows, JSON-able: counts, runs, verdicts, a list of entries for each of SECTIONS, provenance.

    Every entry has `study`; an analysis that cannot be computed has its `reason`. A study of which there is nothing for a section has no
    entry in it.

    Args:
        rows: of a ledger (`read_ledger`) or the published tables (`published_rows`).
        runs: how far each is, as `study status` describes it; without, those of the rows are all that is known. left_out: how many others
            the ledger had, of which no row is here.
        verdicts, deviations, sealed: as the registration of the study gives them; deviations None where nothing is known of them.
        plan: name, about, sha256. blocks: "parallel" or "sequential" by model's name.
    """
    found: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for study, part in rows.groupby("study", sort=False, dropna=False):
        made = (
            depth_sections(part, blocks=blocks or {})
            | condition_sections(part)
            | {
                "distances": distance_sections(part),
                "layers": layer_sections(part),
                "features": feature_sections(part),
                "among": among_published(part),
            }
        )
        for section, entries in made.items():
            found[section] += [{"study": str(study)} | entry for entry in entries]
    studies = [str(study) for study in rows["study"].dropna().unique()]
    return plain(
        {
            "schema": SCHEMA,
            "tunescope": __version__,
            "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
            "name": name or ", ".join(studies) or "a study",
            "studies": studies,
            "plan": plan,
            "sealed": sealed,
            "verdicts": list(verdicts),
            "deviations": None if deviations is None else list(deviations),
            "runs": _runs(rows, list(runs)) | {"left_out": left_out},
            **found,
            "provenance": _provenance(rows),
        }
    )


def _runs(rows: pd.DataFrame, known: list[Mapping[str, Any]]) -> dict[str, Any]:
    """How many are done, failed and not yet done; what they cost, by kind and model."""
    held = rows[rows["subject"].isin(("geometry", "outcome", "features")) & (rows["measure"] != PRINTED)].drop_duplicates("run")
    kinds = []
    for (kind, model), group in held.groupby(["kind", "model"], sort=True):
        seconds, peak = group["wall_s"].dropna(), group["peak_mb"].dropna()
        kinds.append(
            {
                "kind": kind,
                "model": model,
                "runs": len(group),
                "conditions": int(group["condition"].nunique()),
                "seeds": int(group["seed"].nunique()),
                "seconds": float(seconds.sum()) if len(seconds) else None,
                "peak_mb": float(peak.max()) if len(peak) else None,
            }
        )
    states = {state: [run for run in known if run["state"] == state] for state in ("done", "failed", "running", "queued")}
    counts = {state: len(listed) for state, listed in states.items()} if known else {"done": len(held)}
    failed = [{"name": run["name"], "error": (list(run.get("errors") or ()) or ["no reason was told"])[-1]} for run in states["failed"]]
    waiting = [
        {"name": run["name"], "state": run["state"], "step": run.get("step"), "steps": run.get("steps")}
        for state in ("running", "queued")
        for run in states[state]
    ]
    return {"total": len(known) or len(held), "counts": counts, "failed": failed, "unfinished": waiting, "kinds": kinds}


def _provenance(rows: pd.DataFrame) -> dict[str, Any]:
    versions = rows.drop_duplicates(["run", "versions"])["versions"].fillna("").value_counts()
    return {
        "rows": len(rows),
        "rows_sha256": _hash(rows),
        "identities": int(rows["identity"].nunique()),
        "texts": sorted(rows["texts"].dropna().astype(str).unique()),
        "versions": [{"versions": name or "not told", "runs": int(count)} for name, count in versions.items()],
        "schemas": sorted(rows["schema"].dropna().astype(str).unique()),
    }


def _hash(rows: pd.DataFrame) -> str:
    """sha256 of the rows' own hashes, sorted, so that it does not depend on their order; what a run cost is left out."""
    import pandas as pd

    kept = rows[[name for name in COLUMNS if name not in ("wall_s", "peak_mb")]]
    own = pd.util.hash_pandas_object(kept, index=False).to_numpy(dtype="<u8")
    return hashlib.sha256(np.sort(own).tobytes()).hexdigest()
