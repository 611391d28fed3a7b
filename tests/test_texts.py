"""Reading texts: what is accepted is read exactly, and what is not is refused with the place and the remedy."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import struct
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunescope.errors import InputError, TextsError, UnknownName
from tunescope.texts import Corpus, as_corpus, read_texts

TEXTS = ["One, two.", 'She said "three",\nthen four.', "Füñf 六 🙂", "One, two.", "  kept as it is\t."]
SHARED = Path(__file__).parents[2] / "shared" / "data"


def corpus_of(texts) -> Corpus:
    return Corpus.of(texts, map(str, range(len(texts))), "here")


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def write_table(path: Path, columns: dict[str, list]) -> Path:
    """The same table in each format, written by the standard library or pandas, not by us."""
    frame = pandas.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        quoting = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",", quoting=quoting)
    return path


# Reading


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_are_read_exactly(tmp_path, suffix):
    corpus = read_texts(write_table(tmp_path / f"t{suffix}", {"label": list("abcde"), "text": TEXTS}))
    assert corpus.texts == tuple(TEXTS)
    assert corpus.columns == {"label": tuple("abcde")}
    assert corpus.warnings == ("1 of 5 texts is a duplicate of another",)
    assert corpus.sampled_from is None
    assert corpus.source == str(tmp_path / f"t{suffix}")


def test_tsv_has_no_quoting(tmp_path):
    texts = ['"Quoted" at the start', 'an inch is 1"', "plain"]
    assert read_texts(write(tmp_path / "t.tsv", "text\tn\n" + "".join(f"{text}\t1\n" for text in texts))).texts == tuple(texts)


def test_tsv_that_was_quoted_is_pointed_out(tmp_path):
    corpus = read_texts(write(tmp_path / "t.tsv", 'text\tn\n"She said ""no"""\t1\n'))
    assert corpus.warnings == ("1 cells look quoted and tsv has no quoting: save the file as csv if the quotation marks are not text",)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_txt_is_one_text_a_line(tmp_path, mark, end):
    lines = [b"one", b"", b"   ", "zwölf\u2028still".encode(), b" three "]
    corpus = read_texts(write(tmp_path / "t.txt", mark + end.join(lines) + end))
    assert corpus.texts == ("one", "zwölf\u2028still", " three ")
    assert corpus.ids == ("line 1", "line 4", "line 5")
    assert corpus.warnings == ("2 blank lines skipped",)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, suffix):
    plain = write_table(tmp_path / f"t{suffix}", {"text": ["one", "two"]}).read_bytes()
    assert read_texts(write(tmp_path / f"u{suffix}", b"\xef\xbb\xbf" + plain)).texts == ("one", "two")


def test_a_last_line_without_an_end_counts(tmp_path):
    assert read_texts(write(tmp_path / "t.txt", "one\ntwo")).texts == ("one", "two")
    assert read_texts(write(tmp_path / "t.jsonl", '{"text": "one"}\n\n{"text": "two"}')).warnings == ("1 blank line skipped",)


