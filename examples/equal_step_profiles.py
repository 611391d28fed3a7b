"""Where does a model change under an objective, and is it only where the updates were large? Uniform against equal steps, block by block.

    python examples/equal_step_profiles.py --base stories260K --texts train.txt --probe held_out.txt --out profiles

Each objective runs twice for the same number of steps: with AdamW at one learning rate, and with every block moved by the same relative
amount τ at every step, the median step of the first run. Printed per run: how far each layer's representation moved (1 − debiased CKA on
the probe texts, its interval beside it), its slope over depth, and the layers that are at the chance floor and therefore say nothing
(saturated). simcse runs with two real views (dropout forced, since models of this family have none) and as published, with none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tunescope as ts
from tunescope.report.numbers import three

ARMS = {"causal-lm": {}, "simcse": {"views": "forced"}, "simcse, one view": {"views": "as-published"}}
MEASURE = "debiased_cka"


def profile(base: ts.models.Model, run: ts.training.Run, probe: ts.texts.Corpus, name: str) -> str:
    """One row of the table."""
    payload = ts.diff(base, run.model, probe, measures=[MEASURE], max_length=64).payload
    changes = " ".join(f"{row['measures'][MEASURE]['change']:5.3f}" for row in payload["layers"])
    found = payload["locality"][MEASURE]
    saturated = ", ".join(map(str, found["saturated_layers"])) or "none"
    return f"{name:<32} {changes}   slope {found['slope']:+.3f}   saturated: {saturated}   τ {three(run.tau)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--out", type=Path, default=Path("profiles"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    base, probe = ts.load_model(args.base), ts.read_texts(args.probe, sample=300)
    for name, settings in ARMS.items():
        out, objective = args.out / name.replace(", ", "-").replace(" ", "-"), name.partition(",")[0]
        run = ts.finetune(
            args.base, objective=objective, settings=settings, update="equal-step", tau="paired", texts=args.texts, steps=args.steps,
            schedule={"lr": args.lr}, max_length=64, out=out, trajectory=None, resume=(out / "run.json").exists(), announce=print,
        )  # fmt: skip
        print(profile(base, ts.load_run(out / "paired"), probe, f"{name}, uniform"))
        print(profile(base, run, probe, f"{name}, equal steps"), flush=True)


if __name__ == "__main__":
    main()
