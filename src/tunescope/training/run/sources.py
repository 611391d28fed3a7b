"""From what a person gives, texts, pairs, labelled texts or conversations, to the items of an objective and their description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunescope.errors import InputError, TextsError
from tunescope.texts import Corpus, Pairs, as_corpus, as_pairs
from tunescope.texts.chats import CHATS, chats_of
from tunescope.texts.corpus import hash_texts
from tunescope.training.objectives.base import CONVERSATIONS, LABELS, PAIRS, TEXTS, Objective
from tunescope.training.objectives.mixture import Mixture
from tunescope.training.objectives.preserve import Preserve
from tunescope.training.run.data import Keys


@dataclass(frozen=True)
class RunSources:
    """What a run may read: each by the need it serves.

    labels: the column of classes in `texts`. keep: texts that `preserve` stays close to the start on.
    """

    texts: Corpus | None = None
    pairs: Pairs | None = None
    labels: str | None = None
    keep: Corpus | None = None
    classes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, *, texts: Any = None, pairs: Any = None, labels: str | None = None, keep: Any = None) -> RunSources:
        """Read what was given. Raises TextsError, InputError: nothing, or labels without texts."""
        if texts is None and pairs is None:
            raise InputError("a run needs something to read: give texts (--texts) or pairs (--pairs)")
        if labels is not None and texts is None:
            raise InputError(f"labels='{labels}' names a column of the texts, and none were given; give texts (--texts)")
        corpus = None if texts is None else as_corpus(texts, chats=True)
        classes = () if corpus is None or labels is None else tuple(sorted(set(_labels(corpus, labels))))
        return cls(
            corpus, None if pairs is None else as_pairs(pairs), labels, None if keep is None else as_corpus(keep), classes
        )

    def column(self, need: str, *, name: str) -> Sequence[Any]:
        """The entries for one need of the objective `name`. Raises InputError when nothing that was given serves it."""
        if need == PAIRS and self.pairs is not None:
            return self.pairs.items
        if need == LABELS and self.texts is not None and self.labels is not None:
            place = {name: number for number, name in enumerate(self.classes)}
            return [(text, place[name]) for text, name in zip(self.texts.texts, _labels(self.texts, self.labels), strict=True)]
        if need == CONVERSATIONS and self.texts is not None and CHATS in self.texts.columns:
            return chats_of(self.texts)
        if need == TEXTS and self.texts is not None:
            return self.texts.texts
        if need == TEXTS and self.pairs is not None:
            return _both_sides(self.pairs)
        how = {PAIRS: "pairs (--pairs)", LABELS: "texts and their column of labels (--labels)", TEXTS: "texts (--texts)"}
        wanted = how.get(need, "conversations, a jsonl with a column messages (--texts)")
        given = f"{self.texts.source} has {', '.join(self.texts.columns) or 'texts alone'}" if self.texts is not None else "none were given"
        raise InputError(f"{name} needs {wanted}, and {given}")

    def columns(self, objective: Objective) -> list[Sequence[Any]]:
        """The entries for all needs of an objective, of its parts one after the other; those of preservation are the texts to keep."""
        if isinstance(objective, Preserve):
            if self.keep is None:
                raise InputError("preserve keeps the model close to its start on texts of its own; give them (--keep)")
            return [*self.columns(objective.objective), self.keep.texts]
        if isinstance(objective, Mixture):
            return [column for part in objective.parts for column in self.columns(part)]
        return [self.column(need, name=objective.name) for need in objective.needs]

    def leading(self, needs: Sequence[str]) -> int:
        """Which need sets the epochs: pairs where there are some, since those of one batch are each other's negatives; else the first."""
        return needs.index(PAIRS) if PAIRS in needs else 0

    def keys(self, needs: Sequence[str]) -> list[Keys] | None:
        """Where pairs are read: the texts of each and its hard negatives, for `RunOrder`."""
        if self.pairs is None or PAIRS not in needs:
            return None
        rows = zip(self.pairs.queries, self.pairs.passages, self.pairs.negatives, strict=True)
        return [(frozenset((query, passage)), frozenset(others)) for query, passage, others in rows]

    def describe(self) -> dict[str, Any]:
        """JSON-able: source, count and hash of each."""
        given = {"texts": self.texts, "pairs": self.pairs, "keep": self.keep}
        found: dict[str, Any] = {
            key: {"source": each.source, "count": len(each), "sha256": each.sha256} for key, each in given.items() if each is not None
        }
        if self.pairs is not None and self.pairs.columns:
            found["pairs"]["columns"] = dict(zip(("query", "passage"), self.pairs.columns, strict=True))
        if self.labels is not None:
            names = () if self.texts is None else _labels(self.texts, self.labels)
            found["labels"] = {"column": self.labels, "classes": list(self.classes), "sha256": hash_texts(names)}
        return found

    @property
    def warnings(self) -> list[str]:
        """What was odd about them."""
        return [note for each in (self.texts, self.pairs, self.keep) if each is not None for note in each.warnings]


def _labels(corpus: Corpus, column: str) -> tuple[str, ...]:
    """The class of every text, as a word."""
    if not isinstance(column, str):
        raise InputError(f"labels is a {type(column).__name__}; give the name of the column of classes in texts that are a file")
    if column not in corpus.columns:
        listed = ", ".join(f"'{name}'" for name in corpus.columns) or "none beside its texts"
        raise TextsError(f"{corpus.source} has no column '{column}' of labels beside its texts; its columns: {listed}")
    empty = next((row for row, cell in enumerate(corpus.columns[column]) if cell is None or cell != cell or not str(cell).strip()), None)
    if empty is not None:
        raise TextsError(f"{corpus.source}, {corpus.ids[empty]}: no label in column '{column}'; fill it in or remove the row")
    return tuple(str(cell).strip() for cell in corpus.columns[column])


def _both_sides(pairs: Pairs) -> tuple[str, ...]:
    """Every distinct text of the pairs, in the order they first come."""
    return tuple(dict.fromkeys(text for pair in zip(pairs.queries, pairs.passages, strict=True) for text in pair))
