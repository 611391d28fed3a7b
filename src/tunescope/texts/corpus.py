"""The texts a comparison reads: what they are, where they came from and, hashed, exactly which."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunescope.errors import InputError, TextsError


@dataclass(frozen=True)
class Corpus:
    """Texts in a stable order, each with a name that a message can use.

    `ids` name a text for people ("line 17", "row 3", or the file's own id). `columns` are the file's other columns, row for row.
    `sampled_from` is the number of texts before sampling, None when all are here. `sha256` is `hash_texts(texts)`.
    """

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    source: str
    columns: dict[str, tuple]
    sampled_from: int | None
    sha256: str
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        ids: Iterable[str],
        source: str,
        *,
        columns: Mapping[str, tuple] | None = None,
        sampled_from: int | None = None,
        warnings: Iterable[str] = (),
    ) -> Corpus:
        """A corpus with its hash and its warning about duplicates worked out.

        Raises `TextsError` when there is no text, or one that is not Unicode.
        """
        texts, ids = tuple(texts), tuple(ids)
        if not texts:
            raise TextsError(f"{source}: no texts in it; a comparison needs one text a row")
        _refuse_surrogates(texts, ids, source)
        said = (*warnings, *_duplicates(texts))
        return cls(texts, ids, source, dict(columns or {}), sampled_from, hash_texts(texts), said)

    @classmethod
    def unread(
        cls, ids: Iterable[str], source: str, *, sha256: str = "", sampled_from: int | None = None, warnings: Iterable[str] = ()
    ) -> Corpus:
        """Texts that were read elsewhere and are not here: known by their ids and, if at all, their hash. Every one is empty."""
        ids = tuple(ids)
        return cls(("",) * len(ids), ids, source, {}, sampled_from, sha256, tuple(warnings))

    def __len__(self) -> int:
        return len(self.texts)

    def sample(self, n: int, *, seed: int = 0) -> Corpus:
        """The n texts whose blake2b(seed, text, occurrence) is smallest, in the order they have here.

        The choice depends on the texts and the seed only: the same texts in another order give the same sample, and a sample of n is
        contained in every larger one of the same seed. All texts, with a warning, when there are fewer than n.
        Raises `InputError` for n < 1.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"sample={n!r} asked for; it must be a whole number of texts, 1 or more")
        repeats = _duplicates(self.texts)
        notes = [warning for warning in self.warnings if warning not in repeats]  # they are counted again below
        if n >= len(self):
            if n > len(self):
                notes.append(f"a sample of {n:,} was asked for and there are {len(self):,} texts: all are used")
            return Corpus.of(self.texts, self.ids, self.source, columns=self.columns, sampled_from=self.sampled_from, warnings=notes)
        return self.rows(self.chosen(n, seed=seed), warnings=notes)

    def chosen(self, n: int, *, seed: int = 0) -> list[int]:
        """The positions of the n texts that a sample of this seed keeps, in order."""
        keys = _sampling_keys(self.texts, seed)
        return sorted(sorted(range(len(self)), key=keys.__getitem__)[:n])

    def rows(self, rows: Sequence[int], *, warnings: Iterable[str] = ()) -> Corpus:
        """The texts at these positions, in this order."""
        return Corpus.of(
            (self.texts[row] for row in rows),
            (self.ids[row] for row in rows),
            self.source,
            columns={name: tuple(values[row] for row in rows) for name, values in self.columns.items()},
            sampled_from=self.sampled_from or len(self),
            warnings=warnings,
        )

    def with_texts(self, texts: Iterable[str]) -> Corpus:
        """The same rows, each with another text in its place: as a template writes it, for example."""
        repeats = _duplicates(self.texts)  # counted again
        notes = [warning for warning in self.warnings if warning not in repeats]
        return Corpus.of(texts, self.ids, self.source, columns=self.columns, sampled_from=self.sampled_from, warnings=notes)


def hash_texts(texts: Iterable[str]) -> str:
    """sha256, in hex, over every text in order: its length in UTF-8 bytes (8 bytes, little-endian), then those bytes."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _sampling_keys(texts: tuple[str, ...], seed: int) -> list[bytes]:
    seen: Counter[str] = Counter()
    keys = []
    for text in texts:
        keys.append(hashlib.blake2b(f"{seed}\0{seen[text]}\0{text}".encode(), digest_size=16).digest())
        seen[text] += 1
    return keys


def _duplicates(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The warning that some texts repeat others, or nothing."""
    repeated = len(texts) - len(set(texts))
    said = "is a duplicate" if repeated == 1 else "are duplicates"
    return (f"{repeated:,} of {len(texts):,} texts {said} of another",) if repeated else ()


def _refuse_surrogates(texts: tuple[str, ...], ids: tuple[str, ...], source: str) -> None:
    for text, name in zip(texts, ids, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            raise TextsError(
                f"{source}, {name}: {half} at character {error.start:,} is half of a surrogate pair, not text; "
                "remove it or write the whole character"
            ) from None
