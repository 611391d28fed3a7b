"""Where a dictionary says it reads: the names that libraries give to places of a model, as layers of ours."""

from __future__ import annotations

import re
from typing import Any

RESIDUAL = ("resid_post", "resid_pre", "embed")  # what `capture` reads; other sites are inside a block
_LENS = re.compile(r"blocks\.(\d+)\.(?:hook_|attn\.hook_|ln\d\.hook_|mlp\.hook_)(\w+)")  # TransformerLens
_MODULE = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)(?:\.(?!output$)(?P<inside>.+))?(?:\.output)?$")  # Hugging Face
_NAMED = re.compile(r"(resid_post|resid_pre|mlp_out|attn_out|attention_out|mlp|attn)_layer_?(\d+)")  # dictionary_learning


def hook_point(name: str | None) -> dict[str, Any]:
    """`hook_name` as given, and where known `site` and `layer`: 0 is what enters block 1, L + 1 what the block called L returns.

    Block L counted from 0, as these libraries count, gives hidden_states[L + 1]; reading hidden_states[L] is the usual mistake.
    """
    if not name:
        return {}
    layer, site = _place(name)
    return {"hook_name": name} | ({} if site is None else {"site": site}) | ({} if layer is None else {"layer": layer})


def residual_after(block: int) -> dict[str, Any]:
    """The output of a block, counted from 0, by its names in TransformerLens and in ours."""
    return hook_point(residual_hook(block + 1))


def residual_hook(layer: int) -> str:
    """TransformerLens' name of a layer of ours: 0 is what enters the first block, L what block L, counted from 1, returns."""
    return f"blocks.{layer - 1}.hook_resid_post" if layer else "hook_embed"


def _place(name: str) -> tuple[int | None, str | None]:
    if name in ("hook_embed", "embed_tokens", "embedding"):
        return 0, "embed"
    if found := _LENS.fullmatch(name):
        return _layer(int(found[1]), found[2]), found[2]
    if found := _NAMED.search(name):
        return _layer(int(found[2]), found[1]), found[1]
    if found := _MODULE.search(name):
        site = found["inside"] or "resid_post"
        return _layer(int(found[1]), site), site
    return None, None


def _layer(block: int, site: str) -> int:
    """The layer whose rows are nearest: what enters a block for what is read before it, what leaves it for the rest."""
    return block if site in ("resid_pre", "mlp_in", "attn_in") else block + 1
