"""Models: loaded from anywhere, read safely, with their anatomy known and their identity hashed."""

from tunescope.models.acting import ActingWeight, acting_weights
from tunescope.models.load import load_model, load_pair
from tunescope.models.model import Model
from tunescope.models.several import load_several

__all__ = ["ActingWeight", "Model", "acting_weights", "load_model", "load_pair", "load_several"]
