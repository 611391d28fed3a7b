"""From a plan's sources to what the calls that read them take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunescope.study.run_spec import Source

DOCUMENTATION = "python-docs"  # the documentation that ships with Python, which every machine has


def texts_of(source: Source, *, seed: int = 0) -> Any:
    """A Corpus. The sample is the plan's, the same for every run, whatever the run's own seed. Raises TextsError."""
    from tunescope.texts import as_corpus

    place = None if source.place == DOCUMENTATION else source.place
    return as_corpus(place, column=source.column, sample=source.sample, seed=seed)


def pairs_of(source: Source) -> Any:
    """Pairs, as `ts.read_pairs` reads them. Raises TextsError."""
    from tunescope.texts import as_pairs

    return as_pairs(Path(source.place))


def revision_of(source: Source) -> dict[str, Any]:
    """JSON-able: what tells this source from another of the same name."""
    return {"name": source.name, "sample": source.sample, "sha256": source.sha256, "revision": source.revision}
