"""What a pass is said to cost beforehand, against counts by hand, the arrays that come out, and the clock."""

from __future__ import annotations

import math
import re

import pytest
from typer.testing import CliRunner

from tiny_models import LAYERS, TEXTS, WIDTH, save_model, save_sentence_transformer, tiny_tokenizer
from tunescope.activations import capture
from tunescope.cli import app
from tunescope.comparison import diff
from tunescope.comparison import estimate as module
from tunescope.comparison.estimate import PROBE, REPORT, SAMPLE, Estimate, duration, estimate, size
from tunescope.comparison.streaming import CHUNK, KEPT, free_memory
from tunescope.models import load_model
from tunescope.texts import Corpus

READING = {"prompt": "", "max_length": 64}


def corpus(n: int) -> Corpus:
    return Corpus.of((f"{TEXTS[i % len(TEXTS)]} {'cat ' * (i % 5)}".strip() for i in range(n)), map(str, range(n)), "here")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_model(tmp_path_factory.mktemp("model") / "m"), device="cpu")


def held(acts) -> int:
    """The bytes that a capture's rows take, by numpy."""
    everything = [acts, *acts.also.values()]
    return sum(rows.numpy().nbytes for one in everything for rows in [*one.layers.values(), *one.sites.values()])


@pytest.mark.parametrize(
    "more", [{}, {"also": ("cls", "last")}, {"layers": [0, 2]}, {"reading": {"pooling": "cls"}}, {"reading": {"pooling": "none"}}]
)
def test_the_bytes_are_those_of_the_arrays(model, more):
    texts, reading = corpus(40), READING | more.get("reading", {})
    also, layers = more.get("also", ()), more.get("layers")
    found = estimate([(model, layers), (model, layers)], [texts], reading, also=also)
    assert found.rows == 2 * held(capture(model, texts.texts, layers=layers, also=also, **reading))
    assert found.models == 2


def test_the_bytes_of_a_deployed_head_narrower_than_the_blocks(tmp_path):
    model = load_model(save_sentence_transformer(tmp_path / "m", dense=5), device="cpu")
    assert estimate([(model, None)], [corpus(30)], READING).rows == 30 * 4 * ((LAYERS + 2) * WIDTH + 5)


def test_the_tokens_of_few_texts_are_counted_and_of_many_scaled(model):
    few, many, tokenizer = corpus(SAMPLE), corpus(20 * SAMPLE), tiny_tokenizer()
    exact = sum(len(ids) for ids in tokenizer(list(few.texts))["input_ids"])
    found = estimate([(model, None)], [few], READING)
    assert (found.tokens, found.sampled, found.texts) == (exact, False, SAMPLE)
    scaled, whole = estimate([(model, None)], [many], READING), sum(len(ids) for ids in tokenizer(list(many.texts))["input_ids"])
    assert scaled.sampled
    # 200 texts whose lengths have a standard deviation of about 5 around 12: three standard errors of the mean are 9%
    assert scaled.tokens == pytest.approx(whole, rel=0.09)


def test_further_sets_add_their_texts_and_the_largest_its_rows(model):
    one = estimate([(model, None)], [corpus(50)], READING)
    three = estimate([(model, None)], [corpus(50), corpus(20), corpus(30)], READING)
    assert three.texts == 100
    assert three.rows == pytest.approx(one.rows * 80 / 50)
    assert three.tokens == one.tokens + sum(estimate([(model, None)], [corpus(n)], READING).tokens for n in (20, 30))


def test_seconds_are_those_of_the_probe_times_the_tokens(model, monkeypatch):
    """With a clock that gives every token a millisecond, the whole pass takes a millisecond a token of every model."""

    def timed(model, texts, **options):
        acts = capture(model, texts, **options)
        assert acts.n <= PROBE
        acts.seconds_forward = 0.001 * int(acts.tokens.sum())
        return acts

    monkeypatch.setattr(module, "capture", timed)
    texts = corpus(150)
    tokens = sum(len(ids) for ids in tiny_tokenizer()(list(texts.texts))["input_ids"])
    assert estimate([(model, None), (model, None)], [texts], READING).seconds == pytest.approx(0.002 * tokens)
    assert estimate([(model, None)], [texts], READING, copies=2).seconds == pytest.approx(0.002 * tokens)
    assert estimate([(model, None)], [texts], READING, processes=4).seconds == pytest.approx(0.00025 * tokens)


def test_a_capture_needs_disk_and_a_stream_few_rows(model, tmp_path):
    n = CHUNK + 2 * KEPT
    exact = estimate([(model, None)], [corpus(n)], READING)
    stored, streamed = (estimate([(model, None)], [corpus(n)], READING, method=method) for method in ("capture", "stream"))
    assert (stored.disk, exact.disk) == (exact.rows, REPORT)
    assert streamed.rows == pytest.approx(exact.rows * (CHUNK + KEPT) / n)


