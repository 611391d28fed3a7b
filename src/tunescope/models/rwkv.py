"""RWKV's habit of halving its output weights in place when it runs in evaluation mode, kept from happening."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from tunescope.errors import ModelError


def check_unscaled(body: nn.Module, *, name: str) -> None:
    """Raise ModelError when `body` is an RWKV whose weights are halved already: their bytes are then not the checkpoint's."""
    every = getattr(body.config, "rescale_every", 0) if _is_rwkv(body) else 0
    if every and body.layers_are_rescaled:
        raise ModelError(
            f"'{name}' is an RWKV that has run in evaluation mode, which divided its output weights in place (rescale_every={every}); "
            "give its folder or hub id, or load it again with rescale_every=0"
        )


@contextmanager
def unscaled(body: nn.Module, *, name: str) -> Iterator[None]:
    """The body without rescaling inside the block, for an RWKV; its setting is put back afterwards, and its weights never move.

    With `rescale_every` k, block i's output weights are divided by 2^(i // k) in place and the hidden state is halved after every k
    blocks, so hidden states and hashes are of other numbers than the checkpoint's (transformers, RwkvModel._rescale_layers).
    Raises ModelError when that has happened already.
    """
    if not _is_rwkv(body):
        yield
        return
    check_unscaled(body, name=name)
    every, done = body.config.rescale_every, body.layers_are_rescaled
    body.config.rescale_every = 0
    try:
        yield
    finally:
        body.config.rescale_every, body.layers_are_rescaled = every, done


def _is_rwkv(body: nn.Module) -> bool:
    return hasattr(body, "layers_are_rescaled") and hasattr(getattr(body, "config", None), "rescale_every")
