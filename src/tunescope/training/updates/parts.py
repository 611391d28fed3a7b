"""What each parameter of a model is: of which block, an embedding, of a normalisation, a bias."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tunescope.models.anatomy import Anatomy


@dataclass(frozen=True, eq=False)
class Part:
    """One parameter, once however many modules share it. block: from 1, None outside the blocks."""

    name: str
    parameter: nn.Parameter
    block: int | None
    embedding: bool
    norm: bool
    bias: bool

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to matrices that are not of a normalisation, and not to Mamba's A_log.

        Mamba's authors exempt A_log, the logarithm of a rate of forgetting, and transformers does not mark it.
        """
        matrix = sum(size > 1 for size in self.parameter.shape) >= 2
        return matrix and not self.norm and not self.bias and self.name.rpartition(".")[2] != "A_log"


def read_parts(module: nn.Module, body: nn.Module, anatomy: Anatomy) -> list[Part]:
    """Every parameter of `module`, whose text body is `body`, in the module's order."""
    blocks = {id(p): i for i, block in reversed([*enumerate(anatomy.block_modules(body), 1)]) for p in block.parameters()}
    embeddings = {id(p) for path in anatomy.embeddings for p in body.get_submodule(path).parameters()}
    norms = {id(p) for part in module.modules() if is_norm(part) for p in part.parameters(recurse=False)}
    return [
        Part(
            name=name,
            parameter=parameter,
            block=blocks.get(id(parameter)),
            embedding=id(parameter) in embeddings,
            norm=id(parameter) in norms,
            bias=name.rpartition(".")[2] == "bias",
        )
        for name, parameter in module.named_parameters()
    ]


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation, by its class: torch's own and every family's (LlamaRMSNorm, T5LayerNorm …)."""
    return "norm" in type(module).__name__.lower()
