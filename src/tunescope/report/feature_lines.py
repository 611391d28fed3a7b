"""A comparison of features in a terminal: the verdict of every place beside its floors, what must not be believed alone, the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunescope.report import features_reading as found
from tunescope.report import features_words as words
from tunescope.report import reading
from tunescope.report.numbers import MISSING, half_width, percent, three, two_digits
from tunescope.report.terminal import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

_HEADS = (("layer", "layer"), ("tuned", "name"), ("verdict", "verdict"), ("R²", "r2"), ("±95%", "half"), ("noise", "noise"),
          ("cosine\nto base", "cosine"), ("floor", "floor"), ("ceil-\ning", "ceiling"), ("gap\nclosed", "closed"))  # fmt: skip
_NAME = 14
_SHORT = {words.NOTHING: "nothing", words.PARTLY: "partly reused"}


def features_terminal(payload: reading.Payload, *, page: str = "") -> RenderableType:
    """The rich renderable that `tunescope features` and `FeatureComparison.show()` print. page: where the report is."""
    from rich.console import Group
    from rich.text import Text

    payload = reading.printable(payload)
    base = plain((payload.get("base") or {}).get("name") or MISSING)
    parts: list[Any] = [Text(f"{base} · {plain(words.subject(payload))}", style="dim"), Text(plain(words.headline(payload)), style="bold")]
    parts += [Text(""), _table(payload), Text("")]
    parts += [Text(line, style="dim") for line in _legend(flagged=bool(payload.get("flags")))]
    for flag in words.flags(payload):
        parts += [Text(""), Text.assemble((f"{plain(flag['title'])}, {plain(flag['place'])}: ", "bold"), plain(flag["words"]))]
    parts += [Text(""), *(Text(plain(line)) for line in _controls(payload))]
    parts += [Text.assemble(("warning: ", "bold"), plain(warning)) for warning in payload.get("warnings") or []]
    parts += [Text.assemble(("report: ", "bold"), plain(page))] if page else []
    return Group(*parts)


def _rows(payload: reading.Payload) -> list[dict[str, str]]:
    flagged = {(row["layer"], row["name"]) for row in payload.get("flags") or []}
    rows = []
    for place in found.places(payload):
        row, near, share = found.verdict(payload, place), found.one_to_one(payload, place) or {}, found.reused(payload, place) or {}
        quality: dict[str, Any] = next(iter(found.at(payload, "quality", place)), {})
        r2, word = quality.get("r2") or {}, str(row["verdict"])
        rows.append({
            "layer": str(place[0]), "name": _short(place[1]), "verdict": _SHORT.get(word, word) + (" !" if place in flagged else ""),
            "r2": three(r2.get("value")), "half": half_width(r2.get("value"), r2.get("low"), r2.get("high")),
            "noise": three(row.get("noise_r2")), "cosine": three(near.get("value")), "floor": three(near.get("floor")),
            "ceiling": three(near.get("ceiling")), "closed": percent(share.get("value")),
        })  # fmt: skip
    return rows


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _table(payload: reading.Payload) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="dim")
    for head, key in _HEADS:
        left = key in ("name", "verdict")
        table.add_column(head, justify="left" if left else "right", no_wrap=key != "verdict", vertical="bottom",
                         style="bold" if key == "verdict" else "")  # fmt: skip
    for row in _rows(payload):
        table.add_row(*(Text(plain(row[key])) for _, key in _HEADS))
    return table


def _legend(*, flagged: bool) -> list[str]:
    mark = " !: flagged below" if flagged else ""
    return [
        "R² on held-out documents; noise: of such an autoencoder on noise of the same norms",
        "cosine: of one-to-one pairs; floor: random directions, ceiling: another seed",
        "gap closed: by the base’s features, from random directions (0%) to the tuned",
        f"model’s own (100%); all re-coded with as many active.{mark}",
    ]


def _controls(payload: reading.Payload) -> list[str]:
    """A line a layer; of several tuned models the range of their controls."""
    lines = []
    for layer in found.layers(payload):
        groups: dict[str, list[found.Row]] = {}
        for row in found.controls(payload, layer):
            groups.setdefault(row["control"], []).append(row)
        lines += [f"controls, layer {layer}: {'; '.join(_control(name, rows) for name, rows in groups.items())}"] if groups else []
    return lines


def _control(name: str, rows: list[found.Row]) -> str:
    rebuilt, said = [row["r2"]["value"] for row in rows if row.get("r2")], "other batches" if name == "noise" else name
    if not rebuilt:
        return f"{said} |Δ|/|x| {two_digits(rows[0].get('relative'))}"
    cosines, floors = ([row[key] for row in rows if row.get(key) is not None] for key in ("one_to_one_cosine", "floor"))
    return f"{said} R² {_range(rebuilt)}, cosine {_range(cosines)} (floor {_range(floors)})"


def _range(values: list[float]) -> str:
    ends = list(dict.fromkeys((three(min(values, default=None)), three(max(values, default=None)))))
    return " to ".join(ends)
