"""Pairs of texts that belong together, a query and its passage, and passages that do not: what contrastive training reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import TextsError, UnknownName
from tunescope.texts.corpus import Corpus, hash_texts
from tunescope.texts.read import read_table
from tunescope.texts.tables import Table

# Tried in this order, without regard to case, when no columns are named.
QUERY_COLUMNS = ("query", "anchor", "question", "claim", "sentence1", "premise", "summary", "sentence")
PASSAGE_COLUMNS = ("passage", "positive", "answer", "document", "paragraph", "context", "sentence2", "hypothesis", "sentence", "text")
NEGATIVES = "negative"  # columns whose names start so hold a hard negative, or a list of them, each


@dataclass(frozen=True)
class Pairs:
    """Queries and passages, row by row, and hard negatives of each row, of which there may be none.

    ids name a pair for people ("row 3"). sha256: over all texts in order.
    """

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    negatives: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]
    source: str
    sha256: str
    warnings: tuple[str, ...] = ()
    columns: tuple[str, str] | None = None  # that queries and passages were read from

    @classmethod
    def of(
        cls,
        queries: Iterable[str],
        passages: Iterable[str],
        *,
        negatives: Iterable[Iterable[str]] = (),
        ids: Iterable[str] = (),
        source: str = "pairs given",
        warnings: Iterable[str] = (),
        columns: tuple[str, str] | None = None,
    ) -> Pairs:
        """Raises TextsError for a side that is missing, blank or no string, by its row, and when there are no pairs."""
        one, two = tuple(queries), tuple(passages)
        more = tuple(tuple(each) for each in negatives) or ((),) * len(one)
        names = tuple(ids) or tuple(f"pair {number}" for number in range(len(one)))
        if not one:
            raise TextsError(f"{source}: no pairs in it; give a query and a passage a row")
        if not len(one) == len(two) == len(more) == len(names):
            raise TextsError(f"{source}: {len(one):,} queries for {len(two):,} passages; every query needs its passage")
        for row, texts in enumerate(zip(one, two, more, strict=True)):
            for text in (texts[0], texts[1], *texts[2]):
                if not isinstance(text, str) or not text.strip():
                    raise TextsError(f"{source}, {names[row]}: a side of the pair is {'blank' if text == '' else repr(text)}; fill it in")
        every = [text for texts in zip(one, two, more, strict=True) for text in (texts[0], texts[1], *texts[2])]
        return cls(one, two, more, names, source, hash_texts(every), (*warnings, *_repeated(one, two)), columns)

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def items(self) -> list[tuple[Any, ...]]:
        """(query, passage), or (query, passage, [negatives]) where a row has some: what an objective takes."""
        rows = zip(self.queries, self.passages, self.negatives, strict=True)
        return [(query, passage, list(others)) if others else (query, passage) for query, passage, others in rows]

    def rows(self, places: Sequence[int]) -> Pairs:
        """The pairs at these places."""
        queries, passages, ids = ([column[place] for place in places] for column in (self.queries, self.passages, self.ids))
        negatives = [self.negatives[place] for place in places]
        return Pairs.of(queries, passages, negatives=negatives, ids=ids, source=self.source, columns=self.columns)

    def sample(self, n: int, *, seed: int = 0) -> Pairs:
        """The n pairs whose hash with the seed is smallest, in the order they have here; all of them when there are fewer."""
        joined = [f"{query}\n{passage}" for query, passage in zip(self.queries, self.passages, strict=True)]
        return self if n >= len(self) else self.rows(Corpus.of(joined, self.ids, self.source).chosen(n, seed=seed))


def read_pairs(path: str | Path, *, query: str | None = None, passage: str | None = None) -> Pairs:
    """The pairs of a .jsonl, .csv, .tsv or .parquet file, in its order.

    query, passage: their columns; by default the first of `QUERY_COLUMNS` and of `PASSAGE_COLUMNS` it has, else its two columns when it
    has no others. Columns whose names start with "negative" hold hard negatives, one or a list a cell.

    Raises: TextsError (with file and row), UnknownName for a column the file has not.
    """
    table = read_table(path)
    one, two = _columns(table, str(path), query, passage)
    others = [name for name in table.columns if name.lower().startswith(NEGATIVES)]
    negatives = [_negatives([table.columns[name][row] for name in others]) for row in range(len(table.rows))]
    queries, passages, said = table.columns[one], table.columns[two], table.warnings
    return Pairs.of(queries, passages, negatives=negatives, ids=table.rows, source=str(path), warnings=said, columns=(one, two))


def as_pairs(pairs: Any) -> Pairs:
    """What every call takes as pairs: a path, Pairs, or a sequence of (query, passage) or (query, passage, [negatives])."""
    if isinstance(pairs, Pairs):
        return pairs
    if isinstance(pairs, str | Path):
        return read_pairs(pairs)
    try:
        items = [tuple(item) for item in pairs]
    except TypeError:
        raise TextsError(f"pairs is a {type(pairs).__name__}; give a file, or a list of (query, passage)") from None
    for place, item in enumerate(items):
        if len(item) not in (2, 3):
            raise TextsError(f"pairs[{place}] has {len(item)} parts; give (query, passage) or (query, passage, [hard negatives])")
    others = [_negatives([item[2]]) if len(item) == 3 else () for item in items]
    return Pairs.of([item[0] for item in items], [item[1] for item in items], negatives=others, source=f"{len(items):,} pairs given")


def _columns(table: Table, source: str, query: str | None, passage: str | None) -> tuple[str, str]:
    for name in (query, passage):
        if name is not None and name not in table.columns:
            raise UnknownName(f"column of {source}", name, table.columns)
    known = {name.lower(): name for name in reversed(table.columns)}
    one = query or next((known[name] for name in QUERY_COLUMNS if name in known and known[name] != passage), None)
    two = passage or next((known[name] for name in PASSAGE_COLUMNS if name in known and known[name] != one), None)
    if (one is None or two is None) and len(table.columns) == 2 and all(map(_tells_apart, table.columns.values())):
        first, second = table.columns
        one, two = (one or (second if two == first else first)), (two or (first if one == second else second))
    if one is None or two is None or one == two:
        listed = ", ".join(f"'{name}'" for name in table.columns)
        raise TextsError(f"{source}: which columns hold the query and its passage? It has {listed}; name them (--columns QUERY,PASSAGE)")
    return one, two


def _tells_apart(cells: Sequence[Any]) -> bool:
    """Whether a column can be a side of pairs: a column of labels repeats itself."""
    return all(isinstance(cell, str) for cell in cells) and 2 * len(set(cells)) > len(cells)


def _negatives(cells: Sequence[Any]) -> tuple[str, ...]:
    """Hard negatives of one row; an empty cell is none."""
    found: list[str] = []
    for cell in cells:
        found += cell if isinstance(cell, list | tuple) else [cell] if cell else []
    return tuple(found)


def _repeated(queries: tuple[str, ...], passages: tuple[str, ...]) -> tuple[str, ...]:
    """In-batch negatives that several pairs share are no negatives."""
    said = []
    for name, side in (("queries", queries), ("passages", passages)):
        share = 1 - len(set(side)) / len(side)
        if share > 0:
            said.append(f"{share:.0%} of the {name} repeat an earlier one; in one batch such pairs would be each other's negatives")
    return tuple(said)
