"""Labelled texts: the split, and everything that is refused or said."""

from __future__ import annotations

import pytest

from tunescope.errors import InputError, TextsError, UnknownName
from tunescope.texts.corpus import Corpus
from tunescope.texts.labelled import labelled


def corpus(n=40, classes=("a", "b"), *, labels=None, source="t.csv", start=0):
    texts = [f"text {start + i}" for i in range(n)]
    labels = tuple(classes[i % len(classes)] for i in range(n)) if labels is None else tuple(labels)
    return Corpus.of(texts, [f"row {i + 1}" for i in range(n)], source, columns={"label": labels, "other": labels})


def test_a_quarter_of_every_class_is_held_out():
    given = labelled(corpus(), "label")
    assert given.counts == {"a": (15, 5), "b": (15, 5)}
    assert given.split == "25% of every class, chosen by hash and seed 0"
    assert len(given) == 40


def test_the_split_depends_on_texts_and_seed_not_on_order():
    one = corpus()
    other = one.rows(range(len(one) - 1, -1, -1))
    def held(given):
        return {text for text, test in zip(given.texts, given.test, strict=True) if test}
    assert held(labelled(one, "label")) == held(labelled(other, "label"))
    assert held(labelled(one, "label")) != held(labelled(one, "label", seed=1))


def test_the_hash_knows_labels_and_split():
    given = labelled(corpus(), "label")
    assert given.sha256 == labelled(corpus(), "label").sha256
    swapped = ["b" if i == 0 else "a" if i == 1 else "ab"[i % 2] for i in range(40)]
    assert given.sha256 != labelled(corpus(labels=swapped), "label").sha256
    assert given.sha256 != labelled(corpus(), "label", seed=1).sha256


def test_a_test_file_is_held_out_whole_and_numbers_are_names():
    given = labelled(corpus(labels=[1, 2] * 20), "label", test=corpus(6, labels=["2", 1] * 3, source="test.csv", start=100))
    assert given.classes == ("1", "2")
    assert given.counts == {"1": (20, 3), "2": (20, 3)}


@pytest.mark.parametrize(
    ("train", "test", "column", "error", "message"),
    [
        (corpus(), None, "lable", UnknownName, "unknown column of labels in t.csv 'lable'; did you mean label"),
        (corpus(labels=["a"] * 40), None, "label", TextsError, "one class only, 'a'"),
        (corpus(labels=["a", None] * 20), None, "label", TextsError, "20 of 40 rows have no label in column 'label' (row 2 first)"),
        (corpus(labels=["a", " "] * 20), None, "label", TextsError, "20 of 40 rows have no label"),
        (corpus(labels=["a", float("nan")] * 20), None, "label", TextsError, "20 of 40 rows have no label"),
        (corpus(), corpus(4, labels=["a", None, "b", ""], source="test.csv"), "label", TextsError, "test.csv: 2 of 4 rows have no label"),
        (corpus(), corpus(4, ("a", "z"), source="test.csv"), "label", TextsError, "2 rows have a label in column"),
        (corpus(2), None, "label", TextsError, "so none can be held out"),
    ],
)  # fmt: skip
def test_what_cannot_be_probed_is_refused_in_one_line(train, test, column, error, message):
    with pytest.raises(error) as caught:
        labelled(train, column, test=test)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fewer_rows_than_folds_and_a_share_out_of_range():
    with pytest.raises(TextsError, match="4 training rows for 5 folds"):
        labelled(corpus(6), "label", folds=5)
    with pytest.raises(InputError, match="between 0 and 1"):
        labelled(corpus(), "label", share=1.0)


def test_small_classes_and_shared_texts_are_said():
    given = labelled(corpus(labels=["a", "b"] * 19 + ["c", "c"]), "label", folds=3)
    assert any("'c'" in warning and "3 folds" in warning for warning in given.warnings)
    shared = labelled(corpus(), "label", test=corpus(6, start=37, source="test.csv"))
    assert "3 of 6 test texts are also training texts: their answers were seen" in shared.warnings
