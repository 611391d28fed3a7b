"""The published numbers replayed: every claim recomputed from the tables, beside what was printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import Degenerate, InputError, NotEnoughRows
from tunescope.study.claims import STUDIES, VERDICTS, Claim
from tunescope.study.claims.claim import NONE, Printed
from tunescope.study.published import published_rows
from tunescope.version import __version__

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "tunescope.replay/1"


@dataclass(frozen=True)
class Replay:
    """rows: the claims in the order of the studies. tables: the folder they were recomputed from, None for the bundled ones."""

    rows: tuple[Claim, ...]
    tables: str | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A line a claim: study, claim, recomputed, paper, agrees, words."""
        import pandas as pd

        return pd.DataFrame([claim.describe() for claim in self.rows]).drop(columns="figures")

    @property
    def counts(self) -> dict[str, int]:
        """How many claims agree, do not, were not reported, and cannot be computed from these tables."""
        found = Counter(claim.agrees for claim in self.rows)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def describe(self) -> dict[str, Any]:
        """JSON-able; `figures` of each row are not rounded."""
        about = {"schema": SCHEMA, "tunescope": __version__, "tables": self.tables}
        return about | {"counts": self.counts, "rows": [claim.describe() for claim in self.rows]}

    def show(self) -> None:
        """Print the table to the terminal."""
        from rich.console import Console

        from tunescope.report.replay_table import replay_terminal

        Console().print(replay_terminal(self.describe()))


def replay(tables: str | Path | None = None) -> Replay:
    """Recompute every claim of the published studies that their tables bear on, and say whether it agrees.

    Nothing but the printed claims and their digits is written down here; each figure comes from `study.analyses`, which reads a user's
    ledger alike. A claim that the tables do not give (too few runs, say) is "not computable", with the reason, and the others go on.

    Args: tables: a folder of the same CSV files with other numbers; the bundled tables by default.

    Raises: FormatError for a table that is missing or malformed.
    """
    rows = published_rows(tables)
    claims = [_recomputed(study, claim, held) for study, read, printed in STUDIES for held in [read(rows)] for claim in printed]
    return Replay(tuple(claims), None if tables is None else str(tables))


def _recomputed(study: str, printed: Printed, held: Any) -> Claim:
    try:
        found = printed.recompute(held)
    except (NotEnoughRows, InputError, Degenerate) as error:
        return Claim(study, printed.claim, "–", printed.paper, NONE, str(error))
    return Claim(study, printed.claim, found.recomputed, printed.paper, found.agrees, found.words, found.figures)
