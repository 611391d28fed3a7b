"""The texts every Python carries: prose only, each once, the same every time, and got without running anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tunescope.demo.documentation import docstring_pairs, paragraphs
from tunescope.texts import documentation
from tunescope.texts.documentation import PACKAGES, labelled_docstrings


@pytest.fixture(scope="module")
def pairs():
    return docstring_pairs()


def test_paragraphs_are_prose():
    texts = paragraphs()
    assert 800 < len(texts) < 2000  # 1,178 on Python 3.11; the documentation grows
    assert len(set(texts)) == len(texts)
    assert all(len(text.split()) >= 8 and text == " ".join(text.split()) for text in texts)
    assert not [text for text in texts if re.search(r">>>|::=|\*\*\*|===|\+--|^\||`|^[*•]", text)]
    assert texts == paragraphs()


def test_paragraphs_hold_what_the_reference_says():
    texts = paragraphs()
    said = "Assert statements are a convenient way to insert debugging assertions into a program:"  # the reference since Python 2.0
    assert said in texts
    assert "Names refer to objects. Names are introduced by name binding operations." in texts  # *Names* is emphasised there


@pytest.mark.parametrize(
    ("block", "texts"),
    [
        ("A heading with rather more than eight words in it\n===================================================", []),
        ("   expr ::= a b c d e f g h i j.", []),
        (">>> this is code, and not a sentence of prose at all.", []),
        ("   for name in list of names in the file that was given:\n", []),
        ("too short to keep.", []),
        ("* *Names* refer to objects, as **bold** ones do too [3].", ["Names refer to objects, as bold ones do too."]),
        ("Use :func:`open` or ``close`` to open it, or else to close it.", ["Use open or close to open it, or else to close it."]),
        ("the so-called pseudo-\ncompiled code is what we have here.", ["the so-called pseudo-compiled code is what we have here."]),
        ("term\n   The definition of the term, which is long enough.", ["The definition of the term, which is long enough."]),
    ],
)
def test_markup_goes_and_sentences_stay(block, texts):
    assert list(documentation._prose(block)) == texts


def test_pairs_are_a_summary_and_its_body(pairs):
    assert 1200 < len(pairs) < 4000  # 2,202 on Python 3.11
    summaries, bodies = zip(*pairs, strict=True)
    assert len(set(summaries)) == len(set(bodies)) == len(pairs)
    assert all(3 <= len(summary.split()) <= 40 for summary in summaries)
    assert all(len(body.split()) >= 8 for body in bodies)


def test_pairs_are_what_the_library_says(pairs):
    """textwrap.shorten and shutil.copytree, read off their sources by eye."""
    bodies = dict(pairs)
    assert bodies["Collapse and truncate the given text to fit in the given width."] == (
        "The text first has its whitespace collapsed. If it then fits in the width, it is returned as is. "
        "Otherwise, as many words as possible are joined and then the placeholder is appended:"
    )
    assert bodies["Recursively copy a directory tree and return the destination directory."].startswith(
        "If exception(s) occur, an Error is raised with a list of reasons."
    )


def test_another_process_reads_the_same_and_imports_nothing(pairs):
    program = """
import sys
from tunescope.texts.documentation import docstring_pairs
before = set(sys.modules)
pairs = docstring_pairs()
print({name for name in set(sys.modules) - before if not name.startswith("_sysconfigdata")})
print(repr(pairs))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "error", "-X", "utf8", "-c", program]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=60, env=environment)
    imported, printed = done.stdout.strip().split("\n", 1)
    assert imported == "set()"
    assert printed == repr(pairs)


def test_a_python_without_its_topics_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(documentation.TextsError, match="module pydoc_data is not installed; give texts of your own"):
        paragraphs()


def test_a_python_without_its_sources_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(documentation.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(documentation.TextsError, match="the standard library's sources are not here"):
        docstring_pairs()


def test_labelled_docstrings_do_not_name_their_package():
    rows = labelled_docstrings()
    assert len(rows) == len({text for text, _ in rows}) > 500
    assert {package for _, package in rows} == set(PACKAGES)
    assert not [text for text, package in rows if package in re.findall(r"\w+", text.lower())]
