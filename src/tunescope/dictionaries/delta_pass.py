"""One pass over the texts for many: a base's forward, and one of each tuned model, give the deltas at all places, batch by batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunescope.activations.batches import TokenisedTexts, check_vocabulary, collate, plan_batches, tokenise
from tunescope.activations.capture import check_length
from tunescope.dictionaries.delta_norms import row_lengths
from tunescope.dictionaries.deltas import BasePass, Delta, base_pass, make_delta, rows_at
from tunescope.dictionaries.hygiene import Dropped, Hygiene, held_out
from tunescope.dictionaries.partial_forward import Place, place_name
from tunescope.errors import ActivationError, AlignmentError, InputError
from tunescope.models import Model
from tunescope.models.quiet import quietly
from tunescope.models.weights import hash_tokenizer
from tunescope.texts import Corpus, as_corpus

BASE, NOISE = "base", "noise"  # names of the base's own rows, and of base − base in another batch composition
SAMPLE = 4096  # rows the median norms are read from
TOGETHER = 4096  # tokens of batches that are run through one model before the next has its turn
_FILE_NAME = re.compile(r"[\w+-][\w.+-]*")


@dataclass(frozen=True, eq=False)
class DeltaBatch:
    """The rows of one batch of texts, on the CPU, text by text: where each token stands, the base's rows, and the deltas beside them."""

    number: int
    document: Tensor  # (rows,) int32, the text by its place in the corpus
    position: Tensor  # (rows,) int32, in the text; special tokens are counted
    token: Tensor  # (rows,) int32
    held_out: Tensor  # (rows,) bool
    x: dict[Place, Tensor]  # (rows, d) float32
    deltas: dict[tuple[str, Place], Tensor]  # (rows, d) float32 by tuned model and place
    dropped: Dropped

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class Calibration:
    """What a first sample of the base's rows fixes: the median norm at each place, and the width there."""

    medians: dict[Place, float]
    widths: dict[Place, int]
    rows: int


