"""Where the parts of a model are: read off the table of known families, and derived from the module tree for the rest.

Axis legend of the package: n texts, b texts of a batch, t tokens, d features of a block, e features of the deployed embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from tunescope.errors import ModelError
from tunescope.models.families import FAMILIES

_TOWERS = ("language_model", "text_model")  # the part that reads text in models of text and images whose family is not in the table


@dataclass(frozen=True)
class Anatomy:
    """The parts of one body: `blocks`, `embeddings` and `final_norm` are dotted paths; width is d, the features of a block's output.

    parallel: attention and MLP read the same input and are added together; None where the anatomy is derived and nobody knows.
    """

    family: str
    blocks: str
    embeddings: tuple[str, ...]
    final_norm: str | None
    causal: bool
    parallel: bool | None
    lora_targets: tuple[str, ...]
    n_layers: int
    width: int
    derived: bool = False

    @property
    def block_type(self) -> str:
        """How a block adds its parts to the residual stream: sequential, parallel, or unknown."""
        return "unknown" if self.parallel is None else "parallel" if self.parallel else "sequential"

    def block_modules(self, body: nn.Module) -> list[nn.Module]:
        """The blocks of `body`, first to last; block i of the reports is element i − 1."""
        return list(body.get_submodule(self.blocks))


def text_body(module: nn.Module) -> nn.Module:
    """The part of a loaded model that turns tokens into hidden states: no task head, no decoder of an encoder-decoder, no vision tower."""
    body = getattr(module, "base_model", module)
    if getattr(getattr(body, "config", None), "is_encoder_decoder", False) and hasattr(body, "get_encoder"):
        body = body.get_encoder()
    family = FAMILIES.get(_model_type(body))
    inside = (family.body,) if family else _TOWERS if hasattr(getattr(body, "config", None), "text_config") else ()
    found = next((path for path in inside if path and hasattr(body, path)), None)
    return body if found is None else body.get_submodule(found)


def read_anatomy(body: nn.Module) -> Anatomy:
    """The anatomy of `body`: from the table when its family is known, else derived from the longest list of equal blocks.

    Raises ModelError when neither works.
    """
    model_type = _model_type(body)
    family = FAMILIES.get(model_type)
    if family and _has(body, family.blocks):
        final_norm = family.final_norm if family.final_norm and _has(body, family.final_norm) else None
        blocks = body.get_submodule(family.blocks)
        return Anatomy(
            family=model_type,
            blocks=family.blocks,
            embeddings=tuple(path for path in family.embeddings if _has(body, path)),
            final_norm=final_norm,
            causal=family.causal and not getattr(body.config, "use_bidirectional_attention", False),
            parallel=family.parallel and getattr(body.config, "use_parallel_residual", True),
            lora_targets=family.lora_targets,
            n_layers=len(blocks),
            width=_width(body),
        )
    return _derive(body, model_type)


def _derive(body: nn.Module, model_type: str) -> Anatomy:
    lists = {
        name: blocks
        for name, blocks in body.named_modules()
        if isinstance(blocks, nn.ModuleList) and len(blocks) >= 2 and len({type(block) for block in blocks}) == 1
    }
    if not lists:
        raise ModelError(
            f"cannot find the blocks of {type(body).__name__} (model type '{model_type}'): "
            f"no list of two or more blocks of one class; known families: {', '.join(sorted(FAMILIES))}"
        )
    path = max(lists, key=lambda name: len(lists[name]))
    table = getattr(body, "get_input_embeddings", lambda: None)()
    return Anatomy(
        family=model_type,
        blocks=path,
        embeddings=tuple(name for name, module in body.named_modules() if module is table and table is not None),
        final_norm=None,
        causal=bool(getattr(getattr(body, "config", None), "is_decoder", False)),
        parallel=None,
        lora_targets=(),
        n_layers=len(lists[path]),
        width=_width(body),
        derived=True,
    )


def _model_type(body: nn.Module) -> str:
    return getattr(getattr(body, "config", None), "model_type", "") or type(body).__name__


def _width(body: nn.Module) -> int:
    width = getattr(getattr(body, "config", None), "hidden_size", None)
    if width is None:
        raise ModelError(f"{type(body).__name__} has no config.hidden_size; pass a Hugging Face model")
    return int(width)


def _has(body: nn.Module, path: str) -> bool:
    """Whether `path` leads to a module that is really there (some families set an unused final norm to None)."""
    node: Any = body
    for part in path.split("."):
        node = getattr(node, part, None)
        if node is None:
            return False
    return True
