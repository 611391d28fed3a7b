"""Models: loaded from anywhere, read safely, with their anatomy known and their identity hashed."""

from tunescope.models.load import load_model, load_pair
from tunescope.models.model import Model

__all__ = ["Model", "load_model", "load_pair"]
