"""The groups a step is measured in: one per block and one for everything else, with the norms of their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from tunescope.errors import InputError
from tunescope.models import Model
from tunescope.models.anatomy import read_anatomy, text_body

REST = "rest"  # embeddings, final norm, head, and whatever else is not in a block
_HALF = (torch.bfloat16, torch.float16)
_TOGETHER = 16  # pieces handled while they are in the cache
# torch's vector norm on a CPU adds up float32 in eight lanes: over 12 million elements it is off by 5e-4, over a piece by 1e-7. Pieces of
# fewer than 32,768 elements also stay on one thread, where a busy machine would make every one of them wait for the other threads.
_PIECE = {"cpu": 32_000}
_LARGE = 2**22


def body_of(model: Any) -> nn.Module:
    """The part of `model` that has the blocks: of a Model, PeftModel, SentenceTransformer, Hugging Face model, or one of these wrapped for
    parallel or compiled running.

    Raises: InputError for FSDP1, whose parameters do not say that they are shards.
    """
    module = model.module if isinstance(model, Model) else model
    if any(isinstance(part, FullyShardedDataParallel) for part in module.modules()):
        raise InputError("equal steps need whole norms, and FSDP1 hides how its tensors are cut; use FSDP2 (fully_shard, fsdp_version 2)")
    while True:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):  # torch.compile
            module = module._orig_mod
        elif isinstance(module, PeftModel):
            module = module.get_base_model()
        elif isinstance(module, nn.Sequential) and len(module) and hasattr(module[0], "auto_model"):  # sentence-transformers
            module = module[0].auto_model
        else:
            return text_body(module)


class StepGroups:
    """The trainable tensors of an optimizer by group: `block 1` to `block L`, and `rest`.

    A tensor that several modules share belongs to the first block that holds it, or to `rest`, and counts once. Tensors are found by their
    place in the optimizer's parameter groups, so that they may be swapped for shards after construction.

    Raises: InputError when the optimizer holds none of the model's tensors, holds one memory twice, or holds 16-bit weights.
    """

    def __init__(self, optimizer: Optimizer, model: Any):
        body = body_of(model)
        self.blocks = read_anatomy(body).block_modules(body)
        self.names = [*(f"block {i}" for i in range(1, len(self.blocks) + 1)), REST]
        self._labels: list[list[int]] = []
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        whole = model.module if isinstance(model, Model) else model
        if not {id(parameter) for parameter in whole.parameters()} & {id(parameter) for parameter in held}:
            raise InputError(f"the {type(optimizer).__name__} holds no tensor of this {type(whole).__name__}; build it over its parameters")
        places = [(p.data_ptr(), p.shape) for p in held if not isinstance(p, DTensor) and not p.is_meta and p.numel()]
        if len(places) > len(set(places)):
            raise InputError("two parameters of the optimizer share one memory and would move twice; tie them as one Parameter")
        self.trainable(optimizer)

    def trainable(self, optimizer: Optimizer) -> tuple[list[nn.Parameter], list[int]]:
        """The parameters that may move now, and the index of the group of each. Raises InputError for 16-bit ones."""
        if len(self._labels) < len(optimizer.param_groups):
            place = {id(p): i for i, block in reversed([*enumerate(self.blocks)]) for p in block.parameters()}
            for group in optimizer.param_groups[len(self._labels) :]:
                self._labels.append([place.get(id(p), len(self.blocks)) for p in group["params"]])
        pairs = [
            (parameter, label)
            for group, labels in zip(optimizer.param_groups, self._labels, strict=True)
            for parameter, label in zip(group["params"], labels, strict=True)
            if parameter.requires_grad
        ]
        half = next((parameter for parameter, _ in pairs if parameter.dtype in _HALF), None)
        if half is not None:
            raise InputError(
                f"{str(half.dtype).removeprefix('torch.')} weights are to be trained, and most of a step of 5e-4 of a weight is lost to "
                "their rounding; load the model in float32 and use autocast (bf16=True of the Trainer, precision='bfloat16' of a run)"
            )
        return [parameter for parameter, _ in pairs], [label for _, label in pairs]

    def present(self, labels: Sequence[int]) -> list[bool]:
        """Which groups have a trainable tensor."""
        found = set(labels)
        return [index in found for index in range(len(self.names))]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def pieces(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Flat parts that are short enough to add up in float32, and the index of the tensor each is from."""
    found: list[Tensor] = []
    index: list[int] = []
    for number, tensor in enumerate(tensors):
        parts = tensor.reshape(-1).split(_PIECE.get(tensor.device.type, _LARGE)) if tensor.numel() else ()
        found += parts
        index += [number] * len(parts)
    return found, index


def cached(*lists: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """The same few pieces of every list at a time."""
    for start in range(0, len(lists[0]), _TOGETHER):
        yield tuple(items[start : start + _TOGETHER] for items in lists)


def group_norms(norms: list[Tensor], owners: list[int], tensors: Sequence[Tensor], labels: Sequence[int], groups: int) -> Tensor:
    """Frobenius norms of the groups (g,) float64 on the CPU, from the norms of pieces; squares of shards are added over their processes.

    owners: the tensor of each piece. tensors: as the optimizer holds them, sharded or not. labels: the group of each tensor.
    """
    here = norms[0].device if norms else torch.device("cpu")
    squares = torch.stack([norm.to(here) for norm in norms]).cpu().double().square() if norms else torch.zeros(0, dtype=torch.float64)
    each = torch.zeros(len(tensors), dtype=torch.float64).index_add_(0, torch.tensor(owners, dtype=torch.long), squares)
    total = torch.zeros(groups, dtype=torch.float64)
    label = torch.tensor(labels, dtype=torch.long)
    kinds = [_cut_by(tensor) for tensor in tensors]
    for kind in dict.fromkeys(kinds):
        chosen = torch.tensor([found == kind for found in kinds])
        part = torch.zeros(groups, dtype=torch.float64).index_add_(0, label[chosen], each[chosen])
        total += _added_over(part, kind, tensors[kinds.index(kind)])
    return total.sqrt()


def _cut_by(tensor: Tensor) -> tuple[Any, tuple[int, ...]] | None:
    """The mesh of a sharded tensor and the mesh dimensions it is cut along; None for a tensor that every process has whole."""
    if not isinstance(tensor, DTensor):
        return None
    return tensor.device_mesh, tuple(dim for dim, placement in enumerate(tensor.placements) if placement.is_shard())


def _added_over(part: Tensor, kind: tuple[Any, tuple[int, ...]] | None, example: Tensor) -> Tensor:
    if kind is None or not kind[1]:
        return part
    mesh, dims = kind
    part = part.to(example.to_local().device)
    for dim in dims:
        distributed.all_reduce(part, group=mesh.get_group(dim))
    return part.cpu()