@dataclass(frozen=True, eq=False)
class DeltaPass:
    """A base and its tuned models, checked against each other, and texts cut into batches for them; nothing has run yet."""

    base: Model
    tuned: dict[str, Model]
    corpus: Corpus
    delta: Delta
    hygiene: Hygiene
    tokens: TokenisedTexts
    plan: tuple[np.ndarray, ...]
    held: np.ndarray  # (n,) bool
    noise: bool
    reading: dict[str, Any]

    @classmethod
    def of(
        cls,
        base: Model,
        tuned: Mapping[str, Model],
        texts: Any,
        *,
        layers: Iterable[Place] | Place | None = None,
        kind: str = "residual",
        batch_size: int = 32,
        max_length: int | None = None,
        prompt: str | None = None,
        hygiene: Hygiene | None = None,
        held_out_share: float = 0.1,
        noise: bool = False,
    ) -> DeltaPass:
        """Arguments as in `delta_batches`."""
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size} asked for; it must be at least 1")
        if not tuned and not noise:
            raise InputError('no tuned model was given, as in {"rank8": model}, and no noise was asked for')
        _check_together(base, tuned)
        delta, corpus, chosen = make_delta(kind, base, tuned, layers), as_corpus(texts), hygiene or Hygiene()
        length = min(check_length(model, max_length) for model in (base, *tuned.values()))
        said = base.output.prompt if prompt is None else prompt
        ids = corpus.ids
        tokens = tokenise(
            base, corpus.texts, prompt=said, max_length=length, special_tokens=not chosen.special, label=lambda i: f"text {ids[i]}"
        )
        for model in (base, *tuned.values()):
            check_vocabulary(tokens, model)
        plan = tuple(plan_batches(tokens.lengths, batch_size))
        reading = {"kind": kind, "batch_size": batch_size, "max_length": length, "prompt": said, "held_out": held_out_share}
        return cls(base, dict(tuned), corpus, delta, chosen, tokens, plan, held_out(corpus.texts, held_out_share), noise, reading)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where deltas are read."""
        return self.delta.places

    @property
    def most_rows(self) -> int:
        """The rows there will be if no token is a sink."""
        rows = self.tokens.counted_lengths
        if self.hygiene.first:
            counted = self.tokens.counted
            rows = rows - (1 if counted is None else counted[self.tokens.offsets[:-1]])
        return int(rows.sum())

    def calibrate(self) -> Calibration:
        """The base's median norms, from whole forwards over a sample of batches spread evenly over the texts; the same at each call."""
        per_batch = max(self.most_rows / len(self.plan), 1)
        chosen = np.unique(np.linspace(0, len(self.plan) - 1, int(min(len(self.plan), np.ceil(SAMPLE / per_batch)))).round().astype(int))
        lengths: dict[Place, list[Tensor]] = {place: [] for place in self.places}
        widths: dict[Place, int] = {}
        for number in chosen:
            ids, mask, counted = self._collated(self.plan[number])
            kept = self.hygiene.kept(counted)
            with quietly(), torch.no_grad(), self.base.active():
                rows = rows_at(self.base, ids, mask, kept, self.places, stop=False)
            for place, values in rows.items():
                self._check_finite(self.base, place, values, self._places(number, kept, ids)[0])
                lengths[place].append(row_lengths(values).cpu())
                widths[place] = values.shape[1]
        joined = {place: torch.cat(found).numpy() for place, found in lengths.items()}
        medians = {place: float(np.median(found)) if len(found) else 0.0 for place, found in joined.items()}
        return Calibration(medians, widths, len(joined[self.places[0]]))

    def batches(self, calibration: Calibration, *, start: int = 0) -> Iterator[DeltaBatch]:
        """The batches from number `start` on. Short ones are run several at a time: switching an adapter costs what many tokens do."""
        for numbers in self._groups(start):
            with quietly(), torch.no_grad():
                group = self._group(numbers, calibration)
            yield from group

    def _groups(self, start: int) -> Iterator[list[int]]:
        numbers: list[int] = []
        tokens = 0
        for number in range(start, len(self.plan)):
            size = int(self.tokens.lengths[self.plan[number]].sum())
            if numbers and tokens + size > TOGETHER:
                yield numbers
                numbers, tokens = [], 0
            numbers, tokens = [*numbers, number], tokens + size
        if numbers:
            yield numbers

    def _group(self, numbers: list[int], calibration: Calibration) -> list[DeltaBatch]:
        with self.base.active():
            batches = [self._of_base(number, calibration) for number in numbers]
            for batch, found in batches if self.noise else ():
                batch.deltas.update({(NOISE, place): (rows - found.x[place]).cpu() for place, rows in self._recomposed(found).items()})
        for name, model in self.tuned.items():
            with model.active():
                for batch, found in batches:
                    for place, rows in self.delta.of(name, model, found).items():
                        batch.deltas[name, place] = self._check_finite(model, place, rows, batch.document).cpu()
        return [batch for batch, _ in batches]

    def _of_base(self, number: int, calibration: Calibration) -> tuple[DeltaBatch, BasePass]:
        """A batch with the base's rows, and what its deltas start from."""
        ids, mask, counted = self._collated(self.plan[number])
        found = base_pass(self.base, ids, mask, self.hygiene.kept(counted), self.delta)
        document, position, token = self._places(number, found.kept, ids)
        for place, rows in found.x.items():
            self._check_finite(self.base, place, rows, document)
        sinks = self.hygiene.sinks_in({place: row_lengths(rows).cpu() for place, rows in found.x.items()}, calibration.medians)
        stays = ~torch.stack(list(sinks.values())).any(dim=0) if sinks else torch.ones(len(document), dtype=torch.bool)
        found = found.only(stays)
        document, position, token = document[stays], position[stays], token[stays]
        dropped = Dropped.of(self.hygiene, mask.cpu(), counted.cpu(), sinks, len(document))
        x = {place: rows.cpu() for place, rows in found.x.items()}
        return DeltaBatch(number, document, position, token, torch.from_numpy(self.held)[document.long()], x, {}, dropped), found

    def _collated(self, batch: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        return collate(self.tokens, batch, pad_id=self.base.tokenizer.pad_token_id or 0, device=self.base.device)

    def _places(self, number: int, kept: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Document, position and token id (rows,) of the flat positions of a batch."""
        flat, width = kept.cpu(), ids.shape[1]
        texts = torch.from_numpy(self.plan[number].astype(np.int32))
        return texts[flat // width], (flat % width).int(), ids.flatten().cpu()[flat].int()

    def _recomposed(self, found: BasePass) -> dict[Place, Tensor]:
        """The base's same rows with the batch's texts in two halves, each padded to its own longest text; a single text is doubled."""
        texts, width = found.ids.shape
        halves = torch.arange(texts).tensor_split(2) if texts > 1 else (torch.tensor([0, 0]),)
        flat, lengths = found.kept.cpu(), found.mask.sum(dim=1).cpu()
        rows = {place: torch.empty_like(x) for place, x in found.x.items()}
        for half in halves:
            longest, first = int(lengths[half].max()), int(half[0])
            mine = ((flat // width) >= first) & ((flat // width) <= int(half[-1]))
            kept = (flat[mine] // width - first) * longest + flat[mine] % width
            there = half.to(found.ids.device)
            ids, mask = (each[there, :longest] for each in (found.ids, found.mask))
            for place, values in rows_at(self.base, ids, mask, kept, self.places).items():
                rows[place][mine.to(values.device)] = values
        return rows

    def _check_finite(self, model: Model, place: Place, rows: Tensor, document: Tensor) -> Tensor:
        if torch.isfinite(rows.sum()) or torch.isfinite(rows).all():
            return rows
        bad = ~torch.isfinite(rows).all(dim=1)
        text = self.corpus.ids[int(document[bad.cpu()].min())]
        kind = "NaN" if rows.isnan().any() else "Inf"
        hint = "float16 overflows easily, try float32" if model.dtype == torch.float16 else "the model is damaged or diverged"
        raise ActivationError(f"'{model.name}' gives {kind} at {place_name(place)} for text {text}; {hint}")


def delta_batches(
    base: Model,
    tuned: Mapping[str, Model],
    texts: Any,
    *,
    layers: Iterable[Place] | Place | None = None,
    kind: str = "residual",
    batch_size: int = 32,
    max_length: int | None = None,
    prompt: str | None = None,
    hygiene: Hygiene | None = None,
    held_out_share: float = 0.1,
    noise: bool = False,
) -> Iterator[DeltaBatch]:
    """The deltas of several tuned models against one base, from one pass over the texts: base + R tuned models are R + 1 forwards a batch,
    each left after the last layer that is wanted; adapters on one base share one copy of its weights (see `models.load_several`).

    tuned: by the names reports call them. layers: 0 (embeddings) to L, for kind "local" names of adapted modules; None is every layer.
    kind: residual, local or patched, see `deltas`. prompt: put before every text; None is the base's declared one. hygiene: what
    is dropped. held_out_share: of documents, chosen by a hash of their text. noise: one more forward of the base a batch, with its texts in
    two halves: base − base, the delta of the arithmetic alone, under the name "noise".

    Raises: InputError (layer outside, names), UnknownName (kind, module), AlignmentError (tokenizers or widths differ), ActivationError
    (NaN or Inf: names model, layer and text), TextsError, ModelError.
    """
    reading: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "prompt": prompt}
    chosen: dict[str, Any] = {"hygiene": hygiene, "held_out_share": held_out_share, "noise": noise}
    whole = DeltaPass.of(base, tuned, texts, layers=layers, kind=kind, **reading, **chosen)
    return whole.batches(whole.calibrate())


def _check_together(base: Model, tuned: Mapping[str, Model]) -> None:
    """Raises InputError for a name no file can have, AlignmentError where rows of the two are not of the same tokens or widths."""
    hashes: dict[int, str] = {}

    def tokenizer(model: Model) -> str:
        if id(model.tokenizer) not in hashes:
            hashes[id(model.tokenizer)] = hash_tokenizer(model.tokenizer)
        return hashes[id(model.tokenizer)]

    for name, model in tuned.items():
        if not _FILE_NAME.fullmatch(name) or name in (BASE, NOISE):
            raise InputError(f"'{name}' cannot name a tuned model: files are called after it; use letters, digits, ._+-, not base, noise")
        if model.anatomy.width != base.anatomy.width:
            raise AlignmentError(
                f"'{base.name}' is {base.anatomy.width} features wide and '{model.name}' {model.anatomy.width}; a delta needs equal widths"
            )
        if tokenizer(model) != tokenizer(base):
            raise AlignmentError(f"the tokenizers of '{base.name}' and '{model.name}' differ, so their rows are not of the same tokens")
        if model.lowercase != base.lowercase:
            raise AlignmentError(f"only one of '{base.name}' and '{model.name}' lowercases texts, so their rows are not of the same tokens")

