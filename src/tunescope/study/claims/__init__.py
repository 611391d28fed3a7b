"""The claims of three studies, each beside what their tables give: every row of the table that `study replay` prints."""

from __future__ import annotations

from tunescope.study.claims import depth, drift, layers
from tunescope.study.claims.claim import VERDICTS, Claim

# A study's name, what reads its rows, and its claims in the order printed.
STUDIES = tuple((part.STUDY, read, part.CLAIMS) for part, read in (
    (depth, depth.DepthTables), (drift, drift.DriftTables), (layers, layers.LayerTables),
))  # fmt: skip

__all__ = ["STUDIES", "VERDICTS", "Claim"]
