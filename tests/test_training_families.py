"""Every family under every sensible (objective, update rule): three steps on one repeated batch lower its loss; the others are refused.

Masks are drawn once, with the batch. Dropout is drawn at every pass, so torch is seeded before each: the loss is then a function of
the weights alone, and steps of AdamW, short enough, lower it. The fast tests meet every (family, objective) and every (family, rule), the
slow ones every triple.
"""

from __future__ import annotations

import copy
import re
from itertools import cycle, islice

import pytest
import torch

import tunescope as ts
from test_objectives import LEFT, MASKED, generator, items_for, model_of
from test_updates import NAMES, NO_BIASES, rule_for
from tiny_models import CLIP, ENCODERS, EVERY, UNLISTED
from tunescope.errors import AdapterError, ModelError
from tunescope.training.objectives import (
    OBJECTIVES,
    BarlowTwins,
    CausalLM,
    CausalSpan,
    Classify,
    Contrastive,
    InstructionTuning,
    Learner,
    MaskedLM,
    Mixture,
    NextSentence,
    Preserve,
    SimCSE,
    SpanDenoise,
)
from tunescope.training.updates import UPDATES, select

STEPS, LR = 3, 3e-4
ASKED = {
    "mlm": MaskedLM(),
    "mlm, head drawn": MaskedLM(head="random"),
    "span-denoise": SpanDenoise(),
    "mlm, preserved": Preserve(MaskedLM()),
    "mlm and contrastive": Mixture((MaskedLM(), Contrastive()), (1.0, 0.5)),
    "nsp": NextSentence(),
    "causal-lm": CausalLM(),
    "causal-span": CausalSpan(),
    "sft": InstructionTuning(),
    "sft, preserved": Preserve(InstructionTuning()),
    "causal-lm and simcse": Mixture((CausalLM(), SimCSE()), (1.0, 0.5)),
    "simcse": SimCSE(),
    "simcse, preserved": Preserve(SimCSE(), kind="features"),
    "barlow-twins": BarlowTwins(),
    "contrastive": Contrastive(),
    "contrastive, cached": Contrastive(chunk=2),
    "classify": Classify(),
    "simcse and contrastive": Mixture((SimCSE(), Contrastive()), (1.0, 0.5)),
}
BOTH_SIDES = ("mlm", "mlm, head drawn", "span-denoise", "mlm, preserved", "mlm and contrastive")
TO_THE_LEFT = ("causal-lm", "causal-span", "sft", "sft, preserved", "causal-lm and simcse")
NO_NSP = {"nsp": "needs BERT's pretrained next-sentence head"}
SEES = "reads in both directions, so it sees it; use mlm or span-denoise"
BLIND = "reads to the left only; use causal-lm or causal-span"
HALF = "is the encoder of an encoder-decoder; use simcse or contrastive"
NO_TARGETS = "no LoRA targets are known for .*; name some of its linear layers"
# What a family is refused, and why. A pair that is refused and is not here, or is here and is not refused, fails.
REFUSED = {
    **dict.fromkeys(MASKED, NO_NSP | dict.fromkeys(TO_THE_LEFT, SEES)),
    "bert": dict.fromkeys(TO_THE_LEFT, SEES),
    **dict.fromkeys(LEFT, NO_NSP | dict.fromkeys(BOTH_SIDES, BLIND)),
    **dict.fromkeys(ENCODERS, NO_NSP | dict.fromkeys(BOTH_SIDES, HALF) | dict.fromkeys(TO_THE_LEFT, SEES)),
    **dict.fromkeys(CLIP, NO_NSP | dict.fromkeys(BOTH_SIDES, BLIND) | dict.fromkeys(TO_THE_LEFT, "has no language-model head")),
}
NO_BITFIT = dict.fromkeys(NO_BIASES, {"bitfit": "'bitfit' trains biases, and this .* has none; use 'lora' or 'top-2'"})
REFUSED_RULES = NO_BITFIT | dict.fromkeys(UNLISTED, {"lora": NO_TARGETS, "lora+equal-step": NO_TARGETS})


def learner_of(family: str, objective: str) -> Learner:
    """A learner on a fresh copy of the family's tiny model."""
    kept = model_of(family)
    return Learner(ts.load_model((copy.deepcopy(kept.origin), kept.tokenizer)), ASKED[objective])


def sensible(family: str) -> list[str]:
    return [name for name in ASKED if name not in REFUSED[family]]


