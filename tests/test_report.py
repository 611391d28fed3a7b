"""The report without a browser: numbers, escaping, nothing loaded from outside, odd payloads, figures, the terminal."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from example_payload import HOSTILE_NAME, HOSTILE_TEXT, displaced, example, hostile
from tunescope import report
from tunescope.errors import OutputError
from tunescope.report import numbers, page, provenance, reading, theme
from tunescope.report.chart_parts import spread, wrap
from tunescope.report.charts import charts
from tunescope.report.terminal import bar, plain

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Tags(HTMLParser):
    """Every tag with its attributes, the visible text, and the scripts by type."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)


def shown(payload: dict) -> str:
    return " ".join(" ".join(Tags(report.render(payload)).text).split())


def printed(payload: dict, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(report.terminal(payload))
    return out.getvalue()


def drop(payload: dict, *keys: str) -> dict:
    return {key: value for key, value in payload.items() if key not in keys}


def many_measures(count: int) -> dict:
    payload = example()
    for order in range(count):
        name = f"measure_{order}"
        payload["measures"][name] = {**payload["measures"]["cka"], "title": f"Measure number {order}"}
        for row in [*payload["layers"], *payload["sites"].values()]:
            row["measures"][name] = dict(row["measures"]["cka"])
    return payload


def one_measure() -> dict:
    payload = example()
    payload["measures"] = {"cka": payload["measures"]["cka"]}
    for row in [*payload["layers"], *payload["sites"].values()]:
        row["measures"] = {"cka": row["measures"]["cka"]}
    return payload


def all_null() -> dict:
    payload = example()
    for row in [*payload["layers"], *payload["sites"].values()]:
        for entry in row["measures"].values():
            entry |= dict.fromkeys(entry)
    payload["cross"]["values"] = [[None for _ in line] for line in payload["cross"]["values"]]
    for row in payload["cross"]["layers"]:
        row |= dict.fromkeys(row.keys() - {"index", "name", "own_index", "own_name"})
    payload["width"] = {"shares": None, "final_share": None, "layers": [], "reason": "nothing was measured"}
    payload["nps_curve"]["values"] = [[None] * 4 for _ in payload["nps_curve"]["names"]]
    payload["texts"]["most"] = [{"id": "line 1", "text": "", "moved": None, "kept": None, "of": None}]
    payload["locality"] = {name: {} for name in payload["measures"]}
    unplaced = {"measures": None, "width": None, "nearest": None, "among": None, "reason": "no measure has a change at every block"}
    payload["published"] |= unplaced
    return payload


def sparse() -> dict:
    """The fewest keys that are still a comparison."""
    payload = example()
    kept = {key: payload[key] for key in ("schema", "headline", "base", "tuned", "measures", "default_measure", "layers")}
    return copy.deepcopy(kept) | {
        "sites": {},
        "cross": None,
        "nps_curve": None,
        "texts": None,
        "controls": [],
        "warnings": [],
        "width": None,
    }


def non_square() -> dict:
    payload = example()
    payload["cross"]["values"] = [line[:3] for line in payload["cross"]["values"]]
    payload["cross"]["null"] = None
    payload["cross"]["tuned_names"] = payload["cross"]["tuned_names"][:3]
    payload["cross"]["layers"] = payload["cross"]["layers"][:3]
    return payload


def long_names() -> dict:
    payload = example(base="b" * 300, tuned="a very long name " * 20)
    payload["headline"] = "w" * 400
    payload["texts"]["most"][0]["text"] = "\u202e" + "long " * 60 + "🧪" * 40
    payload["controls"][0]["name"] = "unbreakable" * 20
    return payload


def with_nan() -> dict:
    payload = example()
    payload["layers"][2]["measures"]["cka"] |= {"value": float("nan"), "change": float("inf")}
    return payload


def negative() -> dict:
    payload = example(top=0.003)
    for row in payload["layers"]:
        row["measures"]["debiased_cka"] |= {"value": 1.0004, "change": -0.0004, "low": 0.999, "high": 1.002}
    return payload


def no_measures() -> dict:
    payload = example()
    payload["measures"] = {"isotropy": payload["measures"]["isotropy"]}
    for row in [*payload["layers"], *payload["sites"].values()]:
        row["measures"] = {"isotropy": row["measures"]["isotropy"]}
    return payload


ODD = {
    "plain": example,
    "one block": lambda: example(blocks=1),
    "96 blocks": lambda: example(blocks=96),
    "nothing changed": lambda: example(top=0.0),
    "hardly changed": lambda: example(top=0.0005),
    "all null": all_null,
    "sparse": sparse,
    "non-square": non_square,
    "long names": long_names,
    "nan": with_nan,
    "negative change": negative,
    "one measure": one_measure,
    "fifteen measures": lambda: many_measures(10),
    "isotropy alone": no_measures,
    "no layers": lambda: example() | {"layers": [], "sites": {}},
    "out of place": displaced,
    "hostile": hostile,
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"), (float("nan"), "–"), (1.0, "1"), (0.0, "0"), (-0.0, "0"), (1, "1"), (0.8844, ".884"), (0.99951, ">.999"),
        (1 - 1e-12, ">.999"), (0.9994, ".999"), (4e-4, "<.001"), (1e-300, "<.001"), (-4e-4, ">−.001"), (-0.0404, "−.040"),
        (-0.9999, "<−.999"), (-1.0, "−1"), (1.0001, ">1"), (-1.0001, "<−1"), (1.4142, "1.414"),
        (12345.678, "12,345.678"), (float("inf"), "∞"),
    ],
)  # fmt: skip
def test_three_decimals_never_lie(value, said):
    assert numbers.three(value) == said


