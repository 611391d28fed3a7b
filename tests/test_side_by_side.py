"""The tuned model beside the controls: every number of the table is a number of the payload, and the words say what is matched."""

from __future__ import annotations

import copy
import io

from rich.console import Console

from example_outcomes import with_outcomes
from tunescope import report
from tunescope.report import side_by_side


def payload(*, far: float = 0.01) -> dict:
    """A comparison whose controls were judged by its first task, the first one `far` from the tuned model in neighbours kept."""
    found = copy.deepcopy(with_outcomes())
    row = next(row for row in found["outcomes"] if row["kind"] == "retrieval" and row["main"])
    kept = found["sites"]["output"]["measures"]["nps"]["value"]
    judged = row | {"delta": -0.123, "low": -0.2, "high": -0.05, "verdict": "worse"}
    controls = [{"name": name, "note": "", "layers": [], "outcomes": [judged]} for name in ("noise", "<b>random</b>")]
    for control, value in zip(controls, (kept + far, 0.5 * kept), strict=True):
        control["sites"] = {"output": {"measures": {"nps": {"value": value, "change": 1 - value}}}}
    return found | {"controls": controls}


def test_the_table_holds_the_tuned_model_first_and_every_control():
    found = side_by_side.view(payload())
    assert [row["name"] for row in found["rows"]][1:] == ["noise", "<b>random</b>"]
    assert [row["cells"][0]["delta"] for row in found["rows"]][1:] == ["−.123", "−.123"]
    assert found["rows"][1]["cells"][0]["word"] == "worse"
    own = next(row for row in payload()["outcomes"] if row["kind"] == "retrieval" and row["main"])
    assert found["rows"][0]["cells"][0]["word"] == own["verdict"]


def test_it_says_which_controls_are_as_far():
    assert side_by_side.view(payload(far=0.01))["lead"].endswith("noise.")
    assert side_by_side.view(payload(far=0.2))["lead"].endswith("none of the controls.")


def test_it_is_in_the_page_and_in_the_terminal_escaped():
    page = report.render(payload())
    assert "Beside the controls" in page
    assert "<b>random</b>" not in page
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.terminal(payload()))
    printed = console.export_text()
    assert "beside the controls" in printed
    assert "−.123" in printed


def test_controls_that_were_not_judged_make_no_table():
    assert side_by_side.view(with_outcomes()) is None
    assert "Beside the controls" not in report.render(with_outcomes())
