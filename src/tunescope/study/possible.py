"""Whether what a plan asks for can be: names that are declared and known, objectives that fit the models, rules that fit the families."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, ModelError, UnknownName
from tunescope.models.families import FAMILIES
from tunescope.models.pretraining import UNKNOWN, check_pretraining, pretraining_of
from tunescope.study import known
from tunescope.study.asked_values import check_amounts, check_excluded, check_options, check_schedule, check_sizes, check_target
from tunescope.study.embedded import MINILM, PACKAGE
from tunescope.study.run_spec import KINDS, Change, Model, Objective, Update

if TYPE_CHECKING:
    from tunescope.study.plan import Block, Plan

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
AT = ("end", "checkpoints")
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def check_plan(plan: Plan) -> None:
    """Raises UnknownName, InputError or ModelError for the first thing that cannot be; nothing is loaded."""
    for model in plan.models.values():
        _check_model(model, plan)
    for objective in plan.objectives.values():
        _check_objective(objective)
    for update in plan.updates.values():
        _check_update(update)
    for change in plan.changes.values():
        _check_change(change)
    check_schedule(plan.schedule, where="schedule")
    for number, block in enumerate(plan.blocks, 1):
        _check_block(block, plan, where=f"runs[{number}]")
    _check_measures(plan.measurement.measures, plan.measurement.at, where="measure")
    for source in plan.sources.values():
        if source.revision is not None:
            raise InputError(f"sources.{source.name}: revision = '{source.revision}' found, and texts have none; keep them in a file")


def named(kind: str, names: Iterable[str], known_names: Collection[str], *, where: str) -> None:
    """Raises UnknownName for a name that is not among the known."""
    for name in names:
        if name not in known_names:
            raise UnknownName(f"{kind} of {where}", name, known_names)


def objective_parts(asked: str) -> tuple[str, ...]:
    """The names in "mlm:0.5,contrastive"."""
    return tuple(part.partition(":")[0].strip() for part in asked.split(","))


def family_of(model: Model, plan: Plan) -> str | None:
    """As the plan says, or the recipe of its pretraining, or the folder's config.json; None for a hub id that nobody described."""
    if model.name in plan.families:
        return plan.families[model.name]
    if model.pretrain is not None:
        return model.pretrain.family
    if model.place == MINILM:
        return "bert"
    return _config(model, plan).get("model_type")


def layers_of(model: Model, plan: Plan) -> int | None:
    """How many blocks it has, where the plan, the recipe of its pretraining, or the folder's config.json says so."""
    said = plan.sizes[model.name].layers or (6 if model.place == MINILM else None)
    config = _config(model, plan) if model.pretrain is None else model.pretrain.config
    return said or next((config[key] for key in _BLOCKS if isinstance(config.get(key), int)), None)


def _config(model: Model, plan: Plan) -> dict[str, Any]:
    """What the config.json of a local folder says; nothing of a model that is elsewhere."""
    path = local_folder(model.place, plan.folder) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def local_folder(place: str, folder: Path) -> Path:
    """A place as a path: from the plan's folder, unless it is absolute."""
    return folder / Path(place).expanduser()


def reads_left_only(model: Model, plan: Plan) -> bool | None:
    """Whether it is causal; None where nothing known says so."""
    family = FAMILIES.get(family_of(model, plan) or "")
    if family is not None:
        return family.causal
    parts = pretraining(model).split("+")
    return True if "causal-lm" in parts else False if {"mlm", "nsp", "distillation"} & set(parts) else None


def pretraining(model: Model) -> str:
    """What it was pretrained with: as the plan says, or as the checkpoint is known for."""
    if model.pretraining is not None:
        return model.pretraining
    return "contrastive" if model.place == MINILM else pretraining_of(model.place)


def check_pair(model: Model, objective: Objective, plan: Plan) -> None:
    """Raises InputError where the model cannot be trained by the objective."""
    left = reads_left_only(model, plan)
    for part in objective_parts(objective.objective):
        reads = known.OBJECTIVES[part].reads
        if reads == known.BOTH and left:
            raise InputError(f"{part} reads both sides of a token, and '{model.name}' reads to the left only; use causal-lm or causal-span")
        if reads == known.LEFT and left is False:
            raise InputError(f"{part} asks for the next token, and '{model.name}' reads in both directions; use mlm or span-denoise")
        headless = pretraining(model) != UNKNOWN and "nsp" not in pretraining(model).split("+")
        if part == "nsp" and (headless or family_of(model, plan) not in (None, "bert")):
            raise InputError(f"nsp needs the next-sentence head BERT was pretrained with, and '{model.name}' has none; use mlm or simcse")


