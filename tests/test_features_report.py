"""The pages of a comparison of features: every figure is the payload's, nothing is loaded, strings stay strings, search and sort work."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from chromium import settle, visit
from example_features import COMPARED, WAYS, bare, example_features, example_reading, short
from example_payload import HOSTILE_TEXT
from test_report import Tags
from test_report_run import Table
from tunescope import report
from tunescope.report import features_reading, features_words
from tunescope.report.numbers import interval, percent, three, two_digits

PLACES = [(3, "rank 4"), (5, "rank 4"), (3, "rank 16"), (5, "rank 16")]


def text_of(page: str) -> str:
    return " ".join(" ".join(Tags(page).text).split())


def printed(payload: dict, width: int = 80, **options) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(report.features_terminal(payload, **options))
    return out.getvalue()


def island(page: str, name: str = "features") -> dict:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_each_model_has_its_verdict_in_the_headline():
    assert features_words.headline(example_features()) == (
        "rank 4 wrote new features at layer 3 and reused the base’s features at layer 5. "
        "rank 16 partly reused the base’s features at layer 3 and wrote nothing above its floor at layer 5."
    )
    many = example_features(layers=(1, 2, 3, 4, 5), models=("a", "b", "c", "d"))
    assert features_words.headline(many).endswith(
        "of 20 places, new at 4, reused at 4, partly reused at 4, nothing above the floor at 4 and undecided at 4."
    )


def test_quality_and_controls_are_rows_of_one_table_with_the_payloads_figures():
    payload = example_features()
    rows = Table(report.features_report(payload), "Quality").rows
    cells = [row for row in rows if len(row) == 10][1:]
    assert len(cells) == len(payload["quality"]) + len(payload["controls"])
    for own in payload["quality"]:
        noise = next(row["noise_r2"] for row in payload["verdicts"] if (row["layer"], row["name"]) == (own["layer"], own["name"]))
        wanted = [three(noise), three(own["fvu"]["value"]), "4", percent(own["dead_share"]), two_digits(own["median_density"])]
        r2 = own["r2"]
        head = [f"{own['name']} seed {own['seed']}", f"{three(r2['value'])} {interval(r2['low'], r2['high'])}"]
        assert [*head, *wanted] in [row[:7] for row in cells]
    [zero, *_] = [row for row in cells if row[0].startswith("base against base largest")]
    assert zero[0].endswith("largest |Δ| 0")
    assert zero[8] == "0"
    shuffled = [row for row in cells if row[0].startswith("shuffled pairs")]
    assert {row[1] for row in shuffled} == {".655 [.638, .672]"}
    assert {row[9] for row in shuffled} == {".366 floor .356"}


@pytest.mark.parametrize("place", PLACES)
def test_every_comparison_stands_beside_its_floor_and_ceiling(place):
    payload = example_features()
    layer, name = place
    rows = Table(report.features_report(payload), f"Alignment, layer {layer}, {name}").rows[1:]
    assert len(rows) == len(COMPARED)
    own = [row for row in payload["alignment"] if (row["layer"], row["name"]) == place]
    for row in own[: len(COMPARED)]:
        wanted = [
            f"{three(row['value'])} {interval(row['low'], row['high'])}",
            f"{three(row['floor'])} ± {two_digits(row['floor_sd'])}",
            three(row["ceiling"]),
            "128 pairs",
            row["verdict"],
        ]
        assert wanted in [cells[1:] for cells in rows], row["comparison"]
    rebuilt = Table(report.features_report(payload), f"Reconstruction, layer {layer}, {name}").rows[1:]
    for cells, (way, _) in zip(rebuilt, WAYS, strict=True):
        assert way in cells[0]
    values = [row["value"] for row in own if row["comparison"] == "unexplained_share"]
    assert [cells[1].split(" ")[0] for cells in rebuilt] == [features_words.share(value) for value in values]
    assert {cells[2].strip() for cells in rebuilt} == {".612"}


def test_charts_draw_the_payloads_rows():
    payload = example_features()
    drawn = island(report.features_report(payload), "chart-specs")
    floors = {row["floor"] for rows in drawn["alignment_0"]["datasets"].values() for row in rows if "floor" in row}
    assert floors == {0.354}
    values = {row["v"] for rows in drawn["alignment_0"]["datasets"].values() for row in rows if "v" in row}
    assert values == {row["value"] for row in payload["alignment"] if row["comparison"] == "one_to_one_cosine"}
    both = {row["floor"] for rows in drawn["alignment_4"]["datasets"].values() for row in rows if "floor" in row}
    assert both == {0.25, 0.352}, "both floors of the overlap of spans"
    bars = drawn["reconstruction_0"]["datasets"]["rows_0"]
    assert [row["short"] for row in bars][3] == "99 →", "a bar that is cut says its value"
    counted = [row["n"] for row in drawn["density_0"]["datasets"]["rows_0"]]
    histogram = payload["quality"][0]["histogram"]
    assert counted == histogram[-len(counted) :]
    assert sum(counted) == sum(histogram)
    cells = drawn["norms"]["datasets"]["rows_0"]
    assert sorted(cell["v"] for cell in cells) == sorted(row["relative"] for row in payload["norms"])
    table = drawn["table_0"]["datasets"]["rows_0"]
    assert len(table) == 4
    assert {cell["under"] for cell in table} == {"floor .343"}
    closed = {row["v"] for rows in drawn["recovered_0"]["datasets"].values() for row in rows if "v" in row}
    assert closed == {0.447, 0.452}


def test_the_artefact_is_flagged_in_words_before_the_verdicts():
    payload = example_features()
    page = report.features_report(payload)
    assert page.index('data-flag="artefact"') < page.index("<h2>The verdicts</h2>")
    said = text_of(page)
    assert f"An artefact layer 5, rank 16 {payload['flags'][0]['words']}" in said
    for figure in ("base’s dictionary applied to Δ: left unexplained 99", "re-coded: left unexplained .343", "own: left unexplained .285"):
        assert figure in said
    assert 'class="flag"' not in report.features_report(payload | {"flags": []})
    assert "artefact" in report.feature_page(payload, (5, "rank 16"), example_reading())
    assert "artefact" not in report.feature_page(payload, (3, "rank 16"), example_reading())


def test_behaviour_recovered_is_there_where_it_was_measured():
    payload = example_features()
    rows = Table(report.features_report(payload), "Behaviour recovered, layer 5, rank 16").rows[1:]
    assert [row[0].split(" ")[0] for row in rows] == ["zero", "mean", "seed", "seed", "true"]
    assert [row[1] for row in rows][2] == "45% [.438, .456]"
    assert "Behaviour recovered" not in report.features_report({key: value for key, value in payload.items() if key != "recovered"})


@pytest.mark.parametrize("payload", [bare(example_features()), bare(example_features(layers=(3,), models=("one",)))])
def test_what_is_not_there_is_left_out(payload):
    said = text_of(report.features_report(payload))
    assert "Dictionary against dictionary" not in said
    assert "How large Δ is" not in said
    assert "Alignment against chance" not in said
    assert not [attributes for tag, attributes in Tags(report.features_report(payload)).tags if tag == "a"]
    assert "None" not in said
    assert "nan" not in said.lower().split()


@pytest.mark.parametrize("hostile", [False, True])
def test_pages_load_nothing_and_strings_stay_strings(hostile):
    payload = example_features(hostile=hostile)
    place = features_reading.places(payload)[0]
    for page in (report.features_report(payload), report.feature_page(payload, place, example_reading(hostile=hostile))):
        tags = Tags(page).tags
        for tag, attributes in tags:
            assert tag not in ("img", "link", "iframe", "object")
            for name in ("src", "href", "action"):
                assert not str(attributes.get(name, "")).startswith(("http", "//"))
        assert [name for tag, attributes in tags for name in attributes if name.startswith("on")] == []
        assert "default-src 'none'" in page
        if hostile:
            assert HOSTILE_TEXT.replace("\u2028", " ").split()[0] in text_of(page)
    read = example_reading(hostile=hostile)
    found = island(report.feature_page(payload, place, read))
    tokens = [found["tokens"][number] for number in found["features"][0]["contexts"][0]["t"]]
    assert tokens == read["features"][0]["contexts"][0]["tokens"], "tokens come back as they were"


def test_places_link_to_pages_that_were_written():
    payload = example_features()
    links = {attributes["href"] for tag, attributes in Tags(report.features_report(payload)).tags if tag == "a"}
    assert links == {report.page_name(place) for place in PLACES}
    back = {attributes["href"] for tag, attributes in Tags(report.feature_page(payload, PLACES[0], example_reading())).tags if tag == "a"}
    assert back == {features_reading.PAGE}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("rank8", "features-rank8-layer-3.html"), ("rank 8", f"features-rank-8-{short('rank 8')}-layer-3.html"),
     ("../x/y", f"features-x-y-{short('../x/y')}-layer-3.html"), ("модель", f"features-model-{short('модель')}-layer-3.html")],
)  # fmt: skip
def test_names_of_pages_are_names_of_files(name, wanted):
    assert report.page_name((3, name)) == wanted


def test_a_feature_page_lists_what_was_read():
    read = example_reading(features=12)
    page = report.feature_page(example_features(), (3, "rank 4"), read)
    found = island(page)["features"]
    assert [feature["n"] for feature in found] == [feature["latent"] for feature in read["features"]]
    for compact, feature in zip(found, read["features"], strict=True):
        assert compact["by"]["explained"] == feature["explained_share"]
        assert compact["said"]["cosine"] == three(feature["nearest"][0]["cosine"])
        passed = feature["nearest"][0]["cosine"] > feature["nearest"][0]["floor"]
        floor = ".383" if passed else ".383, not passed"
        assert compact["near"] == [["base", str(feature["nearest"][0]["latent"]), compact["said"]["cosine"], floor]]
        first = feature["contexts"][0]
        assert compact["contexts"][0]["a"][0] is None
        assert compact["contexts"][0]["a"][10] == pytest.approx(first["activation"], rel=5e-3)
    assert "3 more are not listed" in text_of(page)
    assert text_of(report.feature_page(example_features(), (3, "rank 4"), read["features"])), "a list of features will do"


def test_a_page_of_five_hundred_features_stays_light():
    page = report.feature_page(example_features(), (3, "rank 4"), example_reading(features=500, contexts=12))
    assert len(page.encode()) < 2_500_000


@pytest.mark.parametrize("hostile", [False, True])
def test_the_terminal_fits_and_says_verdicts_floors_and_flags(hostile):
    payload = example_features(hostile=hostile)
    said = printed(payload, page="out/report.html")
    assert max(cell_len(line) for line in said.splitlines()) <= 80
    assert "\x1b" not in said
    for part in ("partly reused", "nothing", ".715", ".281", ".417", ".354", ".594", "77%", "An artefact", "out/report.html"):
        assert part in said
    assert "shuffled R² .655, cosine .366" in " ".join(said.split())
    assert printed(bare(example_features()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Overviews and pages of features as they lie beside one another."""
    out = tmp_path_factory.mktemp("features")
    payload, read = example_features(), example_reading(features=60)
    (out / "report.html").write_text(report.features_report(payload), encoding="utf-8")
    for place in PLACES:
        (out / report.page_name(place)).write_text(report.feature_page(payload, place, read), encoding="utf-8")
    odd = example_features(hostile=True)
    (out / "hostile.html").write_text(report.features_report(odd), encoding="utf-8")
    page = report.feature_page(odd, features_reading.places(odd)[0], example_reading(hostile=True))
    (out / "hostile-features.html").write_text(page, encoding="utf-8")
    many = example_features(layers=(1, 2, 3, 4, 5), models=("rank 4", "rank 8", "rank 16", "rank 32"))
    (out / "many.html").write_text(report.features_report(many), encoding="utf-8")
    (out / "bare.html").write_text(report.features_report(bare(payload)), encoding="utf-8")
    return out


