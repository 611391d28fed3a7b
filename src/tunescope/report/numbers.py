"""Numbers as a reader sees them: rounding never lies.

`three(1.0)` is "1" and `three(0.99999)` is ">.999": a bare 1 or 0 is printed only when the value is exactly that. Every number of the page,
the charts' labels and the terminal passes through here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import TypeIs

MISSING = "–"
MINUS = "−"


def _known(value: object) -> TypeIs[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def three(value: float | None) -> str:
    """Three decimals without the leading zero: ".884", "1" and "0" only when exact, else ">.999", "<.001", ">−.001"; "–" for none."""
    if not _known(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    sign, size = (MINUS, -value) if value < 0 else ("", value)
    if size == int(size):
        return f"{sign}{int(size):,}" if size else "0"
    rounded = f"{size:,.3f}"
    if rounded == "0.000":
        return f">{MINUS}.001" if sign else "<.001"
    if rounded == "1.000":
        if size > 1:
            return f"<{MINUS}1" if sign else ">1"
        return f"<{MINUS}.999" if sign else ">.999"
    return sign + (rounded[1:] if rounded.startswith("0.") else rounded)


def two_digits(value: float | None) -> str:
    """Two significant digits, for amounts that may be tiny: ".034", ".00041", "2.5e−7"; "0" only when exact, "1" as in `three`."""
    if not _known(value) or math.isinf(value) or value == 0 or abs(value) >= 0.0995:
        return three(value)
    sign, size = (MINUS, -value) if value < 0 else ("", value)
    if size < 1e-5:
        digits, power = f"{size:.1e}".split("e")
        return f"{sign}{digits}e{MINUS}{abs(int(power))}"
    places = 1 - math.floor(math.log10(float(f"{size:.1e}")))
    return sign + f"{size:.{places}f}"[1:]


def one_decimal(value: float | None) -> str:
    """A rank: "7.9"; "8" only when exact; "–" for none."""
    if not _known(value) or math.isinf(value):
        return MISSING
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def signed(value: float | None) -> str:
    """`three` with its sign always shown: "+.120", "−.045", "0"; a size too small to print keeps its direction: "+<.001", "−<.001";
    near 1 it is ">+.999", "<−.999"."""
    if not _known(value) or value == 0:
        return three(value)
    if three(abs(value)).startswith(">"):
        return f">+{three(value)[1:]}" if value > 0 else three(value)
    return ("+" if value > 0 else MINUS) + three(abs(value))


def stated(value: float | None) -> str:
    """A number that someone chose, as it was chosen: ".01", ".005", "2"."""
    if not _known(value) or math.isinf(value):
        return MISSING
    return f"{value:.4g}".replace("-", MINUS).replace("0.", ".", 1) if abs(value) < 1 else f"{value:,.4g}".replace("-", MINUS)


def amount(value: float | None) -> str:
    """`three`, but one decimal from 10 on: ".645", "2.310", "23.4"."""
    return one_decimal(value) if _known(value) and abs(value) >= 10 else three(value)


def p_value(value: float | None) -> str:
    """A p-value with its sign of comparison: "p = .013", "p < .001"; "p –" when it is unknown."""
    said = three(value)
    return f"p {said[0]} {said[1:]}" if said[0] in "<>" else f"p {said}" if said == MISSING else f"p = {said}"


def interval(low: float | None, high: float | None) -> str:
    """A 95% interval: "[.870, .898]"; "–" when either end is unknown."""
    return f"[{three(low)}, {three(high)}]" if _known(low) and _known(high) else MISSING


def half_width(value: float | None, low: float | None, high: float | None) -> str:
    """The wider half of an interval: "±.014"; "–" when it is unknown."""
    if not (_known(value) and _known(low) and _known(high)):
        return MISSING
    return f"±{three(max(high - value, value - low, 0.0))}"


def count(value: float | None) -> str:
    """A whole number with thousands separators: "81,234"."""
    return f"{value:,.0f}".replace("-", MINUS) if _known(value) and not math.isinf(value) else MISSING


def percent(share: float | None) -> str:
    """A share as a whole percentage: "42%"; "100%" and "0%" only when exact, else ">99%" and "<1%"."""
    if not _known(share) or math.isinf(share):
        return MISSING
    whole = round(abs(share) * 100)
    if whole == 0 and share != 0:
        return "<1%" if share > 0 else f">{MINUS}1%"
    if whole == 100 and abs(share) != 1:
        return ">99%" if abs(share) < 1 else ">100%"
    return f"{MINUS if share < 0 else ''}{whole}%"


def seconds(value: float | None) -> str:
    """A duration: "<0.1 s", "1.2 s", "48 s", "3 min 05 s"."""
    if not _known(value):
        return MISSING
    if 0 < value < 0.05:
        return "<0.1 s"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def short_hash(value: str | None) -> str:
    """The first twelve characters of a hash."""
    text = str(value or "")
    return f"{text[:12]}…" if len(text) > 12 else text or MISSING