def rules(family: str) -> list[str]:
    return [name for name in NAMES if name not in NO_BITFIT.get(family, ())]  # an unlisted family's LoRA is given targets


def met() -> list[tuple[str, str, str]]:
    """For each family as many pairs as it takes to meet each of its objectives and each of the rules, other pairs for other families."""
    found = []
    for place, family in enumerate(EVERY):
        asked, ways = sensible(family), rules(family)
        number = max(len(asked), len(ways))
        turned = islice(cycle(ways), place, place + number)
        found += [(family, *pair) for pair in zip(islice(cycle(asked), number), turned, strict=True)]
    return found


def numbers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, by its name without an adapter."""
    found = [*module.named_parameters(), *module.named_buffers()]
    return {name.replace(".base_layer", ""): tensor.detach().clone() for name, tensor in found}


def check_learning(family: str, objective: str, rule: str) -> None:
    """The loss falls, what trains moves, and what is frozen keeps every bit."""
    learner = learner_of(family, objective)
    start = numbers(learner)
    update = rule_for(rule, family).apply(learner, lr=LR, body=learner.body)
    fresh = numbers(learner)
    assert all(torch.equal(fresh[name], tensor) for name, tensor in start.items()), "applying a rule changes no weight"
    moving = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    batch = learner.collate(items_for(ASKED[objective]), generator())
    optimizer, losses = update.optimizer(), []
    learner.train()
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        torch.manual_seed(0)
        loss = learner.loss(batch).value
        losses.append(float(loss.detach()))
        if step < STEPS:
            loss.backward()
            optimizer.step()
    assert losses[-1] < losses[0], losses
    after = numbers(learner)
    still = [name for name in after if name not in moving]
    assert all(torch.equal(after[name], fresh[name]) for name in still), f"{rule} moved a frozen tensor"
    in_blocks = f"body.{learner.model.anatomy.blocks}."
    assert any(not torch.equal(after[name], fresh[name]) for name in moving if name.startswith(in_blocks)), "no block moved"
    if rule.startswith("lora"):
        assert moving == {name for name in after if "lora_" in name} - {name for name in after if ".dt_proj." in name}
        assert all(torch.equal(after[name], tensor) for name, tensor in start.items()), "the base beneath a LoRA keeps every bit"


@pytest.mark.parametrize(("family", "objective", "rule"), met())
def test_three_steps_on_a_repeated_batch_lower_the_loss(family, objective, rule):
    check_learning(family, objective, rule)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "objective"), [(family, name) for family in EVERY for name in sensible(family)])
def test_three_steps_lower_the_loss_under_every_rule(family, objective):
    for rule in rules(family):
        check_learning(family, objective, rule)


@pytest.mark.parametrize("family", EVERY)
def test_exactly_these_objectives_are_refused_with_the_reason(family):
    model, found = model_of(family), {}
    for name, objective in ASKED.items():
        try:
            objective.check(model)
        except ModelError as error:
            found[name] = str(error)
    assert set(found) == set(REFUSED[family])
    for name, message in found.items():
        assert re.search(REFUSED[family][name], message), message


@pytest.mark.parametrize("objective", ["contrastive", "classify"])
@pytest.mark.parametrize("family", EVERY)
def test_exactly_these_rules_are_refused_with_the_reason(family, objective):
    """Also where the head of an objective has what the body lacks: a classifier's bias alone is no BitFit."""
    found, learner = {}, learner_of(family, objective)
    for name in sorted(NAMES, key=lambda name: name.startswith("lora")):  # the others leave no adapter behind
        learner = learner_of(family, objective) if name == "lora+equal-step" else learner
        try:
            select(name, {"tau": 1e-3} if "equal-step" in name else {}).apply(learner, lr=LR, body=learner.body)
        except (ModelError, AdapterError) as error:
            found[name] = str(error)
    wanted = REFUSED_RULES.get(family, {})
    assert set(found) == set(wanted)
    for name, message in found.items():
        assert re.search(wanted[name], message), message


def test_nothing_is_left_out():
    assert {objective.name for objective in ASKED.values()} == set(OBJECTIVES)
    assert {type(select(name)) for name in NAMES} == set(UPDATES.values())
    assert set(REFUSED) == set(EVERY)
    triples = met()
    assert {(family, objective) for family, objective, _ in triples} == {(family, name) for family in EVERY for name in sensible(family)}
    assert {(family, rule) for family, _, rule in triples} == {(family, name) for family in EVERY for name in rules(family)}