def numbers_of(browser) -> list[str]:
    script = "return [...document.querySelectorAll('#list li')].filter(e => !e.hidden).map(e => e.querySelector('.num').textContent)"
    return browser.execute_script(script)


def ask(browser, text: str) -> None:
    box = browser.find_element("id", "search")
    box.clear()
    box.send_keys(text)


def choose(browser, name: str, value: str) -> None:
    browser.find_element("css selector", f'#{name} option[value="{value}"]').click()


def test_search_filters(browser, folder):
    visit(browser, folder / report.page_name(PLACES[0]))
    assert len(numbers_of(browser)) == 60
    ask(browser, "odd17")
    assert numbers_of(browser) == ["17"]
    assert browser.find_element("id", "count").text.startswith("1 of 60")
    ask(browser, "DOWN21")
    assert numbers_of(browser) == ["21"]
    choose(browser, "scope", "contexts")
    assert numbers_of(browser) == []
    choose(browser, "scope", "fires")
    ask(browser, "w59")
    assert numbers_of(browser) == ["59"]
    ask(browser, "#33")
    assert numbers_of(browser) == ["33"]
    ask(browser, "")
    choose(browser, "scope", "all")
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize("key", ["explained", "density", "max", "cosine", "unlike", "number"])
def test_sort_sorts(browser, folder, key):
    visit(browser, folder / report.page_name(PLACES[0]))
    choose(browser, "sort", key)
    features = example_reading(features=60)["features"]
    value = {
        "explained": lambda f: -f["explained_share"], "density": lambda f: -f["density"], "max": lambda f: -f["max"],
        "cosine": lambda f: -f["nearest"][0]["cosine"], "unlike": lambda f: f["nearest"][0]["cosine"], "number": lambda f: f["latent"],
    }[key]  # fmt: skip
    assert numbers_of(browser) == [str(feature["latent"]) for feature in sorted(features, key=value)]
    shown = browser.find_element("css selector", "#list .fig").text
    first = sorted(features, key=value)[0]
    if key in ("cosine", "unlike"):
        assert shown == three(first["nearest"][0]["cosine"])
        assert "floor .383" in browser.find_element("id", "count").text