def test_a_cell_may_hold_lines(tmp_path):
    path = write(tmp_path / "t.csv", 'text,label\n"a\nb",1\nc,2\n')
    corpus = read_texts(path)
    assert (corpus.texts, corpus.ids) == (("a\nb", "c"), ("row 1", "row 2"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_files_own_ids_name_the_texts(tmp_path, suffix):
    corpus = read_texts(write_table(tmp_path / f"t{suffix}", {"_id": ["q7", "q9"], "text": ["one", "two"]}))
    assert corpus.ids == ("q7", "q9")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_blank_texts_take_their_row_with_them(tmp_path, suffix):
    corpus = read_texts(write_table(tmp_path / f"t{suffix}", {"text": ["one", " ", "two"], "label": ["a", "b", "c"]}))
    assert (corpus.texts, corpus.columns) == (("one", "two"), {"label": ("a", "c")})
    assert corpus.ids[1] == ("line 3" if suffix == ".jsonl" else "row 3")
    assert corpus.warnings == ("1 of 3 texts are blank and were skipped",)


def test_parquet_reads_dictionaries_and_leaves_vectors(tmp_path):
    words = pyarrow.array(["a", "b", "a"]).dictionary_encode()
    large = pyarrow.array(["one", "two", "three"], pyarrow.large_string())
    pyarrow.parquet.write_table(pyarrow.table({"text": large, "label": words, "vector": [[1.0], [2.0], [3.0]]}), tmp_path / "t.parquet")
    corpus = read_texts(tmp_path / "t.parquet")
    assert (corpus.texts, corpus.columns) == (("one", "two", "three"), {"label": ("a", "b", "a")})


# Which column


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"n": [1, 2], "text": ["a b", "c d"], "label": ["x", "y"]}, "text"),
        ({"label": ["x", "y"], "Sentence": ["a b", "c d"]}, "Sentence"),
        ({"n": [1, 2], "utterances": ["a b", "c d"]}, "utterances"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_column_is_found(tmp_path, suffix, columns, chosen):
    assert read_texts(write_table(tmp_path / f"t{suffix}", columns)).texts == tuple(columns[chosen])


def test_a_second_candidate_is_pointed_out(tmp_path):
    path = write_table(tmp_path / "t.csv", {"query": ["a", "b"], "passage": ["c", "d"]})
    corpus = read_texts(path)
    assert corpus.texts == ("c", "d")
    assert corpus.warnings == (f"texts are column 'passage' of {path}; it also has 'query': name a column to choose",)
    assert read_texts(path, column="query").warnings == ()


def test_two_unnamed_string_columns_are_a_question(tmp_path):
    path = write_table(tmp_path / "t.csv", {"premise": ["a", "b"], "hypothesis": ["c", "d"], "n": [1, 2]})
    with pytest.raises(TextsError, match="which column holds the texts.*'premise', 'hypothesis', 'n'; name one"):
        read_texts(path)
    assert read_texts(path, column="premise").texts == ("a", "b")


def test_an_unknown_column_gets_the_nearest_names(tmp_path):
    path = write_table(tmp_path / "t.csv", {"premise": ["a", "b"], "label": ["c", "d"]})
    with pytest.raises(UnknownName, match=re.escape(f"unknown column of {path} 'premis'; did you mean premise?")):
        read_texts(path, column="premis")


def test_txt_has_no_columns(tmp_path):
    with pytest.raises(InputError, match=r"column='text' was given .* has none"):
        read_texts(write(tmp_path / "t.txt", "one\n"), column="text")


# Refusals


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt", b"one\ntwo\nca\xe9f\n", r"t.txt, line 3: byte 0xe9 at offset 10 is not UTF-8; .*iconv -f ISO-8859-1 -t UTF-8 t.txt >"),
        ("t.txt", b"\xef\xbb\xbfone\n\xff\n", r"line 2: byte 0xff at offset 7 is"),
        ("t.txt", "one\n".encode("utf-16"), r"line 1: byte 0xff at offset 0 .*iconv -f UTF-16"),
        ("t.csv", b"text,n\none,1\n\xe9,2\n", r"t.csv, line 3: byte 0xe9"),
        ("t.txt", b"", r"t.txt: no texts in it"),
        ("t.txt", b"\n  \n", r"t.txt: no texts in it"),
        ("t.csv", b"text,label\n", r"t.csv: no texts in it"),
        ("t.jsonl", b"", r"t.jsonl: no texts in it"),
        ("t.jsonl", b'{"text": " "}\n', r"t.jsonl: no texts in it"),
        ("t.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', r"t.jsonl, line 3: not JSON \(Expecting ',' delimiter at character 13\)"),
        ("t.jsonl", b'{"text": "a"}\n"b"\n', r"line 2: a string, not an object; write \{\"text\""),
        ("t.jsonl", b'{"text": "a"}\n{"text": null}\n', r"line 2: column 'text' is null, not a text; fill it in or remove the row"),
        ("t.jsonl", b'{"text": "a"}\n{"words": "b"}\n', r"line 2: column 'text' is null"),
        ("t.jsonl", b'{"text": "a"}\n{"text": 7}\n', r"line 2: column 'text' is 7 \(int\), not a text"),
        ("t.jsonl", b'{"text": "a"}\n{"text": "b\\ud83d"}\n', r"line 2: \\ud83d at character 1 is half of a surrogate pair"),
        ("t.csv", b"text,label\none,1\ntwo, three,2\n", r"t.csv, line 3: 3 cells, the header has 2; quote"),
        ("t.csv", b'text,label\none,1\n"two,2\n', r"t.csv, line 3: not csv \(unexpected end of data\); check the quotation marks"),
        ("t.csv", b"text,text\none,1\n", r"the header names 'text' more than once"),
        ("t.parquet", b"not a parquet file, but long enough", r"t.parquet: not a parquet file that can be read"),
        ("t.docx", b"", r"texts are read from .txt, .jsonl, .csv, .tsv and .parquet, not '.docx'"),
        ("texts", b"", r"texts are read from .txt, .jsonl, .csv, .tsv and .parquet, not 'texts'"),
    ],
)
def test_refusals_name_the_place_and_the_remedy(tmp_path, name, data, message):
    with pytest.raises(TextsError, match=message) as refusal:
        read_texts(write(tmp_path / name, data))
    assert "\n" not in str(refusal.value)


