"""Labels for points that crowd: each goes where it meets no other label and no point, or is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunescope.report.chart_parts import CHAR_PX, LINE_PX

_DOT = 6.0
_AWAY = 10.0  # pixels from a point's centre to its label's


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels by its centre."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        return abs(self.x - other.x) * 2 < self.width + other.width and abs(self.y - other.y) * 2 < self.height + other.height


def place(
    points: list[tuple[float, float]], words: list[str], *, width: float, height: float, lines: Sequence[float] = ()
) -> list[tuple[float, float] | None]:
    """For each point (pixels, y downwards) the offset of its label's centre; None for a label with no room.

    Corners come first, because a whisker may stand above and beside a point. lines: heights of horizontal lines no label may cross.

    The last points are placed first: where layers crowd at the start, the deep ones keep their names.
    """
    dots = [Box(x, y, 2 * _DOT, 2 * _DOT) for x, y in points]
    taken: list[Box] = []
    taken += [Box(width / 2, line, width, 1.0) for line in lines]
    found: list[tuple[float, float] | None] = [None] * len(points)
    for i in reversed(range(len(points))):
        wide = len(words[i]) * CHAR_PX + 4
        side, beyond = wide / 2 + 2, wide / 2 + _DOT + 3
        corners = ((side, -_AWAY), (-side, -_AWAY), (side, _AWAY), (-side, _AWAY))
        for dx, dy in (*corners, (beyond, 0.0), (-beyond, 0.0), (0.0, -_AWAY), (0.0, _AWAY)):
            box = Box(points[i][0] + dx, points[i][1] + dy, wide, LINE_PX)
            inside = box.x - wide / 2 >= 0 and box.x + wide / 2 <= width and 0 <= box.y <= height
            others = (dot for j, dot in enumerate(dots) if j != i)
            if inside and not any(box.meets(other) for other in taken) and not any(box.meets(other) for other in others):
                taken.append(box)
                found[i] = (dx, dy)
                break
    return found
