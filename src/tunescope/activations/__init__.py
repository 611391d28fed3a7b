"""Activations: pooled rows of texts at every layer and site of a model, from one forward pass, in memory or on disk."""

from tunescope.activations.capture import SITES, Activations, capture
from tunescope.activations.manifest import is_capture
from tunescope.activations.store import save_capture
from tunescope.activations.stored import Capture, load_capture

__all__ = ["SITES", "Activations", "Capture", "capture", "is_capture", "load_capture", "save_capture"]
