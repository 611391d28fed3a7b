"""Text sets: several corpora in one comparison, each with a name and a role, and how far they share their texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.texts.corpus import Corpus
from tunescope.texts.hub import PREFIX
from tunescope.texts.read import as_corpus

TUNING, GENERAL = "tuning", "general"
ROLES = (TUNING, GENERAL)
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_][\w.-]*)(?:@(?P<role>\w+))?=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class TextSet:
    """Texts with a name and a role: "tuning" when the model was tuned on them or on their like, else "general".

    whole: the texts before a sample was taken, in which other sets' texts are looked for; None when the corpus is all there is.
    """

    name: str
    corpus: Corpus
    role: str = GENERAL
    whole: Corpus | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UnknownName(f"role of the text set '{self.name}'", self.role, ROLES)


@dataclass(frozen=True)
class Shared:
    """Texts that two sets share: how many texts of each are found in the other, repeats counted."""

    of_a: int
    of_b: int


def parse_text_set(given: str) -> tuple[str | None, str, str]:
    """(name or None, path, role) of NAME=PATH, NAME@tuning=PATH or a plain PATH, as the command line takes them.

    What stands before the first "=" is a name only if it is made of letters, digits, "_", "." and "-", so a path keeps its own "=", ":"
    and "@" (`runs/lr=3/a.txt`, `C:\\a=b.txt`); a file that is there under the whole string is that file.

    Raises UnknownName for another role.
    """
    found = _NAMED.fullmatch(given)
    if found is None or os.path.exists(given):
        return None, given, GENERAL
    role = found["role"] or GENERAL
    if role not in ROLES:
        raise UnknownName(f"role of the text set '{found['name']}'", role, ROLES)
    return found["name"], os.path.expanduser(found["path"]), role


def as_text_sets(
    texts: Any,
    *,
    tuning: Iterable[str] = (),
    column: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    chats: bool = False,
) -> tuple[TextSet, ...]:
    """What `ts.diff` takes as texts, as sets: the first is the main one.

    texts: anything `as_corpus` takes (one set, named after its file), a dict {name: such a thing}, or a sequence of TextSet. tuning: the
    names whose texts the model was tuned on. column, sample, seed and chats hold for every set; column only where there are columns.

    Raises InputError (no sets, a name given twice), UnknownName (tuning names no set), and what `as_corpus` raises.
    """
    tuning = {tuning} if isinstance(tuning, str) else set(tuning)
    if isinstance(texts, Sequence) and len(texts) and all(isinstance(given, TextSet) for given in texts):
        sets = [TextSet(given.name, given.corpus, TUNING if given.name in tuning else given.role, given.corpus) for given in texts]
        _check_names([text_set.name for text_set in sets], tuning)
    else:
        named = _named(texts)
        _check_names(list(named), tuning)
        sets = []
        for name, given in named.items():
            own = column if len(named) == 1 or _has_columns(given) else None
            whole = as_corpus(given, column=own, sample=sample if _is_hub(given) else None, seed=seed, chats=chats)
            sets.append(TextSet(name, whole, TUNING if name in tuning else GENERAL, whole))
    if sample is None:
        return tuple(sets)
    return tuple(replace(one, corpus=one.corpus if _is_hub(one.corpus.source) else one.corpus.sample(sample, seed=seed)) for one in sets)


def shared(a: Corpus, b: Corpus) -> tuple[Shared, Shared]:
    """The texts two corpora share: exactly, and when case and spacing are ignored (casefolded, runs of white space as one space)."""
    return _shared(a.texts, b.texts), _shared([_folded(text) for text in a.texts], [_folded(text) for text in b.texts])


def _shared(a: Sequence[str], b: Sequence[str]) -> Shared:
    in_a, in_b = set(a), set(b)
    return Shared(sum(text in in_b for text in a), sum(text in in_a for text in b))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _named(texts: Any) -> dict[str, Any]:
    if isinstance(texts, Mapping) and not hasattr(texts, "columns"):
        if not texts:
            raise InputError("texts is an empty dict; give at least one set, {name: texts}")
        return {_name(name): one for name, one in texts.items()}
    return {default_name(texts): texts}


def default_name(texts: Any) -> str:
    """What a set is called that was given no name: its file's or dataset's, else "texts"."""
    if _is_hub(texts):
        return texts.removeprefix(PREFIX).partition(":")[0].split("/")[-1] or "texts"
    return (Path(texts).stem if isinstance(texts, (str, Path)) else "") or "texts"


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{name!r} is no name of a text set; give a dict {{name: texts}} whose names are strings")
    return name


def _has_columns(texts: Any) -> bool:
    if not isinstance(texts, (str, Path)):
        return False
    return _is_hub(texts) or Path(texts).suffix.lower() != ".txt"


def _is_hub(texts: Any) -> bool:
    return isinstance(texts, str) and texts.startswith(PREFIX)


def _check_names(names: Sequence[str], tuning: Iterable[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the text set '{twice[0]}' is given more than once; give each a name of its own, NAME=PATH")
    for name in tuning:
        if name not in names:
            raise UnknownName("text set", name, names)
