"""The registry of objectives: one explicit dict. Adding an objective is a file and a line here; its laws are tested by being listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tunescope.errors import InputError, UnknownName
from tunescope.training.objectives.base import Batch, Loss, Objective
from tunescope.training.objectives.causal import CausalLM
from tunescope.training.objectives.classify import Classify
from tunescope.training.objectives.contrastive import Contrastive
from tunescope.training.objectives.fit_head import fit_head
from tunescope.training.objectives.instructions import InstructionTuning
from tunescope.training.objectives.learner import Learner, Pass
from tunescope.training.objectives.masked import MaskedLM
from tunescope.training.objectives.mixture import Mixture
from tunescope.training.objectives.next_sentence import NextSentence
from tunescope.training.objectives.preserve import Preserve
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.redundancy import BarlowTwins
from tunescope.training.objectives.simcse import SimCSE
from tunescope.training.objectives.span_denoise import CausalSpan, SpanDenoise

OBJECTIVES: dict[str, type[Objective]] = {
    kind.name: kind
    for kind in (
        MaskedLM,
        NextSentence,
        SpanDenoise,
        CausalLM,
        CausalSpan,
        SimCSE,
        BarlowTwins,
        InstructionTuning,
        Contrastive,
        Classify,
        Preserve,
        Mixture,
    )
}

_ALSO_CALLED = {
    "clm": "causal-lm", "lm": "causal-lm", "next-token": "causal-lm", "masked-lm": "mlm", "infonce": "contrastive", "mnrl": "contrastive",
    "classification": "classify", "instruct": "sft",
}  # fmt: skip


def make_objective(name: str, settings: Mapping[str, Any] | None = None) -> Objective:
    """The objective of that name with these settings, the others at their defaults.

    Raises UnknownName (objective, setting), InputError (a value it cannot have, a setting it cannot do without).
    """
    if name not in OBJECTIVES:
        raise UnknownName("objective", name, OBJECTIVES, meant=_ALSO_CALLED.get(name.lower()))
    kind, given = OBJECTIVES[name], dict(settings or {})
    known = [each.name for each in fields(kind)]
    for each in sorted(given.keys() - set(known)):
        raise UnknownName(f"setting of {name}", each, known)
    needed = {Mixture: ("parts", "weights"), Preserve: ("objective",)}.get(kind, ())
    for each in needed:
        if each not in given:
            raise InputError(f"{name} needs {each}; give it as a setting")
    return kind(**given)


__all__ = [
    "OBJECTIVES",
    "BarlowTwins",
    "Batch",
    "CausalLM",
    "CausalSpan",
    "Classify",
    "Contrastive",
    "InstructionTuning",
    "Learner",
    "Loss",
    "MaskedLM",
    "Mixture",
    "NextSentence",
    "Objective",
    "Pass",
    "Preserve",
    "SimCSE",
    "SpanDenoise",
    "TextReader",
    "fit_head",
    "make_objective",
]