def test_parquet_nulls_name_their_row(tmp_path):
    path = write_table(tmp_path / "t.parquet", {"text": ["a", "b", None]})
    with pytest.raises(TextsError, match="row 3: column 'text' is null"):
        read_texts(path)


def test_what_is_not_there(tmp_path):
    write(tmp_path / "reviews.txt", "one\n")
    with pytest.raises(TextsError, match=r"review\.txt: no such file; did you mean .*reviews\.txt\?"):
        read_texts(tmp_path / "review.txt")
    with pytest.raises(TextsError, match=r"no such file; looked in "):
        read_texts(tmp_path / "nowhere" / "x.txt")
    with pytest.raises(TextsError, match="a folder; give one file"):
        read_texts(tmp_path)
    with pytest.raises(TextsError, match=r"cannot be read \(File name too long\)"):
        read_texts("many words " * 100)


# Sampling, duplicates, identity


@given(st.lists(st.text("ab", max_size=2), min_size=1), st.integers(1, 40), st.integers(0, 3))
def test_a_sample_does_not_know_the_order(texts, n, seed):
    shuffled = random.Random(seed).sample(texts, len(texts))
    here, there = (corpus_of(order).sample(n, seed=seed) for order in (texts, shuffled))
    assert sorted(here.texts) == sorted(there.texts)
    assert len(here) == min(n, len(texts))
    rows = [int(row) for row in here.ids]
    assert rows == sorted(rows)
    assert [texts[row] for row in rows] == list(here.texts)


def test_samples_are_nested_and_seeds_differ():
    corpus = corpus_of([f"text {number}" for number in range(1000)])
    hundred = set(corpus.sample(100).texts)
    assert hundred < set(corpus.sample(200).texts)
    assert hundred == set(corpus.sample(200).sample(100).texts)
    assert 0 < len(hundred & set(corpus.sample(100, seed=1).texts)) < 40  # 10 expected
    assert corpus.sample(200).sample(100).sampled_from == 1000


def test_a_sample_is_uniform():
    """Every tenth of 10,000 texts holds a tenth of a sample of 1,000: hypergeometric, sd 9; the bound is 5 sd."""
    rows = [int(row) for row in corpus_of([str(number) for number in range(10_000)]).sample(1000).ids]
    assert all(abs(sum(start <= row < start + 1000 for row in rows) - 100) < 45 for start in range(0, 10_000, 1000))


def test_a_sample_keeps_its_rows_together(tmp_path):
    path = write_table(tmp_path / "t.csv", {"text": [f"t{number}" for number in range(50)], "label": list(range(50))})
    corpus = read_texts(path, sample=10, seed=3)
    assert [f"t{label}" for label in corpus.columns["label"]] == list(corpus.texts)
    assert [f"row {int(label) + 1}" for label in corpus.columns["label"]] == list(corpus.ids)
    assert (corpus.sampled_from, corpus.warnings) == (50, ())