def check_rule(model: Model, update: Update, plan: Plan) -> None:
    """Raises InputError where the family has nothing for the rule."""
    family, kind = family_of(model, plan), update.update.partition("+")[0]
    if kind == "lora" and family is not None and family not in FAMILIES and not update.options.get("targets"):
        raise InputError(f"no LoRA targets are known for '{model.name}' ({family}); name them: options = {{ targets = \"…\" }}")
    layers = layers_of(model, plan)
    top = int(kind.removeprefix("top-")) if re.fullmatch(r"top-\d+", kind) else update.options.get("k")
    if layers and top and top > layers:
        raise InputError(f"'{kind}' trains the last {top} blocks, and '{model.name}' has {layers}; ask for fewer")
    if layers and layers < 2 and kind == "frozen-interior":
        raise InputError(f"'frozen-interior' freezes the lower half of the blocks, and '{model.name}' has {layers}; give it two at least")


def _check_model(model: Model, plan: Plan) -> None:
    if model.pretraining is not None:
        check_pretraining(model.pretraining)
    if model.pretrain is not None:
        _check_pretrain(model, plan)
        return
    if model.place.startswith(PACKAGE):
        named("packaged model", [model.place], [MINILM], where=f"models.{model.name}")
        return
    path = local_folder(model.place, plan.folder)
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json", "modules.json")):
            raise ModelError(f"models.{model.name}: the folder '{path}' holds no model (no config.json)")
        return
    if not _HUB.fullmatch(model.place) or model.place.startswith("."):
        raise ModelError(f"models.{model.name}: no such folder '{model.place}'; give a folder that holds a model, or a hub id")
    family = plan.families.get(model.name)
    if family is not None and family not in FAMILIES:
        raise UnknownName(f"family of models.{model.name}", family, FAMILIES)


def _check_pretrain(model: Model, plan: Plan) -> None:
    asked = model.pretrain
    assert asked is not None
    if asked.family not in FAMILIES:
        raise UnknownName(f"family of models.{model.name}", asked.family, FAMILIES)
    where = f"models.{model.name}.pretrain"
    named("objective", [asked.objective], known.OBJECTIVES, where=where)
    check_sizes(asked, where=f"{where}.config")
    if asked.objective not in ("mlm", "causal-lm"):
        raise InputError(f"models.{model.name}: a model with drawn weights is pretrained by mlm or causal-lm, not {asked.objective}")
    check_pair(model, Objective(asked.objective, asked.objective), plan)


def _check_objective(objective: Objective) -> None:
    where = f"objectives.{objective.name}"
    parts = objective_parts(objective.objective)
    named("objective", parts, known.OBJECTIVES, where=where)
    for setting in objective.settings:
        part, _, own = setting.rpartition(".")
        of = [part] if part else list(parts)
        named("setting", [own], [name for each in of for name in known.OBJECTIVES[each].settings], where=where)
    _check_views([objective.settings["views"]] if "views" in objective.settings else [], where=where)
    needs = {known.OBJECTIVES[part].needs for part in parts}
    read = {known.PAIRS: objective.pairs, known.TEXTS: objective.texts or objective.pairs, known.LABELS: objective.texts}
    for need in sorted(needs - {known.CONVERSATIONS}):
        if read[need] is None:
            raise InputError(f"{where}: {objective.objective} needs {'pairs' if need == known.PAIRS else 'texts'}; name a source")
    if known.LABELS in needs and objective.texts is not None and not objective.texts.labels:
        raise InputError(f"{where}: classify needs classes; say which column of sources.{objective.texts.name} they are (labels)")
    if known.CONVERSATIONS in needs and objective.texts is None:
        raise InputError(f"{where}: sft needs conversations; name a source with texts")


def _check_views(views: Iterable[str], *, where: str) -> None:
    named("views", views, known.VIEWS, where=where)