def test_choosing_a_feature_shows_where_it_fires(browser, folder):
    visit(browser, folder / report.page_name(PLACES[0]))
    features = {str(feature["latent"]): feature for feature in example_reading(features=60)["features"]}
    browser.find_elements("css selector", "#list button")[4].click()
    number = numbers_of(browser)[4]
    detail = browser.find_element("id", "detail")
    assert detail.find_element("css selector", "h2").text == f"Feature {number}"
    feature = features[number]
    quotes = browser.execute_script("return [...document.querySelectorAll('#detail blockquote')].map(e => e.textContent)")
    assert quotes == ["".join(each["tokens"]).replace("\n", "↵") for each in feature["contexts"]]
    peaks = browser.execute_script(
        "return [...document.querySelectorAll('#detail blockquote .peak')].map(e => [e.textContent, e.className])"
    )
    shades = [1 + min(int(4 * each["activation"] / feature["max"]), 3) for each in feature["contexts"]]
    assert peaks == [[f" w{number}", f"a{shade} peak"] for shade in shades]
    assert browser.execute_script("return location.hash") == f"#feature-{number}"
    assert ".383" in detail.text
    assert f"up{number}" in detail.text
    assert browser.execute_script("return document.querySelectorAll('#detail blockquote .no-row').length") == len(feature["contexts"])


