"""Published numbers, with their source: the tables of four studies, copied from print (see SOURCE.md)."""

from tunescope.reference.columns import COLUMNS, Columns
from tunescope.reference.folder import table
from tunescope.reference.tables import CONDITIONS, DEPTH_STUDY, EQUAL_STEP, TABLES, PublishedRun, runs, widths

__all__ = [
    "COLUMNS",
    "CONDITIONS",
    "DEPTH_STUDY",
    "EQUAL_STEP",
    "TABLES",
    "Columns",
    "PublishedRun",
    "runs",
    "table",
    "widths",
]