def _check_update(update: Update) -> None:
    where, (rule, _, on_top) = f"updates.{update.name}", update.update.partition("+")
    kind = "top-k" if re.fullmatch(r"top-\d+", rule) else rule
    if kind not in known.UPDATES or (on_top and on_top != "equal-step"):
        raise UnknownName(f"update rule of {where}", update.update if on_top else rule, [*known.UPDATES, "top-1", "lora+equal-step"])
    named("option", update.options, {*known.UPDATES[kind], *(("tau",) if on_top else ())} - {"on"}, where=where)
    check_options(update.options, where=f"{where}.options")
    equal = "equal-step" in update.update
    if equal and update.tau is None and "tau" not in update.options:
        raise InputError(f"{where}: equal-step needs the size of its steps; give tau, a number or \"paired\"")
    if update.tau is not None and not equal:
        raise InputError(f"{where}: tau belongs to equal-step, and the rule is '{update.update}'")
    if isinstance(update.tau, str) and update.tau != "paired":
        raise InputError(f"{where}: tau = '{update.tau}' asked for; give a number, or \"paired\"")
    check_schedule(update.schedule, where=f"{where}.schedule")


def _check_change(change: Change) -> None:
    where = f"changes.{change.name}"
    named("kind of perturbation", [change.kind], known.CHANGES, where=where)
    takes = set(known.CHANGES[change.kind])
    named("amount", change.amounts, takes - {"like", "layers"}, where=where)
    check_amounts(change.amounts, where=f"{where}.amounts")
    if "like" in takes and change.like is None:
        raise InputError(f"{where}: {change.kind} copies the size of another condition's update; name that condition with like")
    if "like" not in takes and change.like is not None:
        raise InputError(f"{where}: like = '{change.like}' given, and {change.kind} reads no other condition; leave like out")
    if change.to is not None and (change.amounts or not takes & set(known.PARAMETERS)):
        raise InputError(f"{where}: to = '{change.to}' finds the amount of {change.kind}; give either the amounts or the distance")
    if change.to is not None:
        check_target(change.to, where=where)
    if change.kind in ("gaussian", "rounding") and change.to is None and not change.amounts:
        raise InputError(f"{where}: {change.kind} needs {known.CHANGES[change.kind][0]}; give it in amounts")


def _check_measures(measures: Iterable[str], at: str, *, where: str) -> None:
    named("measure", measures, known.MEASURES, where=where)
    named("checkpoints", [at], AT, where=f"{where}.at")


def _check_block(block: Block, plan: Plan, *, where: str) -> None:
    named("kind", [block.kind], KINDS, where=where)
    anchors = [name for each in block.anchors for name in each]
    for kind, asked, declared in (
        ("model", (*block.models, *block.tuned), plan.models), ("objective", block.objectives, plan.objectives),
        ("update rule", block.updates, plan.updates), ("change", block.changes, plan.changes), ("corpus", block.corpora, plan.sources),
        ("anchor", anchors, plan.sources),
    ):  # fmt: skip
        named(kind, asked, declared, where=where)
    _check_views(block.views, where=where)
    check_schedule(block.schedule, where=f"{where}.schedule")
    _check_measures(block.measure.get("measures", ()), block.measure.get("at", "end"), where=f"{where}.measure")
    _check_asked(block, where)
    check_excluded(block, where=f"{where}.exclude")


def _check_asked(block: Block, where: str) -> None:
    """That the axes are those of the kind of run."""
    axes = {"objectives": block.objectives, "updates": block.updates, "changes": block.changes, "tuned": block.tuned}
    needed = {"tune": ("objectives", "updates"), "perturb": ("changes",), "compare": ("tuned",)}.get(block.kind, ())
    for axis in needed:
        if not axes[axis]:
            raise InputError(f"{where}: runs of kind '{block.kind}' need {axis}; name one or more")
    if block.kind == "features" and not block.tuned and not (block.objectives and block.updates):
        raise InputError(f"{where}: features need tuned models, or objectives and updates")
    allowed = (*needed, *(("objectives", "updates", "tuned") if block.kind == "features" else ()))
    for axis, names in axes.items():
        if names and axis not in allowed:
            raise InputError(f"{where}: runs of kind '{block.kind}' do nothing with {axis}; leave them out")
