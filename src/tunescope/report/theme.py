"""One palette in two lights, after Okabe and Ito: told apart by colour-blind readers, text at 4.5:1 or better on its ground.

Charts are drawn in the light colours; the page swaps each for its dark twin, so every light value is used for one role only.
"""

from __future__ import annotations

SANS = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
SERIF = "Charter, 'Iowan Old Style', 'Palatino Linotype', Cambria, Georgia, 'Times New Roman', serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'Liberation Mono', monospace"

# role: (light, dark)
ROLES = {
    "paper": ("#ffffff", "#15171b"),
    "ink": ("#1b1d20", "#e9e7e2"),
    "muted": ("#5c6168", "#a8adb4"),
    "rule": ("#d9dde1", "#363b43"),
    "faint": ("#f4f5f7", "#1d2025"),
    "main": ("#0069a6", "#62b6ee"),
    "floor": ("#6b7178", "#989ea6"),
    "control_0": ("#b04a00", "#f39a5e"),
    "control_1": ("#00735a", "#47c9a5"),
    "control_2": ("#8f4275", "#e29cca"),
    "control_3": ("#7a6200", "#dfbf4e"),
    "control_4": ("#4b4fa8", "#a7abf6"),
    "untouched": ("#edf0f2", "#24282e"),
    "refined": ("#c8d0d7", "#414b55"),
    "rewritten": ("#4a5761", "#a9b5c0"),
    "on_rewritten": ("#fefefe", "#101215"),
    "quiet_bar": ("#b9cbd8", "#3c5568"),
    "on_low": ("#1a1b1c", "#eae9e8"),
    "on_high": ("#fdfdfd", "#0e1013"),
    "ramp_0": ("#f3f7fb", "#18222c"),
    "ramp_1": ("#cbe0f0", "#1c3850"),
    "ramp_2": ("#92c0e0", "#22517a"),
    "ramp_3": ("#4b94c7", "#2b6c9e"),
    "ramp_4": ("#0d5f9b", "#74b0dc"),
    "ramp_5": ("#063660", "#d6ebf9"),
}

LIGHT = {role: pair[0] for role, pair in ROLES.items()}
DARK = {role: pair[1] for role, pair in ROLES.items()}
RAMP = [LIGHT[f"ramp_{step}"] for step in range(6)]
CONTROLS = [LIGHT[f"control_{step}"] for step in range(5)]
TO_DARK = dict(ROLES.values())


def variables(colours: dict[str, str]) -> str:
    """The palette as CSS custom properties."""
    return " ".join(f"--{role.replace('_', '-')}: {colour};" for role, colour in colours.items())


def chart_config() -> dict:
    """The Vega-Lite configuration every chart shares."""
    axis: dict[str, str | float] = {"labelColor": LIGHT["muted"], "titleColor": LIGHT["muted"]}
    axis |= {"gridColor": LIGHT["rule"], "domainColor": LIGHT["rule"]}
    axis |= {"tickColor": LIGHT["rule"], "labelFontSize": 11.5, "titleFontSize": 11.5, "titleFontWeight": "normal", "gridOpacity": 0.6}
    return {
        "background": None,
        "font": SANS,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {
            "labelColor": LIGHT["muted"],
            "titleColor": LIGHT["muted"],
            "labelFontSize": 11.5,
            "titleFontSize": 11.5,
            "titleFontWeight": "normal",
        },
        "text": {"fontSize": 11.5, "color": LIGHT["ink"]},
        "title": {"color": LIGHT["ink"], "subtitleColor": LIGHT["muted"], "fontSize": 14, "anchor": "start", "offset": 14},
    }