def test_three_prints_a_bare_whole_number_only_when_exact():
    for step in range(-3000, 3001):
        value = step / 1000 + 1e-7
        assert numbers.three(value).lstrip("−") not in {"0", "1", "2", "3"}, value
    for whole in (-3, -1, 0, 1, 2):
        assert numbers.three(float(whole)) == str(whole).replace("-", "−")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (numbers.interval(0.87, 0.898), "[.870, .898]"), (numbers.interval(None, 0.9), "–"), (numbers.half_width(0.5, 0.48, 0.51), "±.020"),
        (numbers.half_width(1.0, 1.0, 1.0), "±0"), (numbers.count(81234), "81,234"), (numbers.count(None), "–"),
        (numbers.count(-1200), "−1,200"),
        (numbers.percent(0.42), "42%"), (numbers.percent(0.999), ">99%"), (numbers.percent(1.0), "100%"), (numbers.percent(0.001), "<1%"),
        (numbers.percent(0.0), "0%"), (numbers.percent(None), "–"), (numbers.signed(0.12), "+.120"), (numbers.signed(-0.045), "−.045"),
        (numbers.signed(0.0), "0"), (numbers.signed(-1e-9), "−<.001"), (numbers.signed(0.99999), ">+.999"),
        (numbers.signed(-0.99999), "<−.999"), (numbers.signed(1.00001), ">+1"), (numbers.signed(1.0), "+1"),
        (numbers.seconds(0.01), "<0.1 s"), (numbers.seconds(12.7), "13 s"),
        (numbers.seconds(185), "3 min 05 s"), (numbers.short_hash("a" * 64), "aaaaaaaaaaaa…"), (numbers.short_hash(None), "–"),
    ],
)  # fmt: skip
def test_other_numbers(made, said):
    assert made == said


def test_floor_and_interval_are_read_as_changes():
    payload = example()
    entry = payload["layers"][4]["measures"]["cka"]
    assert reading.floor(payload, "cka", entry) == pytest.approx(1 - entry["null"])
    low, high = reading.change_interval(payload, "cka", entry)
    assert low < entry["change"] < high
    entry = payload["layers"][4]["measures"]["procrustes"]
    assert reading.floor(payload, "procrustes", entry) == entry["null"]
    assert reading.floor(payload, "isotropy", payload["layers"][4]["measures"]["isotropy"]) is None
    assert reading.one_sided(payload) == ["isotropy"]
    assert reading.comparing(payload)[0] == "cka"


def test_labels_keep_apart_and_wrap():
    centres = sorted(spread([50.0, 51.0, 52.0, 299.0], [14.0] * 4, 0, 300))
    assert all(b - a >= 14 - 1e-9 for a, b in zip(centres, centres[1:], strict=False))
    assert centres[-1] <= 293
    assert wrap("gaussian noise, σ = .02") == ["gaussian noise,", "σ = .02"]
    assert all(len(line) <= 15 for line in wrap("x" * 300 + " y z " * 40))
    assert wrap("") == [""]


