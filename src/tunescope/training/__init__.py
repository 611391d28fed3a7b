"""How a model is moved. Here so far: moving it without training, as a control."""

from tunescope.training.perturb import perturb

__all__ = ["perturb"]
