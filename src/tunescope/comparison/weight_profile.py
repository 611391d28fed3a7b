"""The weight-space profile: how far every block and matrix was moved, beside how far the representations were. No forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunescope.comparison.weight_tensors import EMBEDDINGS, FINAL_NORM, OTHER, TensorChange, Weights, compare_tensors
from tunescope.geometry.profile import locality
from tunescope.models import Model, acting_weights

RANK_WORK = 2e11  # multiply-adds that a comparison with a forward pass spends on ranks: some ten seconds of one core
UNCLEAR = 0.1  # share of an update that may drown in rounding before that is said
NOTE = (
    "A representation's change carries forward from block to block, a block's weight change is its own: their ratio grows with depth "
    "where early blocks were moved."
)


def weight_profile(
    base: Model,
    tuned: Model,
    *,
    changes: Mapping[int, float | None] | None = None,
    work: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """What goes under `weights` in comparison.json: {blocks, matrices, slope, rank_slope, notes, reason?}.

    Per block over all its tensors, |ΔW|/|W| = √(Σ|ΔW|² / Σ|W|²), and whether every one is bit-identical; stable and effective rank
    are those of its most changed matrix, which is named. The embeddings are block 0; what belongs to no block follows with index None.
    slope: least squares of the blocks' |ΔW|/|W| on relative depth. Matrices are tensors of two or more dimensions. An adapter counts as
    its merged model would, one layer at a time; tied tensors count once; of a resized vocabulary the common rows are compared.

    changes: {block: change of its output}, such as 1 − CKA; every block then also says that change per unit of its own weight change.
    work: multiply-adds that the ranks of full tensors may cost altogether; beyond it they are left out with the reason. None: no limit.
    progress: called with (stage, done, total).

    reason: why the pair has no weight profile (another depth, width or names); blocks and matrices are then empty.
    """
    say = progress or (lambda stage, done, total: None)
    reason, found = _apart(base, tuned), []
    if reason is None:
        before, after = acting_weights(base), acting_weights(tuned)
        found = list(compare_tensors(before, after, tuned.anatomy, work=work, step=lambda d, t: say("comparing weights", d, t)))
        if not found:
            reason = f"'{base.name}' and '{tuned.name}' have no tensor of the same name"
    if reason is not None:
        return {"blocks": [], "matrices": [], "slope": None, "rank_slope": None, "notes": [], "reason": reason}
    blocks = _blocks(found, tuned.anatomy.n_layers, changes)
    curve = [(row["depth"], row["relative_change"]) for row in blocks if row["index"] and row["relative_change"] is not None]
    read = locality(*zip(*curve, strict=True)) if curve else None
    return {
        "blocks": blocks,
        "matrices": [tensor.row() for tensor in found if len(tensor.shape) > 1],
        "slope": read and read.slope,
        "rank_slope": read and read.rank_slope,
        "notes": [*_notes(found, before, after), *([NOTE] if changes else [])],
    }


def _apart(base: Model, tuned: Model) -> str | None:
    """Why no tensor of one is the tuned form of a tensor of the other."""
    one, two = base.anatomy, tuned.anatomy
    if one.n_layers != two.n_layers:
        return f"base has {one.n_layers} blocks and tuned {two.n_layers}: no block of one is the tuned form of a block of the other"
    if one.width != two.width:
        return f"base has {one.width} features and tuned {two.width}: no weight of one is the tuned form of a weight of the other"
    return None


def _blocks(found: Sequence[TensorChange], depth: int, changes: Mapping[int, float | None] | None) -> list[dict[str, Any]]:
    places: list[tuple[int | str, int | None, str]] = [(EMBEDDINGS, 0, EMBEDDINGS)]
    places += [(index, index, f"block {index}") for index in range(1, depth + 1)]
    places += [(FINAL_NORM, None, FINAL_NORM), (OTHER, None, OTHER)]
    rows = []
    for part, index, name in places:
        tensors = [tensor for tensor in found if tensor.part == part]
        if tensors:
            row = {"index": index, "name": name, "depth": None if index is None else index / depth} | _together(tensors)
            rows.append(row | (_per_unit(row, changes.get(index)) if changes and index is not None else {}))
    return rows


def _together(tensors: Sequence[TensorChange]) -> dict[str, Any]:
    """The tensors of one part as one."""
    known = [(tensor, tensor.change) for tensor in tensors if tensor.change is not None]
    weight, update = (sum(getattr(change, key) ** 2 for _, change in known) ** 0.5 for key in ("weight", "update"))
    moved = [(change.relative, tensor.name, change) for tensor, change in known if len(tensor.shape) > 1 and change.relative]
    _, most, change = max(moved, key=lambda entry: entry[0], default=(None, None, None))
    row = {
        "relative_change": update / weight if weight > 0 else None,
        "stable_rank": change and change.stable_rank,
        "effective_rank": change and change.effective_rank,
        "most_changed": most,
        "frozen": len(known) == len(tensors) and all(change.frozen for _, change in known),
    }
    reasons = [tensor.reason for tensor in tensors if tensor.reason] or ([] if weight > 0 else ["all its tensors are zeros in the base"])
    reasons += [change.rank_reason] if change is not None and change.rank_reason else []
    return row | ({"reason": reasons[0]} if reasons else {})


def _per_unit(row: Mapping[str, Any], change: float | None) -> dict[str, float | None]:
    """The representation's change, and how much of it there is for a unit of weight change."""
    moved = None if row["frozen"] else row["relative_change"]
    return {"representation_change": change, "change_per_weight_change": change / moved if moved and change is not None else None}


def _notes(found: Sequence[TensorChange], before: Weights, after: Weights) -> list[str]:
    said = [
        f"{tensor.name} has {before[tensor.name].stored.shape[0]:,} rows in the base and {after[tensor.name].stored.shape[0]:,} in the "
        f"tuned model: the first {tensor.rows_compared:,} of both were compared"
        for tensor in found
        if tensor.rows_compared
    ]
    for own, other, side in ((before, after, "base"), (after, before, "tuned model")):
        alone = [name for name in own if name not in other]
        if alone:
            more = f" and {len(alone) - 3:,} more" if len(alone) > 3 else ""
            said.append(f"only the {side} has {', '.join(alone[:3])}{more}: not compared")
    unclear = [tensor.change.within_rounding for tensor in found if tensor.change is not None and tensor.change.within_rounding]
    if unclear and max(unclear) > UNCLEAR:
        said.append(
            f"up to {max(unclear):.0%} of |ΔW|² lies in singular values that the rounding of the tuned checkpoint's number format could "
            "have made: ranks are of the directions that stand out, and of a full fine-tune in few bits they are too low"
        )
    return said