@pytest.mark.parametrize("case", ODD)
def test_every_odd_payload_renders(case):
    payload = ODD[case]()
    before = json.dumps(payload)
    html = report.render(payload)
    tags = Tags(html)
    assert tags.open == [], "every tag is closed"
    assert json.dumps(payload) == before, "the payload is not touched"
    assert "None" not in re.sub(r"<script.*?</script>", "", html, flags=re.S), "no Python value shows through"
    assert "nan" not in {word.lower() for word in " ".join(tags.text).split()}
    for spec in charts(reading.printable(payload)).values():
        json.dumps(spec, allow_nan=False)


def test_nothing_is_loaded_from_outside():
    for payload in (example(), hostile()):
        html = report.render(payload)
        for tag, attrs in Tags(html).tags:
            assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}, tag
            assert "src" not in attrs, (tag, attrs)
            assert not any(name.startswith("on") for name in attrs), (tag, attrs)
            if "href" in attrs:
                assert tag == "a"
                assert attrs["href"].startswith(("https://", "http://"))
        css = "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.S))
        assert "url(" not in css
        assert "@import" not in css
        assert "default-src 'none'" in html


def test_strangers_strings_are_shown_not_run():
    html = report.render(hostile())
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    scripts = [attrs for tag, attrs in Tags(html).tags if tag == "script"]
    assert len(scripts) == 5, "the page's own scripts and no other"
    assert "<script>alert" not in html
    assert "<img" not in outside
    assert "javascript:alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert HOSTILE_NAME.replace("\x1b", "\ufffd") in "".join(Tags(html).text)


def test_characters_no_file_can_hold_are_replaced(tmp_path):
    payload = one_measure() | {"headline": "nul \x00 lone \ud800 escape \x1b[0m"}
    payload["base"]["name"] = payload["tuned"]["name"] = payload["layers"][1]["name"] = "a\x00b\ud83d\x1b\uffff"
    html = report.render(payload)
    assert not set(html) & set("\x00\x1b\ud800\ud83d\uffff")
    assert "a\ufffdb" in html
    assert report.figures(payload, tmp_path), "a control character in a label aborts the drawing library"


def test_script_json_cannot_leave_its_element():
    text = page.script_json({"a": HOSTILE_TEXT + "]]>\u2029&amp;"})
    assert not set(text) & set("<>&")
    assert text.isascii()
    assert json.loads(text)["a"].startswith(HOSTILE_TEXT)


def test_the_last_blocks_share_is_told_beside_a_larger_one():
    payload = example()
    payload["width"] |= {"shares": [0.05, 0.05, 0.05, 0.06, 0.41, 0.38], "final_share": 0.38}
    assert "38% of the change lies in the last of 6 blocks, most, 41%, in block 5; spread evenly it would be 17%." in shown(payload)
    assert "38% of the change in the last block (most, 41%, in block 5)" in " ".join(printed(payload).split())
    assert "most, " not in printed(example())


def test_the_page_says_what_a_reader_needs_without_javascript():
    payload = example()
    text = shown(payload)
    for said in (
        payload["headline"], payload["warnings"][0], payload["status_rule"], "never whether that is good or bad",
        "nothing on this page measured function", "moved .612, kept 1 of 10 neighbours", "bit-identical", "22,713,216", "81,234",
        "[.659, .686]", "1 − cka", "geometry 0.8 s", "python documentation", "rotation, isotropic scale, translation",
        "gaussian noise, σ = .02", "30% of the change lies in the last of 6 blocks",
        "34% lies at depth 1.00", "of the 210 published runs are steeper",
    ):  # fmt: skip
        assert said in text, said
    html = report.render(payload)
    assert f'title="{payload["tuned"]["weights_sha256"]}"' in html
    hidden = {attrs["data-for"]: "hidden" in attrs for tag, attrs in Tags(html).tags if tag == "div" and "data-for" in attrs}
    assert hidden == {"cka": False, "debiased_cka": True, "procrustes": True, "nps": True}


