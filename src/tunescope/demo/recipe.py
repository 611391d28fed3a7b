"""How the demo's adapters were made: two LoRAs of all-MiniLM-L6-v2 on docstrings, by two objectives, and what brings all to one distance.

    python -m tunescope.demo.recipe OUT

Everything is on this machine: the weights come with the `demo` extra, the docstrings out of the standard library's sources. An eighth of
the pairs, chosen by a hash of the summary, is held out of training and is what the demo searches. The masked-LM head is fitted with the
encoder frozen before the encoder moves. The last lines printed are the sizes at which interpolation and noise reach the distance of the
contrastive adapter; they are constants of the demo. Another Python has other docstrings, and so trains other adapters.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

from tunescope.demo import ADAPTERS, MAX_LENGTH, TEXTS, demo_base
from tunescope.demo.documentation import training_pairs
from tunescope.models import load_pair
from tunescope.texts import as_corpus
from tunescope.training import finetune, perturb_to
from tunescope.training.distance_read import DistanceReader

BASE = "sentence-transformers/all-MiniLM-L6-v2"
RANK, RATE, BATCH, EPOCHS, LENGTH, SEED = 4, 2e-3, 32, 1, 64, 0
TOLERANCE = 0.01  # of the neighbours kept, when distances are matched
SETTINGS = {"contrastive": {}, "mlm": {"head": "fitted"}}
KEPT = ("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias", "target_modules", "exclude_modules")

log = logging.getLogger(__name__)


def train(out: Path) -> None:
    """Train both adapters into `out`, and log how they went and what matches them."""
    pairs = training_pairs()
    for objective, settings in SETTINGS.items():
        run = finetune(
            str(demo_base()), objective=objective, pairs=pairs, settings=settings, options={"rank": RANK}, epochs=EPOCHS, seed=SEED,
            max_length=LENGTH, schedule={"lr": RATE, "batch_size": BATCH}, out=out / "runs" / objective, trajectory=None,
            announce=log.info,
        )  # fmt: skip
        losses = run.losses["loss"]
        first, last = losses[:20].mean(), losses[-20:].mean()
        log.info("%s: %d steps, mean loss of the first 20 %.3f, of the last 20 %.3f", objective, len(losses), first, last)
        _keep(out / "runs" / objective, out / ADAPTERS[objective].name)
    _match(out)


def _keep(run: Path, place: Path) -> None:
    """The adapter alone, its configuration without a path of this machine, nulls, or an order that changes from run to run."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "adapter_model.safetensors", place / "adapter_model.safetensors")
    written = json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))
    kept = {key: written[key] for key in KEPT if written.get(key) is not None} | {"base_model_name_or_path": BASE, "inference_mode": True}
    kept["target_modules"] = sorted(kept["target_modules"])
    (place / "adapter_config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _match(out: Path) -> None:
    """α of the masked-LM adapter and σ of noise at which NPS of the output is that of the contrastive adapter, on the demo's texts."""
    texts = as_corpus(None, sample=TEXTS)
    pairs = {objective: load_pair(str(demo_base()), str(out / ADAPTERS[objective].name)) for objective in SETTINGS}
    base, adapters = pairs["mlm"][0], {objective: tuned for objective, (_, tuned) in pairs.items()}
    base.max_length = min(base.max_length, MAX_LENGTH)
    reader = DistanceReader.of(base, texts, measure="nps")
    level = reader.value(adapters["contrastive"])
    log.info("the contrastive adapter keeps %.3f of the neighbours, the masked-LM adapter %.3f", level, reader.value(adapters["mlm"]))
    for kind, like in (("interpolate", adapters["mlm"]), ("gaussian", None)):
        log.info("%s", perturb_to(base, texts, to={"nps": level}, kind=kind, like=like, tolerance=TOLERANCE))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tunescope.demo.recipe OUT")
    train(Path(sys.argv[1]))
