"""Published numbers, with their source: the tables of four studies, copied from print (see SOURCE.md)."""

from tunescope.reference.tables import CONDITIONS, DEPTH_STUDY, EQUAL_STEP, TABLES, PublishedRun, runs, table, widths

__all__ = ["CONDITIONS", "DEPTH_STUDY", "EQUAL_STEP", "TABLES", "PublishedRun", "runs", "table", "widths"]