def test_layers_out_of_place_and_massive_dimensions_are_said_where_they_are():
    text, terminal = shown(displaced()), " ".join(printed(displaced()).split())
    for said in (
        "5 of 7 tuned layers kept their place; block 2 moved, it matches base block 5 (+3 layers); block 4 is new, like no base layer.",
        "Closer to another, but not clearly or no more than layers are alike by nature: block 6.", "+.008 [−.004, .020]",
        "Kept, moved and new are decided. The floor is .006.", "standardised CKA .412, dimension 217 holds 71% of the variance",
        "every dimension brought to unit variance",
    ):  # fmt: skip
        assert said in text, said
    assert "not in its place: block 2 moved, it matches base block 5 (+3 layers); block 4 is new, like no base layer" in terminal
    ordinary = shown(example())
    assert "Every tuned layer kept its place: none of the 7 is clearly closer to another base layer than to its own." in ordinary
    assert "tandardised" not in ordinary
    assert "not in its place" not in printed(example())
    older = example()
    del older["cross"]["layers"], older["cross"]["matching"]
    assert "Every tuned layer is closest to the base layer of the same name." in shown(older)


def test_a_floor_far_above_the_curve_is_named_not_hidden():
    spec = json.dumps(charts(example(top=0.02) | {"controls": []})["depth_curve_cka"], ensure_ascii=False)
    assert "chance floor .929: far above this scale" in spec
    assert "chance floor: an unrelated representation" in json.dumps(charts(example())["depth_curve_cka"])


def test_this_run_stands_among_the_published():
    """A tick a published run and a line at this slope; a row of bars of its own, in its place by share."""
    payload = example()
    made = charts(payload)
    drawn = [row for rows in made["published_slopes"]["datasets"].values() for row in rows]
    assert len({(row["model"], row["run"]) for row in drawn if "run" in row}) == 210
    slope = payload["published"]["measures"]["procrustes"]["slope"]
    assert [row["slope"] for row in drawn if row.get("said", "").startswith("this fine-tuning")] == [slope]
    bars = next(rows for rows in made["published_width"]["datasets"].values() if len(rows) == 70)
    order = list(dict.fromkeys(bar["model"] for bar in bars))
    finals = {bar["model"]: bar["foot"] - bar["top"] for bar in bars if bar["last"]}
    assert order == sorted(finals, key=finals.__getitem__)
    assert order.index("this fine-tuning") == 0
    assert "No place among published runs: no measure has a change at every block." in shown(all_null())


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_palette_is_readable_in_both_lights():
    assert len(set(theme.LIGHT.values())) == len(theme.LIGHT), "a light colour names one role"
    for colours in (theme.LIGHT, theme.DARK):
        for role in ("ink", "muted", "main", "floor", *(name for name in colours if name.startswith("control_"))):
            assert contrast(colours[role], colours["paper"]) >= 4.5, role
        assert contrast(colours["floor"], colours["faint"]) >= 4.4
        assert contrast(colours["on_rewritten"], colours["rewritten"]) >= 4.5
        for low in ("ramp_0", "ramp_1", "ramp_2"):
            assert contrast(colours["on_low"], colours[low]) >= 4.5, low
        for high in ("ramp_4", "ramp_5"):
            assert contrast(colours["on_high"], colours[high]) >= 4.5, high
        ramp = [contrast(colours[f"ramp_{step}"], colours["paper"]) for step in range(6)]
        assert ramp == sorted(ramp), "closer stands out more, evenly"


def test_figures_are_written_as_png_and_svg(tmp_path):
    written = report.figures(one_measure(), tmp_path / "made" / "here")
    assert {path.name for path in written} == {
        f"{name}.{kind}"
        for name in (
            "depth_curve_cka",
            "cross_layer",
            "width",
            "published_slopes",
            "published_width",
            "neighbourhood_curve",
            "weight_change",
            "representation_change",
            *(f"elsewhere_{order}" for order in range(5)),
        )
        for kind in ("png", "svg")
    }
    for path in written:
        head = path.read_bytes()
        assert len(head) > 2000
        assert head.startswith(b"\x89PNG\r\n\x1a\n") if path.suffix == ".png" else head.lstrip().startswith(b"<svg")
    assert "all-MiniLM-L6-v2" in (tmp_path / "made" / "here" / "depth_curve_cka.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", ["one block", "nothing changed", "all null", "non-square", "hostile", "isotropy alone"])
