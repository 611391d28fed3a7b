"""In what a run that is there differs from one that is asked for, in the words of the options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_DERIVED = {("steps",), ("epoch_steps",), ("checkpoints",), ("data", "items"), ("update", "lr")}  # follow from options, where one differs
_CALLED = {"rule": "update", "trains_drawn_head": "train_drawn_head", "fit_head_steps": "fit_batches"}
_NOWHERE = ("source", "name")  # of data and base: where they lie
_LONG = 40


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """then, now: descriptions of two runs. What `then` was started with that `now` is not, empty where they are alike."""
    found = list(_differences(then, now, ()))
    asked = [(path, value) for path, value in found if path not in _DERIVED and path[:2] not in _DERIVED] or found
    if any(path == ("update", "rule") for path, _ in asked):
        asked = [(path, value) for path, value in asked if path[:2] != ("update", "options")]
    if any(path == ("objective", "name") for path, _ in asked):
        asked = [(path, value) for path, value in asked if path[0] != "objective" or path[1:] in (("name",), ("max_length",))]
    return "; ".join(dict.fromkeys(_said(path, value) for path, value in asked))


def _differences(then: Any, now: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(place, what was there) of every entry that differs."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            if key not in _NOWHERE or path[:1] == ("objective",):
                yield from _differences(then.get(key), now.get(key), (*path, str(key)))
    elif then != now:
        yield path, then


def _said(path: tuple[str, ...], value: Any) -> str:
    if path[0] in ("data", "base"):
        return f"other {path[1]}" if path[0] == "data" and len(path) > 1 else f"another {path[0]}"
    last = path[-1]
    name = "objective" if path == ("objective", "name") else _CALLED.get(last, last)
    if value is None:
        return f"{name} left out"
    return f"{name} = {value}" if len(str(value)) <= _LONG else f"another {name}"
