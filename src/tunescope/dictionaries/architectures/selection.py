"""Which pre-activations a batch keeps: looked for in low precision where that is fast, decided in float32."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from tunescope.dictionaries.architectures.base import Weights
from tunescope.dictionaries.largest import largest
from tunescope.dictionaries.sparse_products import Places, read

_SPARE = 2  # candidates for each that is kept: bfloat16 errs by a few thousandths, far less than the gap to the last of them
_MARGIN = 0.9  # of the last threshold, from which candidates of a batch are gathered


def screen(weights: Weights, centred: Float[Tensor, "rows d"]) -> Float[Tensor, "rows n"]:
    """Pre-activations to look through, in bfloat16 where the device multiplies that fast."""
    dtype = torch.bfloat16 if fast_bfloat16(centred.device.type) else torch.float32
    return torch.addmm(weights.bias.to(dtype), centred.to(dtype), weights.encoder.to(dtype).T)


def exactly(weights: Weights, centred: Float[Tensor, "rows d"], places: Places) -> Float[Tensor, " m"]:
    """The pre-activations at some places, in float32."""
    return read(places, centred, weights.encoder) + weights.bias[places.latent]


def top_of_rows(weights: Weights, centred: Tensor, seen: Tensor, k: int) -> tuple[Places, Tensor]:
    """The k largest pre-activations of each row, and their values (rows · k,)."""
    rows, n = seen.shape
    candidates = largest(seen, min(n, k * _SPARE))
    values = exactly(weights, centred, Places.of(candidates, n)).view(rows, -1)
    best = values.topk(k, dim=1, sorted=False)
    return Places.of(candidates.gather(1, best.indices), n), best.values.reshape(-1)


def top_of_batch(weights: Weights, centred: Tensor, seen: Tensor, k: int, last: float) -> tuple[Places, Tensor]:
    """The rows · k largest pre-activations of a batch, however many fall to a row; last: the smallest one kept at the last step.

    Candidates are those above nine tenths of `last`; where they are too few, as at first, as many as are needed are sorted out.
    """
    rows, n = seen.shape
    wanted = rows * k
    flat = (seen.reshape(-1) > _MARGIN * last).nonzero()[:, 0] if last > 0 else seen.new_empty(0)
    if not wanted * 1.02 <= len(flat) <= wanted * 8:
        flat = seen.reshape(-1).topk(min(rows * n, int(wanted * 1.2)), sorted=False).indices.sort().values
    places = Places(flat // n, flat % n, rows, n)
    values = exactly(weights, centred, places)
    kept = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    kept[values.topk(wanted, sorted=False).indices] = True
    return Places(places.row[kept], places.latent[kept], rows, n), values[kept]


@cache
def fast_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware. A function of the machine alone, so a resumed training chooses alike."""
    if device != "cpu":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    able: dict = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