def test_figures_of_odd_payloads(case, tmp_path):
    for path in report.figures(ODD[case](), tmp_path):
        assert path.stat().st_size > 500


def test_figures_refuse_a_folder_that_is_a_file(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write figures into .*taken: .*; give another folder"):
        report.figures(one_measure(), taken)


@pytest.mark.parametrize("case", ODD)
def test_the_terminal_fits_eighty_columns(case):
    text = printed(ODD[case]())
    assert max(cell_len(line) for line in text.split("\n")) <= 80
    assert "\x1b" not in text, "no stranger's escape reaches the terminal"
    assert "None" not in text


def test_the_terminal_table_reads_well():
    text = printed(example())
    row = next(line for line in text.split("\n") if line.startswith("block 6"))
    assert row.split()[:6] == ["block", "6", "rewritten", ".672", "±.014", ".328"]
    assert "██" in row
    assert ".929" in row
    for said in (
        "embeddings",
        "output",
        "chance",
        "slope +.391",
        "30% of the change in the last",
        "gaussian noise, σ = .02: .170",
        "warning: 23 of",
    ):
        assert said in " ".join(text.split()), said
    assert "[red]markup[/red]" in printed(hostile()), "a stranger's markup is text"


def test_where_nothing_changed_no_difference_is_told():
    payload = example(top=0.0)
    assert all(row["identical"] for row in payload["layers"])
    assert "slope" not in printed(payload)
    assert "isotropy, largest difference" not in printed(payload)
    assert "slope over depth" not in shown(payload)
    assert "A property of each side by itself" not in shown(payload)
    assert "isotropy, largest difference" in printed(example())


def test_what_was_read_is_said_plainly():
    payload = example()
    payload["data"]["pooling"] = "none"
    payload["base"]["output"] = {"declared": False, "pooling": ["mean"], "layers": [], "weights_sha256": None, "prompt": ""}
    assert "token rows (output: a row a text)" in " ".join(printed(payload).split())
    assert "none pooling" not in shown(payload) + printed(payload)
    assert "none: rows are tokens, those of output texts" in shown(payload)
    (row,) = [row for row in provenance.identity(payload["base"], payload["tuned"]) if row["label"] == "output"]
    assert [cell["shown"] for cell in row["cells"]] == ["declared no, pooling mean", "–"]
    assert "the distance that remains, in lengths of the text’s own vector" in shown(payload)


def test_bars_and_plain_text():
    assert bar(0.0) == " " * 6
    assert bar(1.0) == "█" * 6
    assert bar(1e-9).strip() == "▏"
    assert bar(7.0) == "█" * 6
    assert plain("a\x1b[31m\u202eb\nc\x00") == "a[31mb c"


def test_measures_beyond_the_width_are_named():
    assert "also measured, in the report:" in printed(many_measures(10))
    assert "measure_9" in printed(many_measures(10))


def test_importing_the_report_is_light():
    heavy = ("torch", "transformers", "altair", "pandas", "numpy", "jinja2", "vl_convert", "rich")
    code = f"import sys, tunescope.report; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rendering_never_imports_torch():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from example_payload import example; from tunescope import report; "
        "report.render(example()); report.terminal(example()); print('torch' in sys.modules)"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_script_is_bundled_once_and_kept(tmp_path, monkeypatch):
    """What a second process reads is what the first one made; a cache that cannot be written costs time and nothing else."""
    from tunescope.report import bundle

    made = bundle.script()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle.script.cache_clear()
    assert bundle.script() == made
    (kept,) = (tmp_path / "tunescope").iterdir()
    assert kept.read_text(encoding="utf-8") == made
    kept.write_text("from the cache" + bundle.END, encoding="utf-8")
    bundle.script.cache_clear()
    assert bundle.script() == "from the cache" + bundle.END
    kept.write_text(made[:1000], encoding="utf-8")
    bundle.script.cache_clear()
    assert bundle.script() == made
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))  # a file, in which no folder can be made
    bundle.script.cache_clear()
    assert bundle.script() == made
