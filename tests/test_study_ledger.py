"""The ledger: rows in, the same rows out, each once, whatever was torn, doubled or shuffled. Oracles: the rows written, pandas, DuckDB."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, fields, replace

import numpy as np
import pandas
import pytest

from toy_study import row, spec
from tunescope.errors import FormatError, InputError
from tunescope.study.ledger import frame, read_ledger, write_parquet
from tunescope.study.ledger_lines import lines
from tunescope.study.row import COLUMNS, KEY, SCHEMA, Row


def rows(seed: int = 0, count: int = 20) -> list[Row]:
    given, draw = spec(seed=seed), random.Random(seed)
    return [
        row(given, step, draw.gauss(0, 1), layer=step % 3, where=f"block {step % 3}", n=2**53 + 1, versions="torch 2.13.0", wall_s=1.5,
            study="toy")
        for step in range(count)
    ]


def ledger(folder, *runs: list[Row]):
    """A study's folder with these runs finished."""
    (folder / "ledger").mkdir(parents=True)
    for each in runs:
        (folder / "ledger" / f"{each[0].run}.jsonl").write_bytes(lines(each))
    return folder


def test_rows_come_back_as_they_were_written(tmp_path):
    given = rows()
    read = read_ledger(ledger(tmp_path, given))
    assert tuple(read.columns) == COLUMNS
    written = sorted(given, key=lambda each: each.step)
    for name in COLUMNS:
        found = [None if pandas.isna(value) else value for value in read[name]]
        assert found == [getattr(each, name) for each in written], name


def test_dtypes_are_fixed_whatever_the_rows_hold(tmp_path):
    kinds = {"str": "str", "int": "Int64", "float": "float64"}
    wanted = {each.name: kinds[each.type.removesuffix(" | None")] for each in fields(Row)}
    bare = [Row("s", "r", "tune", "m", "geometry", "cka", None)]
    for found in (frame(rows()), frame(bare), frame([]), read_ledger(ledger(tmp_path / "a", rows())), read_ledger(ledger(tmp_path / "b"))):
        assert {name: str(dtype) for name, dtype in found.dtypes.items()} == wanted


def test_concatenation_does_not_depend_on_the_order_nor_on_repetition(tmp_path):
    one, two, three = (ledger(tmp_path / name, rows(seed)) for name, seed in (("a", 0), ("b", 1), ("c", 2)))
    whole = read_ledger(one, two, three)
    assert len(whole) == 60
    together = tmp_path / "all.jsonl"  # as `cat` puts them together
    together.write_bytes(b"".join((path / "ledger" / f"{rows(seed)[0].run}.jsonl").read_bytes() for path, seed in ((two, 1), (one, 0))))
    write_parquet(read_ledger(three), tmp_path / "c.parquet")
    for paths in ((three, one, two), (two, two, one, three, one), (tmp_path / "c.parquet", together), (together, one, three)):
        pandas.testing.assert_frame_equal(read_ledger(*paths), whole)


def test_two_machines_may_differ_in_cost_and_rounding_only(tmp_path):
    here = rows()
    there = [replace(each, value=each.value * (1 + 1e-9), wall_s=7.0, versions="torch 2.14.0") for each in here]
    one, two = ledger(tmp_path / "a", here), ledger(tmp_path / "b", there)
    both = read_ledger(one, two)
    assert len(both) == len(here)
    pandas.testing.assert_frame_equal(both, read_ledger(two, one))
    np.testing.assert_allclose(both["value"], [each.value for each in here], rtol=1e-8)


@pytest.mark.parametrize("change", [{"value": 3.0}, {"value": None}, {"n": 4}, {"low": 0.5}], ids=str)
def test_ledgers_that_contradict_each_other_are_refused_by_name(tmp_path, change):
    here = rows()
    there = [*here[:4], replace(here[4], **change), *here[5:]]
    name = next(iter(change))
    with pytest.raises(InputError, match=rf"contradict.*{name} of geometry orbit \(step 4, where block 1, layer 1\) of fine toy seed 0"):
        read_ledger(ledger(tmp_path / "a", here), ledger(tmp_path / "b", there))


@pytest.mark.parametrize("name", ["change", "low", "high", "null"])
def test_noise_of_the_value_is_no_contradiction_of_what_was_subtracted_from_it(tmp_path, name):
    """A change of 1 - value is as exact as the value: 6e-8 is float32's rounding at 1, and twice the change."""
    here = [replace(each, value=1.0, **{name: 3e-8}) for each in rows()]
    there = [replace(each, value=1.0, **{name: 9e-8}) for each in rows()]
    assert len(read_ledger(ledger(tmp_path / "a", here), ledger(tmp_path / "b", there))) == len(here)
    apart = [replace(each, value=1.0, **{name: 2e-6}) for each in rows()]
    with pytest.raises(InputError, match=f"contradict.*{name} of geometry orbit"):
        read_ledger(ledger(tmp_path / "c", here), ledger(tmp_path / "d", apart))


def test_what_differs_more_can_be_allowed(tmp_path):
    here = rows()
    there = [replace(each, value=each.value * 1.01) for each in here]
    one, two = ledger(tmp_path / "a", here), ledger(tmp_path / "b", there)
    with pytest.raises(InputError, match="contradict"):
        read_ledger(one, two)
    assert len(read_ledger(one, two, agree=0.02)) == len(here)


@pytest.mark.parametrize("cut", [1, 5, 300])
def test_a_torn_last_line_is_left_out_and_told(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(rows())[:-cut])
    if cut == 1:  # only the newline is missing: the row is whole
        assert len(read_ledger(path)) == 20
        return
    with pytest.warns(UserWarning, match="last line is torn"):
        assert len(read_ledger(path)) == 19


