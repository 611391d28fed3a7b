"""How a model is moved: objectives, update rules, equal steps, and moving it without training, as a control."""

from tunescope.training.equal_step import EqualStep
from tunescope.training.finetune import finetune
from tunescope.training.interpolate import interpolate
from tunescope.training.match import Match, Trajectory, match
from tunescope.training.perturb import perturb
from tunescope.training.run.result import Run, load_run
from tunescope.training.step_sizes import StepSizes
from tunescope.training.tau import bisect_tau, tau_from
from tunescope.training.to_distance import AtDistance, perturb_to
from tunescope.training.trajectory_callback import TrajectoryCallback
from tunescope.training.trajectory_file import plateau, read_trajectory

__all__ = [
    "AtDistance",
    "EqualStep",
    "Match",
    "Run",
    "StepSizes",
    "Trajectory",
    "TrajectoryCallback",
    "bisect_tau",
    "finetune",
    "interpolate",
    "load_run",
    "match",
    "perturb",
    "perturb_to",
    "plateau",
    "read_trajectory",
    "tau_from",
]