def test_a_sample_larger_than_the_texts_says_so():
    corpus = corpus_of(["a", "b", "b"]).sample(1200)
    assert corpus.texts == ("a", "b", "b")
    assert corpus.sampled_from is None
    assert corpus.warnings == (
        "a sample of 1,200 was asked for and there are 3 texts: all are used",
        "1 of 3 texts is a duplicate of another",
    )


@pytest.mark.parametrize("n", [0, -1, 2.0, True])
def test_a_sample_is_a_number_of_texts(n):
    with pytest.raises(InputError, match="must be a whole number of texts"):
        corpus_of(["a"]).sample(n)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_the_hash_is_sha256_of_length_prefixed_texts(texts):
    expected = hashlib.sha256(b"".join(struct.pack("<Q", len(text.encode())) + text.encode() for text in texts)).hexdigest()
    assert corpus_of(texts).sha256 == expected


def test_the_hash_tells_texts_apart_and_formats_not(tmp_path):
    assert corpus_of(["ab", "c"]).sha256 != corpus_of(["a", "bc"]).sha256
    table = {"text": ["one", "two"]}
    files = [write_table(tmp_path / f"t{suffix}", table) for suffix in (".csv", ".tsv", ".jsonl", ".parquet")]
    assert {read_texts(path).sha256 for path in files} == {corpus_of(["one", "two"]).sha256}


def test_counts_have_separators(tmp_path):
    corpus = read_texts(write(tmp_path / "t.txt", "a\n" * 1000 + "\n" * 1234))
    assert corpus.warnings == ("1,234 blank lines skipped", "999 of 1,000 texts are duplicates of another")


# Whatever a call takes


def test_lists_paths_corpora_and_nothing(tmp_path):
    path = write_table(tmp_path / "t.jsonl", {"text": ["one", "two"], "other": ["a b", "c d"]})
    corpus = as_corpus(path, column="other")
    assert corpus.texts == as_corpus(str(path), column="other").texts == ("a b", "c d")
    assert as_corpus(corpus) is corpus
    given_list = as_corpus(("one", "two"))
    assert (given_list.texts, given_list.ids, given_list.source) == (("one", "two"), ("text 0", "text 1"), "2 texts given as a tuple")
    assert as_corpus(pandas.Series(["one", "two"])).texts == ("one", "two")
    assert len(as_corpus(["a", "b", "c"], sample=2)) == 2
    documentation = as_corpus(None)
    assert documentation.source.startswith("the documentation that ships with Python 3.")
    assert len(documentation) > 500


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["a", None], TextsError, r"texts\[1\] is null, not a string"),
        (["a", "b", 3], TextsError, r"texts\[2\] is 3 \(int\), not a string"),
        (["a", "\n"], TextsError, r"texts\[1\] is blank"),
        ([], TextsError, "0 texts given as a list: no texts in it"),
        (["\ud83d"], TextsError, r"text 0: \\ud83d at character 0 is half of a surrogate pair"),
        (7, InputError, "texts is a int; give a path, a list of strings, or None"),
        (b"one", InputError, "texts is a bytes; give a list of strings"),
        (pandas.DataFrame({"text": ["a"]}), InputError, "texts is a DataFrame; give a list of strings"),
        (json.loads('{"text": ["a"]}'), InputError, "texts is a dict; give a list of strings"),
    ],
)
def test_what_is_not_texts(texts, error, message):
    with pytest.raises(error, match=message):
        as_corpus(texts)


def test_a_column_needs_a_file():
    with pytest.raises(InputError, match="column='text' was given with texts that are not a file"):
        as_corpus(["a"], column="text")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "n"),
    [("banking77/test.csv", 3080), ("scifact/corpus.jsonl", 5183), ("wikisplit/sentences.txt", 5000), ("cannot/negated_pairs.tsv", 17352)],
)
def test_published_files_are_read_whole(name, n):
    assert len(read_texts(SHARED / name)) == n
