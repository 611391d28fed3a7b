"""Activations: pooled rows of texts at every layer and site of a model, from one forward pass."""

from tunescope.activations.capture import SITES, Activations, capture

__all__ = ["SITES", "Activations", "capture"]
