"""What LoRA of several ranks writes: a causal model tuned on another domain at each rank, its deltas, dictionaries and controls.

    python examples/features_by_rank.py BASE TEXTS --out out [--ranks 4,8,16,32] [--layers 1,3,5]

Then the claim that more features fire at higher ranks and in deeper layers: L1 autoencoders at one price, of deltas as they are (all
divided by one number) and of deltas whose norms were made equal (each divided by its own). Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import tunescope as ts
from tunescope.dictionaries.delta_store import StoredRows

PRICE = 0.1


class Divided:
    """Stored rows that training divides by another number than their own root mean square."""

    def __init__(self, rows: StoredRows, rms: float):
        self.rows, self.width, self.mean, self.batches = rows.rows, rows.width, rows.mean, rows.batches
        self.rms = rms


def main() -> None:
    asked = parse()
    runs = {f"rank-{rank}": tuned(asked, rank) for rank in asked.ranks}
    sizes = {"latents": asked.latents, "k": asked.k, "steps": asked.steps, "sample": asked.sample, "max_length": 128}
    found = ts.features(asked.base, runs, asked.texts, out=asked.out / "features", layers=asked.layers, resume=True, **sizes)
    show(found.quality, ["layer", "name", "seed", "r2.value", "r2.low", "r2.high", "constant_share.value", "dead_share"])
    show(found.controls, ["control", "layer", "name", "relative", "largest", "r2.value", "one_to_one_cosine", "floor", "verdict"])
    rows = found.alignment
    show(rows[rows.comparison != "unexplained_share"], ["layer", "name", "comparison", "value", "floor", "ceiling", "verdict"])
    show(found.verdicts, ["layer", "name", "verdict", "words"])
    print(json.dumps(found.flags, indent=1))
    density(ts.load_deltas(asked.out / "features" / "deltas"), list(runs), asked)


def tuned(asked: argparse.Namespace, rank: int) -> str:
    """A run of one rank; everything else alike."""
    folder = asked.out / f"rank-{rank}"
    if not (folder / "adapter_config.json").is_file():
        ts.finetune(
            asked.base, objective="causal-lm", update="lora", options={"rank": rank}, texts=asked.tuning or asked.texts, out=folder,
            steps=asked.tuning_steps, max_length=128, schedule={"batch_size": 16, "lr": 2e-3}, resume=folder.is_dir(),
        )  # fmt: skip
    return str(folder)


def density(store: ts.DeltaStore, names: list[str], asked: argparse.Namespace) -> None:
    """Mean active features a token at one price, of deltas as they are and of deltas of equal norm."""
    all_rows = {(name, layer): store.rows(layer, name, "train") for layer in asked.layers for name in names}
    common = max(rows.rms for rows in all_rows.values())
    print("\nlayer  name      as they are  of equal norm   (active features a token, L1 price", f"{PRICE})")
    for (name, layer), rows in all_rows.items():
        kept = []
        for rms in (common, rows.rms):
            (sae,) = ts.train_sae(
                Divided(rows, rms), latents=asked.latents, k=1, architecture="standard", l1=PRICE, seeds=(0,), steps=asked.steps
            )
            kept.append(sae.metadata["l0"])
        print(f"{layer:5}  {name:8}  {kept[0]:11.2f}  {kept[1]:13.2f}", flush=True)


def show(table, columns: list[str]) -> None:
    print("\n" + table[[column for column in columns if column in table]].round(3).to_string(index=False), flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("texts", help="texts whose tokens are read; tuned on them too, unless --tuning names others")
    parser.add_argument("--tuning", help="texts to tune on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=numbers, default=[4, 8, 16, 32])
    parser.add_argument("--layers", type=numbers, default=[1, 3, 5])
    parser.add_argument("--sample", type=int, default=1500)
    parser.add_argument("--tuning-steps", type=int, default=150)
    parser.add_argument("--latents", type=int, default=256)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    return parser.parse_args()


if __name__ == "__main__":
    main()
