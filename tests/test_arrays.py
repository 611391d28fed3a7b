"""Rows without a model: files and arrays in, numpy's own formulas as the oracle, rows matched by id, refusals that name file and row."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import tunescope as ts
from tunescope.cli import app
from tunescope.errors import ActivationError, AlignmentError, InputError, NotEnoughRows, UnknownName

N, D = 60, 8


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(N, D)) * np.linspace(2, 0.5, D)
    return x, x + 0.6 * draw.normal(size=(N, D))


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith et al. (2019), by numpy."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def output(comparison: ts.Comparison) -> dict:
    return comparison.payload["sites"]["output"]["measures"]


FORMS = {
    "float64": lambda a: a,
    "float32": lambda a: a.astype(np.float32),
    "float16": lambda a: a.astype(np.float16),
    "other byte order": lambda a: a.astype(">f8"),
    "columns first": np.asfortranarray,
    "integers": lambda a: np.round(a * 100).astype(np.int64),
}


@pytest.mark.parametrize("form", FORMS)
def test_npy_files_are_the_output_of_a_model(rows, tmp_path, form):
    x, y = (FORMS[form](array) for array in rows)
    np.save(tmp_path / "base.npy", x)
    np.save(tmp_path / "tuned.npy", y)
    c = ts.diff(tmp_path / "base.npy", tmp_path / "tuned.npy")
    assert output(c)["cka"]["value"] == pytest.approx(cka(x.astype(np.float64), y.astype(np.float64)), abs=1e-6)
    assert c.payload["layers"] == []
    assert c.payload["base"]["name"] == str(tmp_path / "base.npy")
    assert c.payload["base"]["shape"] == "[60, 8]"
    assert len(c.payload["base"]["rows_sha256"]) == 64


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda a: {"output": a}, lambda a: {"embeddings": a}], ids=range(4))
def test_arrays_from_python(rows, kind):
    c = ts.diff(*map(kind, rows))
    assert output(c)["cka"]["value"] == pytest.approx(cka(*rows), abs=1e-9)
    assert output(c)["nps"]["value"] == ts.nps(*rows)
    assert (c.payload["base"]["name"], c.payload["tuned"]["name"]) == ("base", "tuned")


def test_a_stack_of_layers_is_a_profile(rows, tmp_path):
    x, y = rows
    np.save(tmp_path / "a.npy", np.stack([x, x, x]))
    np.save(tmp_path / "b.npy", np.stack([x, y, y[:, ::-1]]))
    np.savez(tmp_path / "b.npz", embeddings=x, layer_1=y, **{"block 2": y[:, ::-1]})
    for tuned in ("b.npy", "b.npz"):
        c = ts.diff(tmp_path / "a.npy", tmp_path / tuned)
        assert c.profile["name"].tolist() == ["embeddings", "block 1", "block 2"]
        assert c.profile["identical"].tolist() == [True, False, False]
        np.testing.assert_allclose(c.profile["cka"], [1, cka(x, y), cka(x, y)], atol=1e-9)
        assert c.payload["sites"] == {}
        assert c.cross.shape == (3, 3)
        c.html()


def test_named_places_meet_and_the_rest_is_said(rows):
    x, y = rows
    c = ts.diff({"output": x, "projected": x[:, :3], "final": x}, {"output": y, "projected": y[:, :3], "pooler": y})
    assert list(c.payload["sites"]) == ["output", "projected"]
    assert "left out, for want of a partner on the other side: final, pooler" in c.warnings
    with pytest.raises(AlignmentError, match="holds output, and|holds final, output and 'tuned' holds pooler, query"):
        ts.diff({"final": x, "output": x}, {"pooler": y, "query": y})


def table(tmp_path, name: str, rows: np.ndarray, ids, **more) -> str:
    path = tmp_path / name
    pq.write_table(pa.table({"id": ids, "embedding": pa.array(list(rows.astype(np.float32))), **more}), path)
    return str(path)


def test_parquet_rows_are_matched_by_id(rows, tmp_path):
    x, y = rows
    ids, order = [f"doc-{i}" for i in range(N)], np.random.default_rng(1).permutation(N)
    base = table(tmp_path, "base.parquet", x, ids)
    shuffled = table(tmp_path, "tuned.parquet", y[order], [ids[i] for i in order])
    c = ts.diff(base, shuffled)
    assert output(c)["cka"]["value"] == pytest.approx(cka(x, y), abs=1e-6)
    assert c.payload["data"]["source"] == "matched by id"
    assert {entry["id"] for entry in c.payload["texts"]["most"]} <= set(ids)
    part = table(tmp_path, "part.parquet", y[order][:50], [*(ids[i] for i in order[:47]), "new-1", "new-2", "new-3"])
    c, kept = ts.diff(base, part), np.sort(order[:47])
    assert c.payload["data"]["n"] == 47
    assert output(c)["cka"]["value"] == pytest.approx(cka(x[kept], y[kept]), abs=1e-6)
    (said,) = [warning for warning in c.warnings if "no row of the same id" in warning]
    assert f"13 of the 60 rows of '{base}' and 3 of the 50 rows of '{part}'" in said


def test_parquet_refusals(rows, tmp_path):
    x, y = rows
    base = table(tmp_path, "base.parquet", x, range(N), other=list(y))
    with pytest.raises(InputError, match=r"which column holds the embeddings\? .*embedding, other"):
        ts.diff(base, base)
    assert output(ts.diff(base, base, column="other"))["cka"]["value"] == 1
    with pytest.raises(UnknownName, match="did you mean embedding"):
        ts.diff(base, base, column="embeding")
    with pytest.raises(InputError, match="column 'id' of .* is int64, not lists of numbers"):
        ts.diff(base, base, column="id")
    with pytest.raises(AlignmentError, match=r"twice.parquet': 1 ids stand more than once \('7' first\)"):
        ts.diff(table(tmp_path, "twice.parquet", x, [7, 7, *range(100, 158)]), table(tmp_path, "b.parquet", y, range(N)))
    with pytest.raises(AlignmentError, match=r"no id of .* \(a0, …\) is in .* \(0, …\)"):
        ts.diff(table(tmp_path, "a.parquet", x, [f"a{i}" for i in range(N)]), str(tmp_path / "b.parquet"))
    pd.DataFrame({"v": [*x[:-1], x[-1][:3]]}).to_parquet(tmp_path / "ragged.parquet")
    with pytest.raises(InputError, match="row 59 counted from 0: column 'v' is 3 numbers long, row 0 is 8 long"):
        ts.diff(tmp_path / "ragged.parquet", tmp_path / "b.parquet")
    x[8, 3] = np.nan  # which pandas writes as null
    pd.DataFrame({"v": list(x)}).to_parquet(tmp_path / "null.parquet")
    with pytest.raises(InputError, match="row 8 counted from 0: column 'v' has a null among its numbers"):
        ts.diff(tmp_path / "null.parquet", tmp_path / "b.parquet")
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(y.ravel()), D)
    pq.write_table(pa.table({"vector": fixed}), tmp_path / "fixed.parquet")
    assert output(ts.diff(y, tmp_path / "fixed.parquet"))["cka"]["value"] == 1
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="not a parquet file that can be read"):
        ts.diff(tmp_path / "bad.parquet", tmp_path / "b.parquet")


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "Inf")])
def test_nan_and_inf_name_the_file_and_the_row(rows, tmp_path, value, kind):
    x, y = rows
    y[41, 2] = value
    np.save(tmp_path / "base.npy", x)
    np.save(tmp_path / "tuned.npy", y)
    with pytest.raises(ActivationError, match=f"tuned.npy' has {kind} in row 41, counted from 0"):
        ts.diff(tmp_path / "base.npy", tmp_path / "tuned.npy")
    sides = [table(tmp_path, f"{name}.parquet", side, [f"d{i}" for i in range(N)]) for name, side in (("x", x), ("y", y))]
    with pytest.raises(ActivationError, match=rf"has {kind} in row 41 \(id d41\)"):
        ts.diff(*sides)
    with pytest.raises(ActivationError, match=f"'tuned', block 1 has {kind} in row 41"):
        ts.diff(np.stack([x, x]), np.stack([x, y]))


@pytest.mark.parametrize(
    ("pair", "options", "error", "message"),
    [
        (lambda x, y: (x, y[:-1]), {}, AlignmentError, "'base' has 60 rows and 'tuned' has 59, and without ids"),
        (lambda x, y: (x[0], y), {}, InputError, r"'base' has shape \(8,\); give \(rows, features\)"),
        (lambda x, y: (x[None], y[None]), {}, InputError, r"shape \(1, 60, 8\)"),
        (lambda x, y: (x.astype(complex), y), {}, InputError, "holds complex128, not real numbers"),
        (lambda x, y: (x.astype(str), y), {}, InputError, "not real numbers"),
        (lambda x, y: ({"a": x, "b": x[1:]}, {"a": y, "b": y}), {}, AlignmentError, "'a' has 60 rows and 'b' has 59"),
        (lambda x, y: ({}, {"a": y}), {}, InputError, "'base' holds no arrays"),
        (lambda x, y: (x[:5], y[:5]), {}, NotEnoughRows, "nps needs at least 12 rows, got 5"),
        (lambda x, y: (x, "some/model"), {}, InputError, "rows were given for one side, and the other side is a model or a capture"),
        (lambda x, y: (x, None), {}, InputError, "the other side is missing"),
        (lambda x, y: (x, "missing.npy"), {}, InputError, "no such file: 'missing.npy'"),
        (lambda x, y: (x, y), {"pooling": "cls"}, InputError, "pooling 'cls' was asked for, and rows without a model"),
        (lambda x, y: (x, y), {"sample": 20}, InputError, "sample 20 was asked for"),
        (lambda x, y: (x, y), {"layers": [3]}, InputError, "layers 3 asked for; 'tuned' holds none"),
        (lambda x, y: (x, y), {"texts": ["one", "two"]}, AlignmentError, "has 2 texts for 60 rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(rows, pair, options, error, message):
    with pytest.raises(error, match=message):
        ts.diff(*pair(*rows), **options)


def test_pickles_are_not_opened(rows, tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as an array"):
        ts.diff(tmp_path / "a.npy", rows[1])


def test_texts_put_words_to_the_rows_that_moved(rows, tmp_path):
    x, y = rows
    y[17] = -9 * x[17]
    texts = [f"this is text {i}" for i in range(N)]
    most = ts.diff(x, y, texts).payload["texts"]["most"][0]
    assert most["text"] == "this is text 17"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": f"d{i}", "text": texts[i]}) + "\n" for i in reversed(range(N))))
    sides = [table(tmp_path, f"{name}.parquet", side, [f"d{i}" for i in range(N)]) for name, side in (("x", x), ("y", y))]
    most = ts.diff(*sides, tmp_path / "t.jsonl").payload["texts"]["most"][0]
    assert (most["id"], most["text"]) == ("d17", "this is text 17")


def test_the_headline_speaks_of_embeddings_and_of_no_function(rows):
    x, y = rows
    c = ts.diff(x, y)
    assert c.headline.startswith("The embeddings moved: similarity to the base .8")
    share = round(100 * ts.nps(x, y))
    assert f"rows keep {share}% of their ten nearest neighbours. Nothing was measured about function." in c.headline
    assert ts.diff(x, x.copy()).headline.startswith("Nothing changed: the embeddings of these 60 rows are bit-identical")
    unrelated = np.random.default_rng(5).normal(size=(N, D))
    assert "are no closer to the base than chance" in ts.diff(x, unrelated).headline
    assert "hardly moved" in ts.diff(x, x + 1e-4 * unrelated).headline
    assert "could not be compared" in ts.diff(x, np.ones((N, D))).headline


def test_everything_reads_well_without_blocks(rows, tmp_path):
    c = ts.diff(*rows)
    page = c.html().split("<main>")[1].split("<h3>The measures")[0]
    for absent in ("by layer", "Each dot is a layer", "Layer by layer", "any block before it", " texts", "text’s", "pooling", "depth"):
        assert absent not in page, absent
    assert "How far" in page
    assert c.profile.empty
    assert c.cross.empty
    assert c.payload["width"] is None
    assert [record.where for record in c.records] == ["output"] * 5
    c.save(tmp_path / "out", figures=True)
    assert ts.load(tmp_path / "out").payload == c.payload
    assert (tmp_path / "out" / "figures" / "neighbourhood_curve.png").exists()


def test_what_the_tuning_was_is_recorded_as_declared(rows):
    c = ts.diff(*rows, tuned_by={"rule": "lora, rank 8", "objective": "contrastive"})
    assert c.payload["tuned"]["declared"] == {"objective": "contrastive", "rule": "lora, rank 8"}
    assert "declared" not in c.payload["base"]
    assert "objective contrastive, rule lora, rank 8" in c.html()
    assert c.spec != ts.diff(*rows).spec
    assert ts.diff(*rows, tuned_by="objective=mlm,corpus=wiki").payload["tuned"]["declared"] == {"objective": "mlm", "corpus": "wiki"}
    for said, error, message in (
        ("objektive=mlm", UnknownName, "unknown declaration of the tuning 'objektive'; did you mean objective"),
        ("mlm", InputError, "write it as key=value"),
        ("rule=", InputError, "declared with rule ''"),
        ("rule=a,rule=b", InputError, "two values of rule, 'a' and 'b'"),
    ):
        with pytest.raises(error, match=message):
            ts.diff(*rows, tuned_by=said)


def test_the_command_line(rows, tmp_path):
    for name, array in zip(("base", "tuned"), rows, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    arguments = ["diff", tmp_path / "base.npy", tmp_path / "tuned.npy", "--out", tmp_path / "out", "--tuned-by", "objective=mlm"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert "60 rows, matched by their order" in " ".join(done.stdout.split())
    assert "The embeddings moved: similarity" in done.stdout
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["tuned"]["declared"] == {"objective": "mlm"}
