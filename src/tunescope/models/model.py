"""One side of a comparison: a body ready to run, its tokenizer, and what says exactly which model it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tunescope.models.adapters import adapter_tensors, base_tensors, switched
from tunescope.models.anatomy import Anatomy
from tunescope.models.lengths import DEFAULT_LENGTH
from tunescope.models.output import OutputHead
from tunescope.models.placement import input_device, offloaded
from tunescope.models.pretraining import UNKNOWN
from tunescope.models.quantised import unpacked
from tunescope.models.rwkv import unscaled
from tunescope.models.sources import Folder
from tunescope.models.weights import hash_tensors, hash_tokenizer


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode inside the block; every part that was in training mode is put back afterwards."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@dataclass(eq=False)
class Model:
    """A body (no task head) in evaluation order, with its tokenizer and anatomy.

    Run `module` only inside `active()`: base and tuned may share one copy of the weights, and `active()` switches the adapter to
    this side. `peft` is the PEFT wrapper around that shared copy, `adapter_on` tells which side this is, `adapters` names this side's
    adapters in the wrapper, `adapter` describes them. `pretraining`: the objective of the checkpoint the body comes from. `origin`: the
    folder or the loaded model the body was taken from, and `worn` the folder of this side's adapter, where a task head still is.
    """

    name: str
    module: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    anatomy: Anatomy
    output: OutputHead = field(default_factory=OutputHead)
    max_length: int = DEFAULT_LENGTH
    lowercase: bool = False
    revision: str | None = None
    peft: Any = field(default=None, repr=False)
    adapter_on: bool = False
    adapters: tuple[str, ...] = ()
    adapter: dict | None = None
    pretraining: str = UNKNOWN
    origin: Folder | nn.Module | None = field(default=None, repr=False)
    worn: Folder | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where token ids go: where the weights are, or the embeddings of a model that is spread over devices."""
        return input_device(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return next(self.module.parameters()).dtype

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, first to last."""
        return self.anatomy.block_modules(self.module)

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The body in evaluation mode and on this side of the adapter; everything is put back afterwards."""
        side = nullcontext() if self.peft is None else switched(self.peft, self.adapters if self.adapter_on else ())
        with evaluating(self.module), side, unscaled(self.module, name=self.name), unpacked(self.module):
            yield self.module

    def without_adapter(self, name: str | None = None) -> Model:
        """The base side of the same weights: the adapter switched off."""
        return replace(self, name=name or self.name, adapter_on=False, adapters=(), adapter=None, worn=None, warnings=list(self.warnings))

    def tensors(self) -> dict[str, Tensor]:
        """The weights of this side by name, under the names the base has without an adapter; the adapter's own when it is on.

        Parameters and persistent buffers of the body, without the pooler (which no site reads and many checkpoints lack).
        """
        return base_tensors(self.module) | (adapter_tensors(self.module, self.adapters) if self.adapter_on else {})

    def identity(self, *, known: dict | None = None) -> dict:
        """JSON-able: what exactly this is now. Hashes the weights in place at each call (about a second per GB): keep the answer.

        known: one dict for two sides read one right after the other: what they share is hashed once.
        """
        known = {} if known is None else known
        if id(self.tokenizer) not in known:
            known[id(self.tokenizer)] = hash_tokenizer(self.tokenizer)
        tensors = self.tensors()
        return {
            "name": self.name,
            "family": self.anatomy.family,
            "derived": self.anatomy.derived,
            "block": self.anatomy.block_type,
            "pretraining": self.pretraining,
            "layers": self.anatomy.n_layers,
            "width": self.anatomy.width,
            "vocabulary": self.module.get_input_embeddings().weight.shape[0],
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "revision": self.revision,
            "weights_sha256": hash_tensors(tensors, offloaded(self.module), known=known),
            "tokenizer_sha256": known[id(self.tokenizer)],
            "adapter": self.adapter,
            "output": self.output.describe(),
        }
