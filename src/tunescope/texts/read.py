"""What a person points at, a file, a list or nothing, becomes a `Corpus`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunescope.errors import InputError, TextsError, UnknownName
from tunescope.texts.chats import CHAT_TEXT, MESSAGES, with_chat_texts
from tunescope.texts.corpus import Corpus
from tunescope.texts.documentation import documentation_source, paragraphs
from tunescope.texts.hub import PREFIX, read_hub
from tunescope.texts.tables import READERS, Table

# Tried in this order, without regard to case, when no column is named.
TEXT_COLUMNS = ("text", "sentence", "passage", "content", "document", "body", "question", "query", "utterance", "review", "abstract")
ID_COLUMNS = ("id", "_id")


def read_texts(path: str | Path, *, column: str | None = None, sample: int | None = None, seed: int = 0, chats: bool = False) -> Corpus:
    """The texts of a .txt (one a line), .jsonl, .csv, .tsv or .parquet file, in its order, or of a dataset on the hub.

    A table's texts are in `column`; without one, in the first of `TEXT_COLUMNS` it has, else in its only column of strings. Its other
    columns are kept. Blank texts are skipped and counted in `warnings`; a null or a number is an error, as is a byte that is not UTF-8.
    `sample`: keep n texts, see `Corpus.sample`. `chats`: where no column is named and the file has one called `messages`, its rows are
    conversations, see `texts.chats`. "hf:org/name:split" streams a dataset, whose first texts are kept, see `texts.hub`.
    Raises `TextsError` (with file and line), `UnknownName` for a column the file has not.
    """
    if isinstance(path, str) and path.startswith(PREFIX):
        dataset = read_hub(path, sample=sample)
        return corpus_of(dataset.table, dataset.source, column, chats=chats)
    table = read_table(path)
    path = Path(path)
    if not table.rows:
        raise TextsError(f"{path}: no texts in it; a comparison needs one text a line or row")
    if column is not None and path.suffix.lower() == ".txt":
        raise InputError(f"column={column!r} was given and {path} has none: .txt is one text a line; leave it out")
    corpus = corpus_of(table, str(path), column, chats=chats)
    return corpus if sample is None else corpus.sample(sample, seed=seed)


def read_table(path: str | Path) -> Table:
    """The columns of a .txt, .jsonl, .csv, .tsv or .parquet file. Raises TextsError, naming the file and what is the matter."""
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    try:
        if path.is_dir():
            raise TextsError(f"{path}: a folder; give one file of texts ({_suffixes()})")
        if not path.exists():
            raise TextsError(f"{path}: no such file{_nearest(path)}")
        if reader is None:
            raise TextsError(f"{path}: texts are read from {_suffixes()}, not '{path.suffix or path.name}'; rename or convert the file")
        return reader(path)
    except OSError as error:
        raise TextsError(f"{path}: cannot be read ({error.strerror or error})") from error


def as_corpus(
    texts: str | Path | Sequence[str] | Corpus | None,
    *,
    column: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    chats: bool = False,
) -> Corpus:
    """What every call takes as `texts`: a path, a sequence of strings, a `Corpus`, or None for the documentation that ships with Python.

    A string is always a path (or "hf:…"): a single text goes in a list. `column` and `chats` are for files and datasets only.
    Raises `TextsError` for an item that is not a string or is blank, by its position, and `InputError` for what is not a sequence of
    texts at all.
    """
    if isinstance(texts, (str, Path)):
        return read_texts(texts, column=column, sample=sample, seed=seed, chats=chats)
    if column is not None:
        raise InputError(f"column={column!r} was given with texts that are not a file; leave it out")
    if texts is None:
        prose = paragraphs()
        corpus = Corpus.of(prose, (f"paragraph {number}" for number in range(1, len(prose) + 1)), documentation_source())
    elif isinstance(texts, Corpus):
        corpus = texts
    else:
        corpus = _given(texts)
    return corpus if sample is None else corpus.sample(sample, seed=seed)


def _given(texts: Sequence[str]) -> Corpus:
    kind = type(texts).__name__
    if hasattr(texts, "columns") or isinstance(texts, (Mapping, bytes)):
        raise InputError(f"texts is a {kind}; give a list of strings, for example list(frame['text'])")
    try:
        items = list(texts)
    except TypeError:
        raise InputError(f"texts is a {kind}; give a path, a list of strings, or None for {documentation_source()}") from None
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise TextsError(f"texts[{place}] is {_shown(item)}, not a string; every text must be one")
        if not item.strip():
            raise TextsError(f"texts[{place}] is blank; leave it out, and its row elsewhere with it")
    return Corpus.of(map(str, items), (f"text {number}" for number in range(len(items))), f"{len(items):,} texts given as a {kind}")


def corpus_of(table: Table, source: str, column: str | None, *, chats: bool = False) -> Corpus:
    """The texts of a table read from `source`, a path or the name of a dataset."""
    if chats and column in (None, MESSAGES) and MESSAGES in table.columns:
        table, column = with_chat_texts(table, source), CHAT_TEXT
    name, notes = _text_column(table, source, column)
    kept = []
    for row, cell in enumerate(table.columns[name]):
        if not isinstance(cell, str):
            raise TextsError(f"{source}, {table.rows[row]}: column '{name}' is {_shown(cell)}, not a text; fill it in or remove the row")
        if cell.strip():
            kept.append(row)
    blank = len(table.rows) - len(kept)
    skipped = (f"{blank:,} of {len(table.rows):,} texts are blank and were skipped",) if blank else ()
    columns = {other: tuple(cells[row] for row in kept) for other, cells in table.columns.items() if other != name}
    names = next((columns[key] for key in ID_COLUMNS if key in columns), (None,) * len(kept))
    ids = (table.rows[row] if given is None or given == "" else str(given) for row, given in zip(kept, names, strict=True))
    texts = (table.columns[name][row] for row in kept)
    return Corpus.of(texts, ids, source, columns=columns, warnings=(*table.warnings, *notes, *skipped))


def _text_column(table: Table, source: str, column: str | None) -> tuple[str, tuple[str, ...]]:
    """The column to read, and a warning when another could have been meant."""
    if column is not None:
        if column not in table.columns:
            raise UnknownName(f"column of {source}", column, table.columns)
        return column, ()
    usual = sorted((name for name in table.columns if name.lower() in TEXT_COLUMNS), key=lambda name: TEXT_COLUMNS.index(name.lower()))
    if usual:
        others = ", ".join(f"'{name}'" for name in usual[1:])
        return usual[0], ((f"texts are column '{usual[0]}' of {source}; it also has {others}: name a column to choose",) if others else ())
    strings = [name for name, cells in table.columns.items() if all(isinstance(cell, str) for cell in cells)]
    strings = [name for name in strings if not all(map(_is_number, table.columns[name]))]
    if len(strings) == 1:
        return strings[0], ()
    listed = ", ".join(f"'{name}'" for name in table.columns)
    raise TextsError(f"{source}: which column holds the texts? It has {listed}; name one (--column), or call it '{TEXT_COLUMNS[0]}'")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    return "null" if value is None else f"{value!r:.40} ({type(value).__name__})"


def _suffixes() -> str:
    *most, last = READERS
    return f"{', '.join(most)} and {last}"


def _nearest(path: Path) -> str:
    folder = path.parent
    near = difflib.get_close_matches(path.name, [child.name for child in folder.iterdir()] if folder.is_dir() else [], n=3)
    if near:
        return f"; did you mean {', '.join(str(folder / name) for name in near)}?"
    return "; a text of your own goes in a list or a file" if " " in path.name else f"; looked in {folder.resolve()}"
