"""Labelled texts: a corpus and a column of classes, with the rows a probe learns from and the rows it is judged by."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.errors import InputError, TextsError, UnknownName
from tunescope.texts.corpus import Corpus

TEST_SHARE = 0.25


@dataclass(frozen=True)
class Labelled:
    """Texts with a class each: train first, then test.

    classes: names, sorted. labels: (n,) places in `classes`. test: (n,) whether a row is held out. split: how the held-out rows were
    chosen, in words. order: (n,) the place of each row in the corpus, the rows of a test corpus counted on from there. sha256: over texts,
    classes and split.
    """

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    test: tuple[bool, ...]
    order: tuple[int, ...]
    column: str
    source: str
    split: str
    sha256: str
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Rows of each class: (train, test)."""
        pairs = Counter(zip(self.labels, self.test, strict=True))
        return {name: (pairs[place, False], pairs[place, True]) for place, name in enumerate(self.classes)}


def labelled(
    corpus: Corpus, column: str, *, test: Corpus | None = None, share: float = TEST_SHARE, folds: int = 1, seed: int = 0
) -> Labelled:
    """The texts of `corpus` with the classes of its `column`, and held-out rows.

    test: the held-out texts, with the same column; without it, of every class the share of rows whose blake2b(seed, text) is smallest
    (25% by default, at least one where a class has two texts), so the same texts give the same split in any order and copies of a text
    stay on one side. A class that
    the test rows have and the training rows lack is refused: no probe can name it. folds: how many folds the training rows must serve;
    fewer rows than folds is an error, a class with fewer a warning.

    Raises UnknownName (no such column), TextsError (a class that is missing, or only one, or unknown in training), InputError (share,
    folds).
    """
    if not 0 < share < 1:
        raise InputError(f"share={share!r} of the texts was asked for as test; give a number between 0 and 1, such as {TEST_SHARE}")
    names = _column(corpus, column)
    if test is None:
        split = f"{share:.0%} of every class, chosen by hash and seed {seed}"
        held = _chosen(corpus.texts, names, share, seed)
        train_rows = [row for row in range(len(corpus)) if row not in held]
        one, two, order = corpus.rows(train_rows), corpus.rows(sorted(held)) if held else None, (*train_rows, *sorted(held))
        train_names, test_names = [names[row] for row in train_rows], [names[row] for row in sorted(held)]
        if two is None:
            raise TextsError(f"{corpus.source}: no class of '{column}' has two rows, so none can be held out; give a test file (--test)")
    else:
        one, two, split, order = corpus, test, f"the texts of {test.source}", tuple(range(len(corpus) + len(test)))
        train_names, test_names = names, _column(test, column)
    classes = tuple(sorted(set(train_names)))
    _check(classes, train_names, test_names, column, one.source, two.source, folds)
    place = {name: number for number, name in enumerate(classes)}
    labels = tuple(place[name] for name in (*train_names, *test_names))
    texts, held_out = (*one.texts, *two.texts), (False,) * len(one) + (True,) * len(two)
    notes = (*corpus.warnings, *(two.warnings if test is not None else ()), *_said(one, two, train_names, column, folds))
    source = corpus.source if test is None else f"{corpus.source} and {test.source}"
    digest = _hash(texts, [classes[label] for label in labels], held_out)
    return Labelled(texts, (*one.ids, *two.ids), labels, classes, held_out, order, column, source, split, digest, notes)


def _column(corpus: Corpus, column: str) -> list[str]:
    if column not in corpus.columns:
        if not corpus.columns:
            raise TextsError(f"{corpus.source} has no columns beside its texts; labels need a table or jsonl with a column '{column}'")
        raise UnknownName(f"column of labels in {corpus.source}", column, corpus.columns)
    cells = corpus.columns[column]
    bad = [row for row, cell in enumerate(cells) if _missing(cell)]
    if bad:
        raise TextsError(
            f"{corpus.source}: {len(bad):,} of {len(cells):,} rows have no label in column '{column}' ({corpus.ids[bad[0]]} first); "
            "fill them in or remove the rows"
        )
    return [str(cell).strip() for cell in cells]


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell) or not str(cell).strip()


def _chosen(texts: Sequence[str], names: Sequence[str], share: float, seed: int) -> set[int]:
    by_class: dict[str, dict[bytes, list[int]]] = {}
    for row, (text, name) in enumerate(zip(texts, names, strict=True)):
        key = hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=16).digest()
        by_class.setdefault(name, {}).setdefault(key, []).append(row)
    held: set[int] = set()
    for keyed in by_class.values():
        wanted, chosen = round(share * sum(map(len, keyed.values()))), set[int]()
        for key in sorted(keyed)[:-1]:  # copies of a text stay together, and one text is left to train on
            if len(chosen) >= max(1, wanted):
                break
            chosen |= set(keyed[key])
        held |= chosen
    return held


def _check(
    classes: tuple[str, ...], train: Sequence[str], test: Sequence[str], column: str, source: str, test_source: str, folds: int
) -> None:
    if len(classes) < 2:
        raise TextsError(f"{source}: column '{column}' has one class only, '{classes[0]}'; a probe needs two or more")
    if folds < 1:
        raise InputError(f"folds={folds} asked for; give 1 or more")
    if len(train) < folds:
        raise TextsError(f"{source}: {len(train):,} training rows for {folds} folds; give more rows, or fewer folds")
    new = Counter(name for name in test if name not in classes)
    if new:
        listed = ", ".join(f"'{name}'" for name in sorted(new)[:3]) + (", …" if len(new) > 3 else "")
        raise TextsError(
            f"{test_source}: {sum(new.values()):,} rows have a label in column '{column}' that no training row has ({listed}); "
            "remove these rows, or add rows of these classes to the training texts"
        )


def _said(train: Corpus, test: Corpus, names: Sequence[str], column: str, folds: int) -> list[str]:
    notes = []
    known = set(train.texts)
    both = sum(text in known for text in test.texts)
    if both:
        notes.append(f"{both:,} of {len(test):,} test texts are also training texts: their answers were seen")
    few = [name for name, count in Counter(names).items() if count < folds]
    if few:
        listed = ", ".join(f"'{name}'" for name in sorted(few)[:3]) + (", …" if len(few) > 3 else "")
        rows = "fewer rows" if len(few) == 1 else "fewer rows each"
        notes.append(f"{len(few):,} classes of '{column}' have {rows} than the {folds} folds ({listed}): some folds lack them")
    return notes


def _hash(texts: Sequence[str], names: Sequence[str], test: Sequence[bool]) -> str:
    digest = hashlib.sha256()
    for text, name, held in zip(texts, names, test, strict=True):
        for part in (text, name):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        digest.update(b"\1" if held else b"\0")
    return digest.hexdigest()
