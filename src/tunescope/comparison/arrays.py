"""Sides without a model: rows from .npy, .npz and .parquet files or arrays in memory, matched by id or by their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations import Activations
from tunescope.activations.taps import layer_name
from tunescope.comparison.embedding_table import read_embeddings
from tunescope.comparison.side import Side
from tunescope.errors import ActivationError, AlignmentError, InputError
from tunescope.models.weights import hash_tensors
from tunescope.texts import Corpus

SUFFIXES = (".npy", ".npz", ".parquet")
LAYER = re.compile(r"(?:layer|block)?[_ ]?(\d+)")
BLOCK = 4096  # rows looked at at a time


@dataclass(frozen=True, eq=False)
class Arrays:
    """The rows of one side by layer and site, and the id of each row where there are ids."""

    name: str
    layers: dict[int, Tensor]
    sites: dict[str, Tensor]
    ids: tuple[str, ...] | None = None

    @property
    def places(self) -> dict[str, Tensor]:
        """Every array by the name of its place."""
        return {layer_name(index): rows for index, rows in self.layers.items()} | self.sites

    @property
    def n(self) -> int:
        return len(next(iter(self.places.values())))

    def identity(self) -> dict[str, Any]:
        """Name, shape and number format, and the sha256 of the rows as they were given."""
        places = self.places
        shapes = {str(list(rows.shape)): None for rows in places.values()}
        return {
            "name": self.name,
            "layers": max(self.layers) if self.layers else None,
            "width": next(iter(places.values())).shape[1],
            "shape": ", ".join(shapes),
            "dtype": ", ".join(sorted({str(rows.dtype).removeprefix("torch.") for rows in places.values()})),
            "rows_sha256": hash_tensors(places),
        }

    def at(self, rows: Sequence[int]) -> Arrays:
        """These rows, in this order."""
        pick = torch.tensor(rows)
        ids = None if self.ids is None else tuple(self.ids[row] for row in rows)
        return replace(
            self,
            layers={key: values[pick] for key, values in self.layers.items()},
            sites={key: values[pick] for key, values in self.sites.items()},
            ids=ids,
        )


def is_arrays(source: Any) -> bool:
    """Whether a side is given as rows rather than as a model."""
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() in SUFFIXES
    return isinstance(source, np.ndarray | Tensor | Mapping)


def read_arrays(source: Any, name: str, *, column: str | None = None) -> Arrays:
    """Rows from a file or from memory. (n, d) is the site `output`; (L+1, n, d) are the layers 0 to L, 0 being the embeddings.

    A .npz file or a dict may name its places: `output`, `final`, `layer_3`, `block 3`, `embeddings`; any other name is a site of that
    name. A .parquet file has a column of lists of numbers (column names it when there are several) and may have a column `id`.

    Raises: InputError (not such a file, not numbers, a shape that is neither), AlignmentError (places of different numbers of rows,
    an id twice), ActivationError (NaN or Inf: names the file and the row).
    """
    ids: tuple[str, ...] | None = None
    if isinstance(source, str | Path):
        name, path = str(source), Path(source)
        if not path.is_file():
            raise InputError(f"no such file: '{source}'; give a .npy, .npz or .parquet file of rows")
        if path.suffix.lower() == ".parquet":
            values, ids = read_embeddings(path, column=column)
            given: dict[str, Any] = {"": values}
        else:
            given = _load(path)
    else:
        given = dict(source) if isinstance(source, Mapping) else {"": source}
    arrays = _placed(name, {str(key): _tensor(value, _said(name, str(key))) for key, value in given.items()})
    counts = {len(rows): place for place, rows in arrays.places.items()}
    if len(counts) > 1:
        (one, first), (two, second), *_ = counts.items()
        raise AlignmentError(f"{name}: '{first}' has {one:,} rows and '{second}' has {two:,}; row i of all must be the same text")
    for place, rows in arrays.places.items():
        _check_finite(rows, _said(name, place if len(arrays.places) > 1 else ""), ids)
    return replace(arrays, ids=ids)


def _load(path: Path) -> dict[str, Any]:
    try:
        found = np.load(path, mmap_mode="c" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        return {"": found} if isinstance(found, np.ndarray) else {key: found[key] for key in found.files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"'{path}' cannot be read as an array ({error}); save it with numpy.save, as numbers") from error


def _said(name: str, key: str) -> str:
    return f"'{name}', {key}" if key else f"'{name}'"


def _tensor(value: Any, said: str) -> Tensor:
    """The rows as float32 or float64, in place where they are so already."""
    array = value.detach().cpu() if isinstance(value, Tensor) else np.ascontiguousarray(value)
    real = not (array.is_complex() or array.dtype == torch.bool) if isinstance(array, Tensor) else array.dtype.kind in "fiu"
    if not real:
        raise InputError(f"{said} holds {str(array.dtype).removeprefix('torch.')}, not real numbers; give rows of floats")
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and len(array) == 1):
        raise InputError(f"{said} has shape {tuple(array.shape)}; give (rows, features), or (layers, rows, features) with 2 layers or more")
    if not isinstance(array, Tensor):
        array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
        narrow = array.dtype.itemsize <= 2 or array.dtype == np.float32
        return torch.from_numpy(array.astype(np.float32 if narrow else np.float64, copy=False))
    narrow = array.dtype.itemsize <= 2 or array.dtype == torch.float32
    return array.to(torch.float32 if narrow else torch.float64)


def _placed(name: str, given: dict[str, Tensor]) -> Arrays:
    if not given:
        raise InputError(f"'{name}' holds no arrays; give rows by the name of their layer or site")
    stack = next(iter(given.values()))
    if len(given) == 1 and stack.ndim == 3:
        return Arrays(name, dict(enumerate(stack)), {})
    layers: dict[int, Tensor] = {}
    sites: dict[str, Tensor] = {}
    for key, rows in given.items():
        if rows.ndim == 3:
            raise InputError(
                f"{_said(name, key)} has shape {tuple(rows.shape)}, layers and all, beside other arrays; give one kind"
            )
        plain = key.strip().lower()
        match = LAYER.fullmatch(plain)
        kept: dict[Any, Tensor] = layers if match or plain == "embeddings" else sites
        place = int(match[1]) if match else 0 if plain == "embeddings" else key or "output"
        if place in kept:
            raise InputError(f"{_said(name, key)} names a place that another array of it names too; give each layer and site once")
        kept[place] = rows
    if len(given) == 1 and not any(layers):  # one array is the embedding, whatever it is called
        return Arrays(name, {}, {"output": stack})
    return Arrays(name, dict(sorted(layers.items())), sites)


def _check_finite(rows: Tensor, said: str, ids: tuple[str, ...] | None) -> None:
    for start, block in zip(range(0, len(rows), BLOCK), rows.split(BLOCK), strict=True):
        bad = ~torch.isfinite(block).all(dim=1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            kind = "NaN" if rows[row].isnan().any() else "Inf"
            which = f" (id {ids[row]})" if ids is not None else ""
            raise ActivationError(f"{said} has {kind} in row {row:,}{which}, counted from 0; a measure of it would mean nothing")


def matched(base: Arrays, tuned: Arrays) -> tuple[Arrays, Arrays, str, list[str]]:
    """Both sides on the same rows, how these were matched, and what was left out.

    Raises: AlignmentError (no ids and different numbers of rows, no id in common, no place in common).
    """
    common = [place for place in tuned.places if place in base.places]
    if not common:
        one, two = (", ".join(side.places) for side in (base, tuned))
        raise AlignmentError(f"'{base.name}' holds {one} and '{tuned.name}' holds {two}; name a place alike in both")
    if base.ids is None or tuned.ids is None:
        if base.n != tuned.n:
            raise AlignmentError(
                f"'{base.name}' has {base.n:,} rows and '{tuned.name}' has {tuned.n:,}, and without ids row i of both must be one text; "
                "give the same rows, or .parquet files with a column 'id'"
            )
        return base, tuned, "matched by their order", []
    place = {name: row for row, name in enumerate(tuned.ids)}
    kept = [(row, place[name]) for row, name in enumerate(base.ids) if name in place]
    if not kept:
        raise AlignmentError(
            f"no id of '{base.name}' ({base.ids[0]}, …) is in '{tuned.name}' ({tuned.ids[0]}, …); give files whose ids name the same texts"
        )
    left = [(side.n - len(kept), side) for side in (base, tuned)]
    lost = " and ".join(f"{count:,} of the {side.n:,} rows of '{side.name}'" for count, side in left if count)
    said = [f"{lost} have no row of the same id on the other side and were left out"] if lost else []
    if [*range(base.n)] == [row for row, _ in kept] == [row for _, row in kept]:
        return base, tuned, "matched by id", said
    return base.at([row for row, _ in kept]), tuned.at([row for _, row in kept]), "matched by id", said


def side_of(arrays: Arrays, identity: dict[str, Any], warnings: Sequence[str] = ()) -> Side:
    """A side of rows that came without a model: nothing is known of tokens, pooling or what was cut."""
    acts = Activations(
        layers=arrays.layers,
        sites=arrays.sites,
        names={index: layer_name(index) for index in arrays.layers},
        n=arrays.n,
        groups=None,
        tokens=torch.zeros(arrays.n, dtype=torch.int64),
        truncated=0,
        seconds_forward=0.0,
        pooling="",
        prompt="",
        max_length=0,
    )
    return Side(acts, max(arrays.layers, default=0), identity, tuple(warnings))


def corpus_of(rows: Arrays, how: str, texts: Callable[[], Corpus] | None) -> Corpus:
    """What the rows are: their ids or numbers, and the texts when they were given (by id, where both have ids, else in the same order).

    Raises: AlignmentError when the texts are not as many, or lack an id.
    """
    if texts is None:
        ids = rows.ids or tuple(f"row {row}" for row in range(rows.n))
        return Corpus.unread(ids, how)
    corpus = texts()
    if rows.ids is not None:
        place = {name: row for row, name in enumerate(corpus.ids)}
        lost = [name for name in rows.ids if name not in place]
        if not lost:
            order = [place[name] for name in rows.ids]
            columns = {name: tuple(cells[row] for row in order) for name, cells in corpus.columns.items()}
            return Corpus.of((corpus.texts[row] for row in order), rows.ids, f"{how}; texts: {corpus.source}", columns=columns)
        if len(corpus) != rows.n or len(lost) < rows.n:  # ids of another kind altogether: the order is all there is
            raise AlignmentError(f"{len(lost):,} of {rows.n:,} rows have no text of the same id in {corpus.source} ('{lost[0]}' first)")
    if len(corpus) != rows.n:
        raise AlignmentError(f"{corpus.source} has {len(corpus):,} texts for {rows.n:,} rows; give one a row, or leave the texts out")
    return replace(corpus, source=f"{how}; texts: {corpus.source}")