def test_the_report_is_about_as_large_as_said(tmp_path):
    found = diff(save_model(tmp_path / "a"), save_model(tmp_path / "b", seed=1), list(corpus(40).texts), method="exact")
    folder = found.save(tmp_path / "out")
    assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(REPORT, rel=0.5)


KNOWN = Estimate(
    texts=1000, tokens=98_000, sampled=False, models=2, device="cpu", seconds=25.2, rows=28_000_000, disk=REPORT, method="exact",
    available=8e9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "1,000 texts, 98,000 tokens, two models on cpu: about 25 s; rows 28 MB in memory"),
        ({"sampled": True, "tokens": 98_432}, "1,000 texts, about 98,000 tokens, two models on cpu: about 25 s; rows 28 MB in memory"),
        ({"processes": 4}, "1,000 texts, 98,000 tokens, two models on cpu in 4 processes: about 25 s; rows 28 MB in memory"),
        ({"models": 1, "method": "capture", "disk": 3e9}, "1,000 texts, 98,000 tokens, one model on cpu: about 25 s; 3.0 GB on disk"),
        (
            {"available": 55_999_999},
            "1,000 texts, 98,000 tokens, two models on cpu: about 25 s; rows 28 MB in memory, more than half of the 56 MB that is free: "
            "--method stream holds few rows at a time",
        ),
        ({"available": math.inf}, "1,000 texts, 98,000 tokens, two models on cpu: about 25 s; rows 28 MB in memory"),
        ({"available": 1, "method": "stream"}, "1,000 texts, 98,000 tokens, two models on cpu: about 25 s; rows 28 MB in memory"),
    ],
)
def test_the_line(changes, line):
    assert Estimate(**(KNOWN.__dict__ | changes)).said() == line


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.3, "under 1 s"), (25.2, "about 25 s"), (600, "about 10 min"), (9000, "about 2.5 h")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(12, "12 bytes"), (1500, "1.5 kB"), (28e6, "28 MB"), (999e6, "999 MB"), (8.04e9, "8.0 GB"), (2e12, "2.0 TB")]
)
def test_sizes(count, said):
    assert size(count) == said


def test_free_memory_is_read_and_asked_for_elsewhere(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   64 kB\n")
    assert free_memory(tmp_path / "meminfo") == 64 * 1024
    assert 0 < free_memory(tmp_path / "none") < 2**50  # by sysconf, in bytes


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_line_says_it_on_stderr(tmp_path, as_json):
    base, tuned = save_model(tmp_path / "a"), save_model(tmp_path / "b", seed=1)
    (tmp_path / "texts.txt").write_text("\n".join(corpus(30).texts))
    options = ["-t", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "out"), "-m", "cka", *(["--json"] if as_json else [])]
    result = CliRunner().invoke(app, ["diff", str(base), str(tuned), "--one-at-a-time", "--device-map", "cpu", *options])
    assert result.exit_code == 0, result.output
    assert ("30 texts, " in result.stderr) is not as_json
    assert "30 texts, " not in result.stdout.splitlines()[0][:10]


def test_a_capture_says_what_it_writes(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(corpus(30).texts))
    model, out = save_model(tmp_path / "a"), tmp_path / "out"
    arguments = [str(model), "-t", str(tmp_path / "texts.txt"), "-o", str(out)]
    result = CliRunner().invoke(app, ["capture", *arguments])
    assert result.exit_code == 0, result.output
    rows = sum(path.stat().st_size for path in out.glob("*.npy"))
    said = re.search(r"one model on \w+: under 1 s; ([\d.]+) kB on disk", result.stderr)
    assert float(said[1]) * 1000 == pytest.approx(rows, rel=0.2)  # the headers of the .npy files are a tenth of such small ones


@pytest.mark.parametrize("more", [{}, {"one_at_a_time": True}, {"method": "stream", "measures": "cka"}])
def test_diff_announces_one_line_before_it_reads(tmp_path, more):
    heard: list[str] = []
    base, tuned = save_model(tmp_path / "a"), save_model(tmp_path / "b", seed=1)
    texts = list(corpus(30).texts)
    found = diff(base, tuned, texts, announce=heard.append, progress=lambda stage, *_: heard.append(stage), **({"measures": "cka"} | more))
    assert re.fullmatch(r"30 texts, [\d,]+ tokens, two models on \w+: under 1 s; rows [\d.]+ kB in memory", heard[0]), heard[0]
    assert "reading texts" in heard[1]
    tokens = sum(len(ids) for ids in tiny_tokenizer()(texts)["input_ids"])
    assert int(heard[0].split(" texts, ")[1].split(" tokens")[0]) == tokens == found.payload["data"]["tokens"]


def test_the_probe_reads_few_texts(model, monkeypatch):
    """What it costs is what it reads: nine texts per model, whatever their number."""
    read: list[int] = []

    def counting(model, texts, **options):
        read.append(len(texts))
        return capture(model, texts, **options)

    monkeypatch.setattr(module, "capture", counting)
    estimate([(model, None)], [corpus(5000)], READING)
    assert read == [1, PROBE]
