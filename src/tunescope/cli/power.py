"""tunescope power [RESULT] --effect .01"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tunescope.outcome.power import Plan, Plans, TextsPlan


def power(
    result: Annotated[Path | None, typer.Argument(metavar="RESULT", help="Folder of a comparison, to plan from what it found.")] = None,
    effect: Annotated[
        float | None,
        typer.Option(
            "--effect", help="The difference to detect, in the units of the metric: .01 is a point of accuracy or nDCG.", show_default=False
        ),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option("--sd", help="Instead of RESULT: standard deviation of the paired differences, item by item.", show_default=False),
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="With --sd: items in hand.", show_default=False)] = None,
    chance: Annotated[float, typer.Option("--power", help="Chance of finding the effect if it is there.")] = 0.8,
    level: Annotated[float, typer.Option("--level", help="Chance of finding one that is not there (two-sided).")] = 0.05,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """How many queries or texts it takes to detect a stated effect, and what those in hand detect.

    From a finished comparison: tunescope power tunescope-out --effect .01

    By assumption: tunescope power --effect .02 --sd .25 --n 300
    """
    from tunescope.errors import InputError
    from tunescope.outcome.power import Plans, plan, plans_from_result

    if effect is None:
        raise InputError("no effect to plan for; give the difference that would matter, such as --effect .01")
    if (result is None) == (sd is None):
        raise InputError("give either the folder of a comparison or --sd, the standard deviation of the paired differences (.25, say)")
    if sd is not None:
        found = Plans((plan(effect, sd=sd, n=n, power=chance, level=level),), None)
    elif n is not None:
        raise InputError("--n goes with --sd; a comparison brings its own number of items")
    else:
        from tunescope.comparison import load

        found = plans_from_result(load(str(result)).payload, effect, power=chance, level=level)
    typer.echo(_json(found) if json else "\n".join(_lines(found, of_result=result is not None)))


def _json(found: Plans) -> str:
    import json

    return json.dumps(found.row(), ensure_ascii=False, allow_nan=False)


def _lines(found: Plans, *, of_result: bool) -> list[str]:
    lines = [line for plan in found.outcomes for line in _outcome_lines(plan)]
    if of_result and not found.outcomes:
        lines.append("Only geometry was measured here, nothing about function: measure an outcome, or give --sd, to plan its queries.")
    return lines + (_texts_lines(found.texts) if found.texts else [])


def _outcome_lines(plan: Plan) -> list[str]:
    from tunescope.report.numbers import two_digits

    where = f"{plan.name}, {plan.metric}" if plan.name else "Paired items"
    if plan.needed is None:
        return [f"{where}: no plan, {plan.reason}."]
    sure = f"{plan.power:.0%} power, two-sided {plan.level:.0%} level"
    lines = [
        f"{where}: a difference of {two_digits(plan.effect)} needs {plan.needed:,} {plan.items} ({sure}; "
        f"sd of the differences {two_digits(plan.sd)})."
    ]
    if plan.detectable is not None:
        lines.append(f"  The {plan.n:,} in hand detect {two_digits(plan.detectable)} or more.")
    return lines


def _texts_lines(plan: TextsPlan) -> list[str]:
    from tunescope.report.numbers import two_digits

    return [
        f"{plan.measure}: ±{two_digits(plan.effect)} at {plan.where}, where it is least certain, needs {plan.needed:,} texts.",
        f"  The {plan.n:,} in hand give ±{two_digits(plan.half_width)} there.",
    ]
