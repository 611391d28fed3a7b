"""Which tokens of a text a masked language model is asked for: the same in every batch, order and run."""

from __future__ import annotations

import hashlib

import numpy as np

SHARE = 0.15  # of the tokens, as BERT was trained (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)


def chosen_positions(text: str, maskable: np.ndarray, *, seed: int = 0, share: float = SHARE) -> np.ndarray:
    """Positions to mask, ascending: of m maskable tokens the max(1, round(share · m)) whose hash of (seed, text, position) is smallest.

    maskable: (t,) bool, False for special tokens. The choice depends on nothing but the text, its tokens and the seed. Empty when m is 0.
    """
    positions = np.flatnonzero(maskable)
    if not len(positions):
        return positions
    key = int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "little")
    count = max(1, round(share * len(positions)))
    return np.sort(positions[np.argsort(_mixed(np.uint64(key), positions), kind="stable")[:count]])


def _mixed(key: np.uint64, positions: np.ndarray) -> np.ndarray:
    """SplitMix64 of key and position (Steele, Lea and Flood 2014, https://doi.org/10.1145/2714064.2660195)."""
    state = key + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
