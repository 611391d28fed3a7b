"""Signs: how often a slope is positive, and how often two measures agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.errors import NotEnoughRows
from tunescope.stats import sign_test
from tunescope.study.analyses.rows import each_once, finite, grouped, needs

if TYPE_CHECKING:
    import pandas as pd

_RUN = ("study", "run", "side", "texts", "epoch", "step")


@dataclass(frozen=True)
class Signs:
    """Values above, below and at 0, of n, and the exact two-sided p that above and below are as likely; left_out: lines without one."""

    positive: int
    negative: int
    zero: int
    n: int
    p: float
    left_out: int = 0


@dataclass(frozen=True)
class SignAgreement:
    """In how many of n curves two measures' slopes have one sign; exceptions: the others, a line each; left_out: those without a slope."""

    agree: int
    n: int
    exceptions: pd.DataFrame
    left_out: int


def signs(table: pd.DataFrame, value: str = "slope") -> Signs:
    """Count the signs of a column. Raises NotEnoughRows when it holds no number."""
    known, lost = finite(table, value)
    x = known[value].to_numpy(dtype="float64")
    return Signs(int((x > 0).sum()), int((x < 0).sum()), int((x == 0).sum()), len(x), sign_test(x), lost)


def sign_counts(table: pd.DataFrame, value: str = "slope", *, by: Sequence[str] = ()) -> pd.DataFrame:
    """`signs` of every group: the columns `by` and those of `Signs`.

    Seeds and checkpoints of one run are no independent trials; average them first (`over_seeds`) where p is to mean something.
    """
    import pandas as pd

    known, _ = finite(table, value)
    lines: list[dict[str, Any]] = []
    for key, group in grouped(table, by):
        if key == () or group.index.isin(known.index).any():
            lines.append(dict(zip(by, key, strict=True)) | vars(signs(group, value)))
    return pd.DataFrame(lines)


def sign_agreement(table: pd.DataFrame, measures: tuple[str, str] = ("procrustes", "cka"), value: str = "slope") -> SignAgreement:
    """Compare the signs of a column of `profiles` under two measures, run by run; a slope of 0 agrees with 0 only.

    Raises: NotEnoughRows when no run was read under both, InputError for one read twice under one.
    """
    needs(table, *_RUN, "measure", value)
    both = table[table["measure"].isin(measures)]
    each_once(both, [*_RUN, "measure"], f"values of {value}")
    first, second = (both[both["measure"] == measure] for measure in measures)
    pairs = first.merge(second[[*_RUN, value]], on=list(_RUN), suffixes=("", "_other"))
    if pairs.empty:
        raise NotEnoughRows(f"no run was read under both {measures[0]} and {measures[1]}")
    known, lost = finite(pairs, value, f"{value}_other")
    same = np.sign(known[value].to_numpy()) == np.sign(known[f"{value}_other"].to_numpy())
    about = [name for name in ("model", "objective", "update", "condition", "seed", *_RUN) if name in known]
    named = known.loc[~same, [*about, value, f"{value}_other"]].rename(columns={value: measures[0], f"{value}_other": measures[1]})
    return SignAgreement(int(same.sum()), len(known), named.sort_values(about, kind="stable", ignore_index=True), lost)
