"""What outcomes were asked for, read and checked before any model is loaded: collections, held-out texts, labels, results of elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.models import Model
from tunescope.outcome.external import ExternalResults, external_results
from tunescope.outcome.language import two_heads
from tunescope.outcome.mteb_tasks import ClassificationTask, RetrievalTask, mteb_task
from tunescope.outcome.outcome import Outcome
from tunescope.texts import Corpus, as_corpus
from tunescope.texts.collections import Collection, read_collection
from tunescope.texts.labelled import Labelled, labelled
from tunescope.texts.sets import default_name

MARGINS = {"retrieval": 0.01, "probe": 0.01, "language": 0.01, "external": 0.0}  # nDCG, accuracy, nats a token, the metric's own unit


_METRIC = re.compile(r"[+-]?[A-Za-z0-9_.@-]+")
SELF_EXCLUDED = "{}: MTEB takes the passage with a query's own id out of its ranking and this search does not, so figures differ"


@dataclass(frozen=True)
class Measured:
    """What a task gave: rows of `outcomes`, entries of `outcome_details`, and what a reader must know."""

    outcomes: tuple[Outcome, ...]
    details: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """Outcomes as `ts.diff` takes them."""

    retrieval: Any = ()
    query_prompt: str | None = None
    passage_prompt: str | None = None
    labels: str | None = None
    test: Any = None
    audit: bool = False
    lm: Any = ()
    results: Any = ()
    mteb: Any = ()
    margin: float | Mapping[str, float] | str | None = None

    def read(self, *, column: str | None = None, seed: int = 0) -> Tasks:
        """Everything that needs no model. Raises what the readers raise, and InputError."""
        if self.test is not None and self.labels is None:
            raise InputError("a test file was given without labels; name the column that holds them (--labels COLUMN)")
        if self.audit and self.labels is None and not self.mteb:
            raise InputError("an audit of the probe was asked for without labels; name the column that holds them (--labels COLUMN)")
        if not (self.retrieval or self.mteb) and (self.query_prompt is not None or self.passage_prompt is not None):
            raise InputError("prompts for queries and passages are of a retrieval collection, and none was given (--retrieval FOLDER)")
        margins = margins_of(self.margin)
        results = [_elsewhere(one, margin=margins["external"], seed=seed) for one in _each(self.results)]
        collections = [one if isinstance(one, Collection) else read_collection(one) for one in _each(self.retrieval)]
        test = None if self.test is None else as_corpus(self.test, column=column if isinstance(self.test, str | Path) else None)
        texts = {name: as_corpus(one) for name, one in _named(self.lm).items()}
        named = [mteb_task(one) for one in _each(self.mteb)]
        searched = [one for one in named if isinstance(one, RetrievalTask)]
        return Tasks(
            collections=(*collections, *(one.collection for one in searched)),
            prompts={"query_prompt": self.query_prompt, "passage_prompt": self.passage_prompt},
            labels=self.labels,
            audit=self.audit,
            test=test,
            classifications=tuple(one for one in named if isinstance(one, ClassificationTask)),
            texts=texts,
            results=tuple(results),
            margins=margins,
            warnings=tuple(SELF_EXCLUDED.format(one.collection.name) for one in searched if one.self_excluded),
            seed=seed,
        )


@dataclass(frozen=True)
class Tasks:
    """What is to be measured. prompts: of queries and passages. labels, test: the column of the comparison's texts, and further texts that
    are only judged by. audit: whether probes are audited too. texts: held out, for language-model loss. margins: the difference that
    would not matter, by kind."""

    collections: tuple[Collection, ...] = ()
    prompts: Mapping[str, Any] = field(default_factory=dict)
    labels: str | None = None
    test: Corpus | None = None
    audit: bool = False
    classifications: tuple[ClassificationTask, ...] = ()
    texts: Mapping[str, Corpus] = field(default_factory=dict)
    results: tuple[ExternalResults, ...] = ()
    margins: Mapping[str, float] = field(default_factory=lambda: dict(MARGINS))
    warnings: tuple[str, ...] = ()
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.labels or self.results or self.need_models)

    @property
    def need_models(self) -> list[str]:
        """What only models can answer, by the names it is asked for by."""
        given = {"retrieval": self.collections, "lm": self.texts, "test": self.test, "mteb": self.classifications}
        return [name for name, value in given.items() if value]

    def check_pair(self, base: Model, tuned: Model) -> None:
        """Raise NoLanguageHead or ModelError where a language-model loss was asked for and a model has none to give."""
        if self.texts:
            two_heads(base, tuned)

    def labelled(self, corpus: Corpus) -> Labelled | None:
        """The comparison's texts with their classes; None where no labels were asked for. Raises what `texts.labelled` raises."""
        return None if self.labels is None else labelled(corpus, self.labels, test=self.test, seed=self.seed)


def margins_of(given: float | Mapping[str, float] | str | None) -> dict[str, float]:
    """The margin of every kind of outcome: one number for all, or {kind: number}, also as "retrieval=.02,probe=.01".

    Raises UnknownName for a kind that has none, InputError for what is no size.
    """
    if given is None:
        return dict(MARGINS)
    if isinstance(given, str):
        given = _parsed(given)
    asked = given if isinstance(given, Mapping) else dict.fromkeys(MARGINS, given)
    for kind, size in asked.items():
        if kind not in MARGINS:
            raise UnknownName("kind of outcome in margin", kind, MARGINS)
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 <= size < math.inf:
            raise InputError(f"margin {size!r} asked for; it is the difference that would not matter, a number of 0 or more")
    return MARGINS | {kind: float(size) for kind, size in asked.items()}


def _parsed(given: str) -> dict[str, float]:
    parts = [part.partition("=") for part in given.split(",")]
    try:
        if len(parts) == 1 and not parts[0][1]:
            return dict.fromkeys(MARGINS, float(given))
        return {kind.strip(): float(size) for kind, _, size in parts}
    except ValueError:
        raise InputError(f"margin '{given}' asked for; give a number, or numbers by kind such as retrieval=.02,probe=.01") from None


def _each(given: Any) -> Sequence[Any]:
    """What may be given once or several times."""
    return list(given) if isinstance(given, list | tuple) else [given] if given else []


def _elsewhere(given: Any, *, margin: float, seed: int) -> ExternalResults:
    """Results from (base, tuned), from one table of both, or from "[METRIC=]BASE[,TUNED]" as the command line takes them; + or − before
    METRIC says that more of it is better, or worse."""
    metric, higher = None, None
    if isinstance(given, str) and not Path(given).exists():
        head, equals, rest = given.partition("=")
        if equals and _METRIC.fullmatch(head):
            metric, given = head.lstrip("+-"), rest
            higher = {"+": True, "-": False}.get(head[0])
        given = tuple(part.strip() for part in given.split(",", 1)) if not Path(given).exists() else given
    sides = given if isinstance(given, list | tuple) else (given,)
    return external_results(*sides, metric=metric, higher_is_better=higher, margin=margin, seed=seed)


def _named(given: Any) -> dict[str, Any]:
    """Held-out texts by name: a file, a list of files, a Corpus, {name: any of these}, or a list of strings that are the texts."""
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list | tuple) and all(isinstance(one, str | Path) and Path(one).suffix for one in given):
        files: Iterable[Any] = given
    else:
        files = [given] if given else []
    found: dict[str, Any] = {}
    for one in files:
        name = default_name(one)
        same = sum(other == name or other.startswith(f"{name} (") for other in found)
        found[f"{name} ({same + 1})" if same else name] = one
    return found
