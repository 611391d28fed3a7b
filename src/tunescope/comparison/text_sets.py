"""Does the headline hold on another text set, or under another pooling?

The headline says two things of the blocks, both from linear CKA: which one moved most, and a status word for each. Elsewhere (on another
set, under another pooling) it is held against what the intervals there leave possible:

- The place holds when the block that moved most here is not clearly short of the one that moved most there: their 95% intervals there
  overlap. It is not asked where every block is untouched on both sides, since then the headline is that almost nothing moved.
- A block's word holds when it is the same there, or the 95% interval there reaches into the range of the word it has here.
- The headline holds elsewhere when the place and the words of all blocks do. It cannot be judged (None) where either side has a block
  without a value.

Two intervals of the same texts that overlap may still differ (their errors go together), so "holds" means "is not contradicted".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from tunescope.geometry.profile import status
from tunescope.texts.sets import TUNING

WORDS = ("rewritten", "refined", "untouched")  # by rising CKA
FEWEST = 3  # blocks for a rank correlation
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Contradicted:
    """A block whose word here is outside what its interval there reaches."""

    block: str
    here: str
    there: str


@dataclass(frozen=True)
class Verdict:
    """Whether the headline holds there: its place, its words, and what contradicts it."""

    place: bool | None
    words: bool | None
    most_moved: str | None  # the block that moved most there
    contradicted: tuple[Contradicted, ...] = ()

    @property
    def holds(self) -> bool | None:
        return None if self.place is None or self.words is None else self.place and self.words


def blocks(rows: Sequence[Row]) -> list[Row]:
    """The rows of blocks: the profile without the embeddings."""
    return [row for row in rows if row["index"] > 0]


def most_moved(rows: Sequence[Row]) -> Row | None:
    """The block with the largest change in linear CKA; None when no block has a value or none moved."""
    known = [row for row in blocks(rows) if row["measures"]["cka"]["value"] is not None]
    found = max(known, key=lambda row: row["measures"]["cka"]["change"], default=None)
    return found if found is not None and found["measures"]["cka"]["change"] > 0 else None


def verdict(here: Sequence[Row], there: Sequence[Row]) -> Verdict:
    """Hold what the rows of the main profile say against another profile of the same blocks; see the head of this file."""
    one, other = blocks(here), blocks(there)
    top = most_moved(there)
    said = None if top is None else top["name"]
    if not one or any(row["measures"]["cka"]["value"] is None for row in [*one, *other]):
        return Verdict(None, None, said)
    pairs = list(zip(one, other, strict=True))
    contradicted = tuple(Contradicted(a["name"], a["status"], b["status"]) for a, b in pairs if a["status"] not in _reach(b))
    quiet = all(row["status"] == "untouched" for row in [*one, *other])
    return Verdict(quiet or _place_holds(most_moved(here), top, other), not contradicted, said, contradicted)


def rank_agreement(here: Sequence[Row], there: Sequence[Row], measure: str) -> dict[str, Any]:
    """Spearman's ρ of a measure's change over the blocks that both profiles have: {rank_correlation, n, reason where there is none}.

    No p-value: change carries forward from block to block, so blocks are not independent draws, and ρ is high when both curves rise.
    """
    other = {row["index"]: row for row in blocks(there)}
    pairs = [(row["measures"][measure]["change"], other[row["index"]]["measures"][measure]["change"]) for row in blocks(here)
             if row["index"] in other]  # fmt: skip
    known = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
    found: dict[str, Any] = {"measure": measure, "rank_correlation": None, "n": len(known)}
    if len(known) < FEWEST:
        return found | {"reason": f"{len(known)} blocks have a change on both, and a rank correlation needs {FEWEST}"}
    if (np.ptp(known, axis=0) == 0).any():
        return found | {"reason": "all blocks changed alike, so there is no order"}
    return found | {"rank_correlation": float(stats.spearmanr(known[:, 0], known[:, 1]).statistic)}


def survival(sets: Sequence[Mapping[str, Any]], poolings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{text_set, pooling, said}: whether the headline holds on all further sets and under all poolings that count, and in words.

    None where none was asked for, or none can be judged and the others hold.
    """
    counted = [one for one in poolings if one["counts"]]
    said = [_sentence(one["verdict"], f"on '{one['name']}'{' (tuning texts)' if one['role'] == TUNING else ''}") for one in sets]
    said += [_sentence(one["verdict"], f"under {one['pooling']} pooling") for one in counted]
    said += [f"{one['pooling']} pooling does not count: {one['reason']}." for one in poolings if not one["counts"]]
    return {"text_set": _all(sets), "pooling": _all(counted), "said": " ".join(said)}


def _all(found: Sequence[Mapping[str, Any]]) -> bool | None:
    held = [one["verdict"]["holds"] for one in found]
    if False in held:
        return False
    return True if held and None not in held else None


def _sentence(found: Mapping[str, Any], where: str) -> str:
    if found["holds"] is None:
        return f"Whether the headline holds {where} cannot be judged: a block has no value."
    if found["holds"]:
        return f"The headline holds {where}."
    why = []
    if not found["place"]:
        why.append(f"{found['most_moved']} moved most" if found["most_moved"] else "nothing moved")
    if found["contradicted"]:
        first = ", ".join(f"{one['block']} {one['here']} → {one['there']}" for one in found["contradicted"][:3])
        more = len(found["contradicted"]) - 3
        why.append(f"status words change ({first}{f' and {more} more' if more > 0 else ''})")
    return f"The headline does not hold {where}: {' and '.join(why)}."


def _place_holds(here: Row | None, top: Row | None, there: Sequence[Row]) -> bool:
    if here is None or top is None:
        return here is top
    same = next(row for row in there if row["index"] == here["index"])
    return _ends(same)[0] <= _ends(top)[-1]


def _ends(row: Row) -> list[float]:
    """The interval of CKA and the value in it, ascending; the value alone where there is no interval."""
    cka = row["measures"]["cka"]
    return sorted(cka[key] for key in ("low", "value", "high") if cka[key] is not None)


def _reach(row: Row) -> tuple[str, ...]:
    """The words that the interval of a block reaches."""
    noise = row["measures"]["cka"].get("noise")
    found = [WORDS.index(status(value, noise=noise, saturated=row["saturated"])) for value in _ends(row)]
    return WORDS[min(found) : max(found) + 1]
