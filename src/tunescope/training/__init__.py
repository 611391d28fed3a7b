"""How a model is moved: update rules, equal steps, and moving it without training, as a control."""

from tunescope.training.equal_step import EqualStep
from tunescope.training.perturb import perturb
from tunescope.training.step_sizes import StepSizes
from tunescope.training.tau import bisect_tau, tau_from

__all__ = ["EqualStep", "StepSizes", "bisect_tau", "perturb", "tau_from"]