def test_a_torn_line_between_others_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(rows())[:-7] + lines(rows(1)))
    with pytest.raises(FormatError, match="line 20: not JSON"):
        read_ledger(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "tunescope.ledger/9"}, "schema 'tunescope.ledger/9' found, this version reads 'tunescope.ledger/1'"),
        ({"schema": None}, "schema None found"),
        ({"run": None}, "rows without run"),
        ({"colour": "red"}, "line 3: unknown column colour"),
        ({"value": "high"}, "not rows of"),
        ({"layer": 1.5}, "not rows of"),
    ],
    ids=str,
)
def test_what_is_not_a_row_is_refused(tmp_path, change, message):
    told = [asdict(each) for each in rows(count=5)]
    told[2] |= change
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in told))
    with pytest.raises(FormatError, match=message):
        read_ledger(path)


def test_parquet_of_other_columns_is_refused(tmp_path):
    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(FormatError, match=f"reads '{SCHEMA}'"):
        read_ledger(tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match="not Parquet"):
        read_ledger(tmp_path / "torn.parquet")


def test_nothing_there_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="there is no ledger at"):
        read_ledger(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no ledger"):
        read_ledger(tmp_path)
    with pytest.raises(InputError, match="got no path"):
        read_ledger()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "value of geometry orbit is nan; a row has a finite number"),
        ({"high": float("inf")}, "high of geometry orbit is inf"),
        ({"layer": 1.5}, "layer of geometry orbit is 1.5; a row has a whole number"),
        ({"texts": 3}, "texts of geometry orbit is 3; a row has a text"),
        ({"model": None}, "model of geometry orbit is None"),
    ],
    ids=str,
)
def test_rows_that_cannot_be_are_refused_when_written(change, message):
    with pytest.raises(InputError, match=message):
        lines([replace(rows(count=1)[0], **change)])


def test_a_number_twice_or_no_number_is_refused_when_written():
    one = rows(count=1)[0]
    with pytest.raises(InputError, match="two rows of one number, geometry orbit"):
        lines([one, replace(one, value=2.0)])
    with pytest.raises(InputError, match="a run without a row"):
        lines([])


def test_numbers_of_numpy_become_plain():
    given = replace(rows(count=1)[0], value=np.float32(0.5), layer=np.int64(3), n=np.int32(7))
    assert {name: json.loads(lines([given]))[name] for name in ("value", "layer", "n")} == {"value": 0.5, "layer": 3, "n": 7}


def test_half_a_surrogate_pair_is_written_so_that_it_can_be_read(tmp_path):
    """Arrow refuses its escape in JSON, and UTF-8 has none."""
    path = ledger(tmp_path, [replace(row, texts="a\udcff") for row in rows(count=2)])
    assert set(read_ledger(path)["texts"]) == {"a\\udcff"}


def test_duckdb_reads_the_files_as_they_are(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    given = [*rows(0), *rows(1)]
    study = ledger(tmp_path, rows(0), rows(1))
    write_parquet(read_ledger(study), tmp_path / "ledger.parquet")
    for source in (f"read_json('{study}/ledger/*.jsonl')", f"read_parquet('{study}/ledger.parquet')"):
        found = duckdb.sql(f"select layer, count(*), avg(value) from {source} group by layer order by layer").fetchall()
        wanted = [[each.value for each in given if each.layer == layer] for layer in range(3)]
        assert [count for _, count, _ in found] == [len(values) for values in wanted]
        assert [mean for *_, mean in found] == pytest.approx([np.mean(values) for values in wanted])  # sums in another order


def test_pandas_reads_the_files_as_they_are(tmp_path):
    given = rows()
    study = ledger(tmp_path, given)
    found = pandas.read_json(study / "ledger" / f"{given[0].run}.jsonl", lines=True, precise_float=True)
    assert list(found["value"]) == [each.value for each in given]


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_ledgers_behind_urls(tmp_path, protocol):
    import fsspec

    root = f"{protocol}://{tmp_path}/study"
    whole = frame(rows())
    with fsspec.open(f"{root}/ledger/{rows()[0].run}.jsonl", "wb", auto_mkdir=True) as file:
        file.write(lines(rows()))
    pandas.testing.assert_frame_equal(read_ledger(root), whole)
    write_parquet(whole, f"{root}/all.parquet")
    pandas.testing.assert_frame_equal(read_ledger(f"{root}/all.parquet"), whole)


def test_the_key_names_a_number():
    assert set(KEY) <= set(COLUMNS)


@pytest.mark.slow
def test_a_million_rows_load_in_seconds(tmp_path):
    """Within 60 s even on a busy machine; a quiet one of two cores needs about 7 for JSON lines and 2 for Parquet."""
    import time

    (tmp_path / "ledger").mkdir()
    text = lines(rows(count=10_000)).decode()
    for seed in range(100):
        other = spec(seed=seed).hash
        (tmp_path / "ledger" / f"{other}.jsonl").write_text(text.replace(rows(count=1)[0].run, other))
    begun = time.perf_counter()
    whole = read_ledger(tmp_path)
    write_parquet(whole, tmp_path / "all.parquet")
    again = read_ledger(tmp_path / "all.parquet")
    means = again.groupby(["run", "layer"])["value"].mean()
    assert time.perf_counter() - begun < 60
    assert len(whole) == 1_000_000
    assert len(means) == 300
    pandas.testing.assert_frame_equal(whole, again)