def test_a_feature_can_be_linked_to_and_the_pages_to_one_another(browser, folder):
    visit(browser, folder / "report.html")
    browser.find_element("css selector", ".places a").click()
    assert browser.current_url.endswith(report.page_name(PLACES[0]))
    browser.get(f"{(folder / report.page_name(PLACES[0])).as_uri()}#feature-42")
    assert browser.find_element("css selector", "#detail h2").text == "Feature 42"
    browser.find_element("css selector", ".back a").click()
    settle(browser)
    assert browser.current_url.endswith("report.html")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["report.html", report.page_name(PLACES[0])])
def test_pages_read_in_both_lights(browser, folder, name, dark):
    from test_report_browser import colours, contrast, luminance

    visit(browser, folder / name, dark=dark)
    [paper] = colours(browser, "body", "backgroundColor")
    assert (luminance(paper) < 0.1) == dark
    for selector in ("h1", "h2", ".headline", ".note", "td.n", "th", ".told p", ".key", "#list .num", "#list .to", ".score", ".no-row"):
        for ink in colours(browser, selector, "color"):
            assert contrast(ink, paper) >= 4.5, (selector, ink)
    for selector in (".a1", ".a2", ".a3", ".a4", ".word.rewritten", ".word.refined", ".word.untouched"):
        for ink, ground in zip(colours(browser, selector, "color"), colours(browser, selector, "backgroundColor"), strict=True):
            assert contrast(ink, ground) >= 4.5, (selector, ink, ground)
    assert browser.find_elements("css selector", ".chart-failed") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize(
    "name", ["report.html", "hostile.html", "many.html", "bare.html", "hostile-features.html", report.page_name(PLACES[0])]
)
def test_nothing_overflows_and_nothing_fails(browser, folder, name, width):
    visit(browser, folder / name, width=width)
    wide, inner = browser.execute_script("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= inner == width
    assert browser.find_elements("css selector", ".chart-failed, img") == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
