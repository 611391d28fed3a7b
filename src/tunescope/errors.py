"""Everything tunescope refuses, and how it says so.

    TunescopeError                  one clear line: what was asked, what was found, what to do
    ├── InputError                  a bad argument, name or combination of options
    │   ├── UnknownName             a name nobody knows; lists the nearest
    │   └── DeviceError             no such device here
    ├── TextsError                  the texts cannot be read or are not usable
    ├── ModelError                  the model cannot be loaded or does not fit
    │   ├── UnsafeWeights           a pickle checkpoint, refused
    │   └── AdapterError            the adapter does not fit the base
    ├── ActivationError             NaN or Inf in weights or activations; names model, layer, row
    ├── NotEnoughRows               fewer texts than a measure needs
    ├── Degenerate                  the measure has no value here (all rows alike, widths differ)
    ├── AlignmentError              the two sides do not describe the same rows
    ├── FormatError                 a saved file, ours or a dictionary of another library's, that this version does not know
    └── OutputError                 the output folder cannot be used

Library code raises these; the command line prints the message on one line and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_FEW = 8  # names that fit in a line beside the nearest


class TunescopeError(Exception):
    """Base of every error tunescope raises on purpose."""


class InputError(TunescopeError, ValueError):
    """A bad argument, name or combination of options."""


class UnknownName(InputError):
    """A name that is not in a registry; the message lists the nearest known names, and all of them where they are few.

    meant: the known name of what is also called so.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, meant: str | None = None):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6) if meant is None else [meant]
        hints = [f"did you mean {', '.join(near)}?"] if near else []
        hints += [f"known: {', '.join(known)}"] if not near or len(known) <= _FEW else []
        super().__init__(f"unknown {kind} '{name}'; {' '.join(hints) if known else 'there are none'}")


class DeviceError(InputError):
    """The device asked for does not exist here."""


class TextsError(TunescopeError, ValueError):
    """The texts cannot be read, are empty, or are not usable."""


class ModelError(TunescopeError, ValueError):
    """The model cannot be loaded, or is not of a kind we can read."""


class UnsafeWeights(ModelError):
    """The checkpoint is a pickle, which can run code when it is opened."""


class AdapterError(ModelError):
    """The adapter does not fit the base model."""


class ActivationError(TunescopeError, ArithmeticError):
    """NaN or Inf in weights or activations."""


class NotEnoughRows(TunescopeError, ValueError):
    """Fewer rows than a measure needs."""


class Degenerate(TunescopeError, ArithmeticError):
    """The measure has no value on these rows; the message says why."""


class AlignmentError(TunescopeError, ValueError):
    """The two sides do not describe the same rows in the same order."""


class FormatError(TunescopeError, ValueError):
    """A saved file whose schema or layout this version does not know."""


class OutputError(TunescopeError, OSError):
    """The output folder cannot be used."""
