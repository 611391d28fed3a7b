"""Depth curves out of rows: every run's change from the first block to the last, as matrices.

Axis legend: r curves, l depths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunescope.errors import InputError, NotEnoughRows, UnknownName
from tunescope.geometry.published import NOMINAL_DEPTHS, published_profile
from tunescope.study.analyses.rows import choose, last_checkpoints, needs

if TYPE_CHECKING:
    import pandas as pd

AXES = ("blocks", "published")
# What a curve is of, and what is said of it besides.
IDENTITY = ("study", "run", "measure", "side", "texts", "epoch", "step")
FACTORS = ("study", "model", "condition", "objective", "update", "regime", "data", "seed", "run", "kind", "measure", "side", "texts",
           "epoch", "step")  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Curves read at the same depths. depths (l,) ascending; changes (r, l); lines (r,): their lines in the table of curves."""

    depths: np.ndarray
    changes: np.ndarray
    lines: np.ndarray


@dataclass(frozen=True)
class Curves:
    """about: a line a curve, FACTORS and `reason`, why it is in none of the grids; sorted by IDENTITY. grids: the curves themselves."""

    about: pd.DataFrame
    grids: tuple[Grid, ...]


def curves(rows: pd.DataFrame, *, measure: str | None = None, axis: str = "blocks", checkpoint: str = "last") -> Curves:
    """The depth curves of a ledger.

    Rows of geometry with a depth above 0 are the blocks; the embeddings, the state after the final norm and the deployed embedding are
    no part of a curve. A curve with a block of no change (refused, say) is in no grid, and `reason` names the block.

    Args:
        measure: of that one only. checkpoint: "last" of each run, or "all".
        axis: "blocks" for every block at its own depth; "published" for the depth study's seven depths, on which curves of models of
            different depth can be averaged: block round(d·L) from 12 blocks on, interpolated below (`geometry.published`).

    Raises: NotEnoughRows when there is no such row, InputError for a block measured twice or without a depth, UnknownName for an axis.
    """
    if axis not in AXES:
        raise UnknownName("axis", axis, AXES)
    needs(rows, *FACTORS, "subject", "depth", "layer", "where", "change")
    geometry = choose(rows, subject="geometry") if measure is None else choose(rows, subject="geometry", measure=measure)
    _depths_known(geometry)
    places = last_checkpoints(geometry[geometry["depth"].notna()], checkpoint)
    if not (places["depth"] > 0).any():
        raise NotEnoughRows(f"no row of geometry{f' under {measure}' if measure else ''} is of a block, so there is no depth curve")
    found = _grids(places)
    return found if axis == "blocks" else _on_published_axis(found, places)


def _depths_known(geometry: pd.DataFrame) -> None:
    lost = geometry["layer"].notna() & geometry["depth"].isna()
    if lost.any():
        raise InputError(f"{int(lost.sum())} rows have a layer and no depth; depth is the block's number over the number of blocks")


def _codes(places: pd.DataFrame) -> np.ndarray:
    """The number of each row's curve, in the order of IDENTITY."""
    return places.groupby(list(IDENTITY), dropna=False, sort=True, observed=True).ngroup().to_numpy()


def _grids(places: pd.DataFrame) -> Curves:
    blocks = places[places["depth"].to_numpy() > 0]
    codes, depth = _codes(blocks), blocks["depth"].to_numpy(dtype="float64")
    order = np.lexsort((depth, codes))
    codes, depth, change = codes[order], depth[order], blocks["change"].to_numpy(dtype="float64")[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    about = blocks[list(FACTORS)].iloc[order[starts]].reset_index(drop=True)
    twice = np.flatnonzero((np.diff(codes) == 0) & (np.diff(depth) == 0))
    if len(twice):
        line, where = about.iloc[codes[twice[0]]], blocks["where"].iloc[order[twice[0]]]
        raise InputError(f"{where} of {line.model}, {line.condition} has two values of {line.measure}; a ledger must hold each number once")
    about["reason"] = None
    lost = np.flatnonzero(~np.isfinite(change))
    for index in lost[np.unique(codes[lost], return_index=True)[1]]:
        about.loc[codes[index], "reason"] = f"no change at {blocks['where'].iloc[order[index]]}"
    lengths = np.diff(starts, append=len(codes))
    grids = [grid for length in np.unique(lengths) for grid in _of_length(length, starts, lengths, depth, change)]
    return Curves(about, tuple(grids))


def _of_length(length: int, starts: np.ndarray, lengths: np.ndarray, depth: np.ndarray, change: np.ndarray) -> list[Grid]:
    """The curves of so many blocks, a grid for each set of depths."""
    lines = np.flatnonzero(lengths == length)
    at = starts[lines][:, None] + np.arange(length)
    lines, at = (each[np.isfinite(change[at]).all(1)] for each in (lines, at))
    if not len(lines):
        return []
    kinds, kind = np.unique(depth[at], axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    return [Grid(kinds[k], change[at[kind == k]], lines[kind == k]) for k in range(len(kinds))]


def _on_published_axis(found: Curves, places: pd.DataFrame) -> Curves:
    embeddings, about, grids = _embeddings(found, places), found.about.copy(), []
    for grid in found.grids:
        blocks = len(grid.depths)
        if grid.depths.tolist() == list(NOMINAL_DEPTHS):
            grids.append(grid)
        elif blocks < 2 or not np.allclose(grid.depths, np.arange(1, blocks + 1) / blocks):
            about.loc[grid.lines, "reason"] = f"the published axis needs every block, and at least 2; {blocks} were measured"
        else:
            grids += _read(grid, embeddings[grid.lines])
    return Curves(about, tuple(grids))


def _embeddings(found: Curves, places: pd.DataFrame) -> np.ndarray:
    """The embeddings' change of each curve, NaN where it was not measured."""
    first = places.loc[places["depth"].to_numpy() == 0, [*IDENTITY, "change"]].drop_duplicates(list(IDENTITY))
    joined = found.about[list(IDENTITY)].merge(first, on=list(IDENTITY), how="left")
    return joined["change"].to_numpy(dtype="float64", na_value=np.nan)


def _read(grid: Grid, embeddings: np.ndarray) -> list[Grid]:
    """A reading is linear in the curve, so that of the unit curves reads them all."""
    known, size, made = np.isfinite(embeddings), len(grid.depths), []
    for held in (known, ~known):
        if not held.any():
            continue
        units = np.eye(size + 1) if held is known else np.eye(size, size + 1, k=1)
        reading = np.array([published_profile(unit[1:].tolist(), embeddings=unit[0] if held is known else None).values for unit in units])
        curve = np.column_stack([embeddings[held], grid.changes[held]]) if held is known else grid.changes[held]
        made.append(Grid(np.array(NOMINAL_DEPTHS), curve @ reading, grid.lines[held]))
    return made
