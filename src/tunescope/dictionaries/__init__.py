"""What is new: the features that fine-tuning wrote, against those the base model had and against chance.

Axis legend of the wing: rows (tokens), d features of an activation, n latents of a dictionary, k of them active in a row, s autoencoders
trained side by side.
"""

from __future__ import annotations

from tunescope.dictionaries.delta_pass import delta_batches
from tunescope.dictionaries.delta_saving import save_deltas
from tunescope.dictionaries.delta_store import DeltaStore, load_deltas
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.matching import match_dictionaries
from tunescope.dictionaries.train_sae import train_sae

__all__ = [
    "DeltaStore",
    "Dictionary",
    "delta_batches",
    "load_deltas",
    "match_dictionaries",
    "save_deltas",
    "train_sae",
]
