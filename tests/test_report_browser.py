"""The report as a reader meets it: a real Chromium opens the file from disk, in both lights, on a desktop and on a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chromium import settle, visit
from example_outcomes import hostile_outcomes, many_tasks, with_outcomes
from example_payload import HOSTILE_TEXT, example, hostile
from example_run import example_run, hostile_run
from tunescope import report

CHARTS = (
    "depth_curve_cka",
    "cross_layer",
    "width",
    "published_slopes",
    "published_width",
    "neighbourhood_curve",
    "isotropy",
    "weight_change",
    "representation_change",
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The pages under test, written to disk once."""
    folder = tmp_path_factory.mktemp("pages")
    payloads = {
        "example": example(), "hostile": hostile(), "deep": example(blocks=96), "one block": example(blocks=1), "zero": example(top=0.0),
        "long": example(base="b" * 200, tuned="t/" * 90),
        "outcomes": with_outcomes(), "hostile outcomes": hostile_outcomes(), "many tasks": many_tasks(),
        "deep outcomes": with_outcomes(example(blocks=48)),
    }  # fmt: skip
    written = {}
    for name, payload in payloads.items():
        written[name] = folder / f"{name.replace(' ', '-')}.html"
        written[name].write_text(report.render(payload), encoding="utf-8")
    for name, payload in {"run": example_run(steps=400, points=(0, 50, 200, 400), tau=5e-4), "hostile run": hostile_run()}.items():
        written[name] = folder / f"{name.replace(' ', '-')}.html"
        written[name].write_text(report.run_report(payload), encoding="utf-8")
    return written


def marks(browser, chart: str, kind: str = "path, line, text, rect") -> int:
    return browser.execute_script(f"return document.querySelectorAll('[data-chart=\"{chart}\"] svg .role-mark :is({kind})').length")


def test_every_chart_draws_without_an_error(browser, pages):
    visit(browser, pages["example"])
    for chart in CHARTS:
        assert marks(browser, chart) > 5, chart
    assert marks(browser, "cross_layer", "text") == 49
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize(
    "name", ["hostile", "deep", "one block", "zero", "long", "hostile outcomes", "deep outcomes", "many tasks", "hostile run"]
)
def test_odd_pages_draw_without_an_error(browser, pages, name):
    visit(browser, pages[name], width=390)
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_every_chart_of_outcomes_draws_without_an_error(browser, pages):
    visit(browser, pages["outcomes"])
    for chart in ("outcome_0", "outcome_3", "two_questions_0", "ruler_outcome_0", "probe_surface_0_0", "probe_surface_0_2"):
        assert marks(browser, chart) >= 3, chart
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_a_run_draws_and_reads_in_both_lights(browser, pages, dark):
    visit(browser, pages["run"], dark=dark)
    for chart in ("loss", "trajectory_nps", "trajectory_isotropy", "outcome_0", "outcome_1", "step_sizes"):
        assert marks(browser, chart) >= 5, chart
    [paper] = colours(browser, "body", "backgroundColor")
    for chart in ("trajectory_nps", "outcome_0", "step_sizes"):
        for ink in colours(browser, f'[data-chart="{chart}"] svg .mark-text.role-mark text', "fill"):
            assert contrast(ink, paper) >= 4.5, (chart, ink)
    click(browser, "isotropy")
    [table] = [each for each in browser.find_elements("css selector", "[data-for]") if each.is_displayed()]
    assert "isotropy" in table.text
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize("width", [390, 1440])
def test_each_layer_is_named_once_in_the_two_questions(browser, pages, width):
    visit(browser, pages["outcomes"], width=width)
    script = """return [...document.querySelectorAll('[data-chart="two_questions_0"] svg .mark-text.role-mark text')]
        .filter(t => getComputedStyle(t).opacity > 0 && t.getAttribute("opacity") !== "0").map(t => t.textContent)"""
    assert sorted(browser.execute_script(script)) == sorted(["emb", "1", "2", "3", "4", "5", "6", "output"])


def test_queries_fold_open_and_a_script_in_one_is_shown(browser, pages):
    visit(browser, pages["hostile outcomes"], width=390)
    first = browser.find_element("css selector", "details.queries")
    assert not first.find_element("css selector", "blockquote").is_displayed()
    first.find_element("css selector", "summary").click()
    quote = first.find_element("css selector", "blockquote")
    assert quote.is_displayed()
    assert quote.get_property("textContent") == HOSTILE_TEXT
    assert browser.find_elements("css selector", "img") == []


@pytest.mark.parametrize("dark", [False, True])
def test_outcomes_are_readable_in_both_lights(browser, pages, dark):
    visit(browser, pages["outcomes"], width=390, dark=dark)
    browser.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    [paper] = colours(browser, "body", "backgroundColor")
    for selector in (".outcome-headline", ".scores span", ".said", ".card .note", ".mark", "summary", ".token dt", ".share"):
        for ink in colours(browser, selector, "color"):
            assert contrast(ink, paper) >= 4.5, (selector, ink)
    for ink, ground in zip(colours(browser, "mark", "color"), colours(browser, "mark", "backgroundColor"), strict=True):
        assert contrast(ink, ground) >= 4.5
    for chart in ("outcome_0", "two_questions_0", "ruler_outcome_0"):
        for ink in colours(browser, f'[data-chart="{chart}"] svg .role-axis-label text', "fill"):
            assert contrast(ink, paper) >= 4.5, (chart, ink)
    wide, inner = browser.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= inner


