"""What is new: the features that fine-tuning wrote, against those the base model had and against chance.

Axis legend of the wing: rows (tokens), d features of an activation, n latents of a dictionary, k of them active in a row, s autoencoders
trained side by side.
"""

from __future__ import annotations

from tunescope.features.dictionary import Dictionary
from tunescope.features.train_sae import train_sae

__all__ = ["Dictionary", "train_sae"]