def test_no_request_leaves_the_page(browser, pages):
    visit(browser, pages["example"])
    click(browser, "nps")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked, "the log sees the page itself"
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def click(browser, measure: str) -> None:
    browser.find_element("css selector", f'button[data-measure="{measure}"]').click()
    settle(browser)


def test_the_measure_switch_changes_chart_and_table(browser, pages):
    visit(browser, pages["example"])
    before = browser.execute_script("return document.querySelector('#curve svg').outerHTML")
    table = browser.find_element("css selector", "table.layers").text
    assert ".672" in table
    click(browser, "procrustes")
    assert browser.execute_script("return document.querySelector('#curve').dataset.drawn") == "depth_curve_procrustes"
    assert browser.execute_script("return document.querySelector('#curve svg').outerHTML") != before
    seen = [element.text for element in browser.find_elements("css selector", "table.layers") if element.is_displayed()]
    assert len(seen) == 1
    assert ".728" in seen[0]
    assert "Procrustes distance" in seen[0]
    pressed = browser.find_elements("css selector", 'button[aria-pressed="true"]')
    assert {button.get_attribute("data-measure") for button in pressed} == {"procrustes"}
    assert browser.execute_script("return document.querySelectorAll('#curve svg').length") == 1
    click(browser, "cka")
    assert browser.find_element("css selector", "table.layers").is_displayed()


def test_fast_clicking_ends_on_the_last_choice(browser, pages):
    visit(browser, pages["example"])
    browser.execute_script(
        "for (const m of ['nps', 'procrustes', 'cka', 'debiased_cka']) document.querySelector(`[data-measure=${m}]`).click()"
    )
    settle(browser)
    browser.execute_async_script("setTimeout(arguments[0], 800)")
    assert browser.execute_script("return document.querySelectorAll('#curve svg').length") == 1
    assert "1 − debiased_cka" in browser.find_element("css selector", "#curve").text


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
@pytest.mark.parametrize("name", ["example", "hostile", "deep", "long", "outcomes", "hostile outcomes", "run", "hostile run"])
def test_nothing_overflows_sideways(browser, pages, name, width):
    visit(browser, pages[name], width=width)
    wide, inner = browser.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= inner == width
    cut = browser.execute_script("""
        return [...document.querySelectorAll('.chart svg')].flatMap(svg => {
          const box = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('text')].filter(t => t.textContent && getComputedStyle(t).opacity > 0).filter(t => {
            const b = t.getBoundingClientRect();
            return b.width > 0 && (b.right > box.right + 1.5 || b.left < box.left - 1.5);
          }).map(t => t.textContent);
        });""")
    assert cut == [], "no label is cut at the edge of its chart"


def colours(browser, selector: str, prop: str) -> list[str]:
    script = f"return [...document.querySelectorAll({json.dumps(selector)})].map(e => getComputedStyle(e).{prop})"
    return browser.execute_script(script)


def luminance(colour: str) -> float:
    channels = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_both_lights(browser, pages, dark):
    visit(browser, pages["example"], dark=dark)
    [paper] = colours(browser, "body", "backgroundColor")
    assert (luminance(paper) < 0.1) == dark
    for selector in ("h1", "h2", ".headline", ".reading", "figcaption", "td.n", "th", ".texts blockquote", ".note", "footer p"):
        for ink in colours(browser, selector, "color"):
            assert contrast(ink, paper) >= 4.5, (selector, ink)
    for chart in ("depth_curve_cka", "width", "isotropy", "neighbourhood_curve"):
        for ink in colours(browser, f'[data-chart="{chart}"] svg .role-axis-label text', "fill"):
            assert contrast(ink, paper) >= 4.5, (chart, ink)


def test_charts_follow_a_change_of_light(browser, pages):
    visit(browser, pages["example"])
    line = '#curve svg [aria-roledescription="line mark container"] path'
    light = set(colours(browser, line, "stroke"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    browser.execute_async_script("setTimeout(arguments[0], 1500)")
    settle(browser)
    after = set(colours(browser, line, "stroke"))
    assert light
    assert after
    assert not light & after


def test_a_script_in_a_text_is_shown_not_run(browser, pages):
    from selenium.common.exceptions import NoAlertPresentException

    visit(browser, pages["hostile"])
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert
    quotes = browser.execute_script("return [...document.querySelectorAll('blockquote')].map(e => e.textContent)")
    assert HOSTILE_TEXT in quotes
    assert browser.find_elements("css selector", "img") == []


def test_hovering_a_layer_tells_its_numbers(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains

    visit(browser, pages["example"])
    cell = browser.find_elements("css selector", '[data-chart="cross_layer"] svg .mark-rect path')[8]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    browser.execute_async_script("setTimeout(arguments[0], 200)")  # let the scroll end: scrolling hides the tip
    ActionChains(browser).move_to_element(cell).perform()
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed()
    assert "block 1" in tip.text
    assert ".976" in tip.text


def test_the_page_reads_without_javascript(browser, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["example"].as_uri())
        text = browser.find_element("css selector", "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert example()["headline"] in text
    assert "[.659, .686]" in text
    assert "kept 1 of 10 neighbours" in text
