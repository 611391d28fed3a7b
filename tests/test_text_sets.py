"""Several text sets and poolings in one comparison, chat templates and hub datasets: planted cases, by hand and on tiny models."""

from __future__ import annotations

import copy
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import tunescope as ts
from test_cli import refused, run
from tiny_models import TEXTS, WIDTH, WORDS, save_model, tiny_model, tiny_tokenizer, tokenizer_for
from tunescope.activations import capture
from tunescope.comparison.text_sets import rank_agreement, verdict
from tunescope.errors import InputError, TextsError, UnknownName
from tunescope.models import load_model
from tunescope.models.quiet import quietly
from tunescope.texts import Corpus, TextSet, as_text_sets, read_texts
from tunescope.texts.sets import parse_text_set, shared

HALVES = WORDS[:20], WORDS[20:]  # two vocabularies without a word in common
TEMPLATE = (
    "{% for m in messages %}[CLS] {{ m['role'] }} {{ m['content'] }} [SEP] {% endfor %}{% if add_generation_prompt %}night{% endif %}"
)


def sentences(words: list[str], n: int = 40, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(words, size=draw.integers(4, 20))) for _ in range(n)]


def halved(by: float = 2.0, family: str = "bert") -> tuple:
    """A model and a copy of it in which the embeddings of the first half of the vocabulary, and nothing else, are moved."""
    base, tokenizer = tiny_model(family), tokenizer_for(family)
    tuned = copy.deepcopy(base)
    ids = tokenizer.convert_tokens_to_ids(HALVES[0])
    torch.manual_seed(0)
    with torch.no_grad():
        tuned.get_input_embeddings().weight[ids] += by * torch.randn(len(ids), WIDTH)
    return (base, tokenizer), (tuned, tokenizer)


@pytest.fixture(scope="module")
def planted() -> ts.Comparison:
    """The main set in the half that moved, another in the half that did not, and the main one again with three texts of the other."""
    moved, still = sentences(HALVES[0]), sentences(HALVES[1], seed=1)
    sets = {"moved": moved, "still": still, "again": [*moved, *still[:2], f"  {still[2].upper()} "]}
    return ts.diff(*halved(), sets, tuning=("still",), also_pooling="cls,last", tuning_data=["the cat", *moved[:4]])


def test_a_set_of_unmoved_words_shows_no_change_and_contradicts_the_headline(planted):
    moved, still, again = planted.payload["text_sets"]["sets"]
    assert {row["identical"] for row in still["layers"]} == {True}
    assert still["headline"].startswith("Nothing changed")
    assert still["peak"] is None
    assert still["verdict"] == {
        "place": False, "words": False, "holds": False, "most_moved": None,
        "contradicted": [{"block": f"block {i}", "here": "rewritten", "there": "untouched"} for i in (1, 2, 3)],
    }  # fmt: skip
    assert moved["headline"] == planted.headline
    assert again["verdict"]["holds"] is True
    survives = planted.payload["text_sets"]["survives"]
    assert survives["text_set"] is False
    assert "does not hold on 'still' (tuning texts): nothing moved" in survives["said"]
    assert "The headline holds on 'again'." in survives["said"]


def test_the_headline_survives_a_set_that_is_the_same():
    texts = sentences(HALVES[0])
    found = ts.diff(*halved(), [TextSet("one", Corpus.of(texts, map(str, range(40)), "one")), TextSet("two", as_corpus_of(texts[::-1]))])
    text_sets = found.payload["text_sets"]
    assert text_sets["survives"] == {"text_set": True, "pooling": None, "said": "The headline holds on 'two'."}
    assert all(row["rank_correlation"] == 1.0 for row in text_sets["agreement"] if row["measure"] in ("cka", "nps"))
    assert [row["exact"]["of_a"]["share"] for row in text_sets["overlap"]] == [1.0]


def as_corpus_of(texts: list[str]) -> Corpus:
    return Corpus.of(texts, map(str, range(len(texts))), "a list")


def test_the_main_set_is_what_it_is_alone_and_says_so(planted):
    alone = ts.diff(*halved(), sentences(HALVES[0]))
    assert alone.payload["text_sets"] is None
    for key in ("layers", "sites", "headline", "cross", "locality", "data", "texts"):
        assert planted.payload[key] == alone.payload[key], key
    first = planted.payload["text_sets"]["sets"][0]
    assert [row["measures"]["cka"]["change"] for row in first["layers"]] == alone.profile["cka_change"].tolist()
    assert (first["n"], first["sha256"]) == (40, alone.payload["data"]["sha256"])
    assert first["output"]["measures"]["nps"]["value"] == alone.payload["sites"]["output"]["measures"]["nps"]["value"]


def test_a_further_set_reads_as_it_would_alone(planted):
    alone = ts.diff(*halved(), [*sentences(HALVES[0]), *sentences(HALVES[1], seed=1)[:2], f"  {sentences(HALVES[1], seed=1)[2].upper()} "])
    again = planted.payload["text_sets"]["sets"][2]
    assert again["headline"] == alone.headline
    assert [row["measures"]["cka"]["low"] for row in again["layers"]] == alone.profile["cka_low"].tolist()


def test_rank_agreement_is_spearmans_over_the_blocks(planted):
    text_sets = planted.payload["text_sets"]
    sets = {one["name"]: one for one in text_sets["sets"]}
    seen = 0
    for row in text_sets["agreement"]:
        curves = [[layer["measures"][row["measure"]]["change"] for layer in sets[row[side]]["layers"][1:]] for side in "ab"]
        assert row["n"] == 3
        if "still" in (row["a"], row["b"]):
            assert row["rank_correlation"] is None
            assert "no order" in row["reason"]
        else:
            seen += 1
            assert row["rank_correlation"] == pytest.approx(stats.spearmanr(*curves).statistic)
    assert seen == 5


def test_overlap_is_counted_exactly_and_tuning_texts_are_warned_of(planted):
    overlap = {(row["a"], row["b"]): row for row in planted.payload["text_sets"]["overlap"]}
    row = overlap["still", "again"]
    assert row["exact"] == {"of_a": {"texts": 2, "share": 2 / 40}, "of_b": {"texts": 2, "share": 2 / 43}}
    assert row["folded"] == {"of_a": {"texts": 3, "share": 3 / 40}, "of_b": {"texts": 3, "share": 3 / 43}}
    assert overlap["moved", "again"]["exact"]["of_b"]["texts"] == 40
    assert overlap["moved", "tuning data"]["exact"] == {"of_a": {"texts": 4, "share": 4 / 40}, "of_b": {"texts": 4, "share": 4 / 5}}
    assert overlap["moved", "still"]["folded"]["of_a"]["texts"] == 0
    assert planted.warnings[0].startswith("'still' holds tuning texts: how far a model moved on texts it was tuned on is not comparable")
    assert "3 texts of 'again' (7%) are also in 'still', 2 of them letter for letter" in "\n".join(planted.warnings)
    assert "4 texts of 'moved' (10%) are also in tuning data, 4 of them letter for letter" in "\n".join(planted.warnings)


def test_overlap_is_looked_for_before_a_sample_is_taken():
    texts = sentences(WORDS, 60)
    sets = as_text_sets({"a": texts, "b": texts[30:]}, sample=20)
    assert [len(one.corpus) for one in sets] == [20, 20]
    found = ts.diff(*halved(), {"a": texts, "b": texts[30:]}, sample=20, measures="cka").payload["text_sets"]
    assert found["overlap"][0]["exact"] == {"of_a": {"texts": 30, "share": 0.5}, "of_b": {"texts": 30, "share": 1.0}}


def test_repeats_count_on_the_side_that_has_them():
    a, b = as_corpus_of(["x", "x", "y"]), as_corpus_of(["x", "Y\t ", "z"])
    exact, folded = shared(a, b)
    assert (exact.of_a, exact.of_b, folded.of_a, folded.of_b) == (2, 1, 3, 2)


# --- the definition of "holds", on rows made by hand -------------------------------------------------------------------------------------


def rows(*blocks: tuple[float | None, float], embeddings: float = 1.0) -> list[dict]:
    """Rows of a profile from (cka, half width of its interval) per block, with the words that the cut-offs .99 and .87 give."""
    made = []
    for index, (cka, half) in enumerate([(embeddings, 0.0), *blocks]):
        known = cka is not None
        word = "untouched" if known and cka >= 0.99 else "refined" if known and cka >= 0.87 else "rewritten" if known else None
        cell = {"value": cka, "change": 1 - cka, "low": cka - half, "high": cka + half} if known else dict.fromkeys(CELL)
        made.append({"index": index, "name": f"block {index}", "status": word, "saturated": False, "measures": {"cka": cell}})
    return made


CELL = ("value", "change", "low", "high")
HERE = rows((0.995, 0.001), (0.95, 0.01), (0.80, 0.02))


@pytest.mark.parametrize(
    ("there", "place", "words"),
    [
        (HERE, True, True),
        (rows((0.996, 0.001), (0.92, 0.01), (0.70, 0.01)), True, True),  # further, but the same words and the same block
        (rows((0.995, 0.001), (0.90, 0.01), (0.88, 0.02)), True, True),  # "refined", and its interval reaches below .87
        (rows((0.995, 0.001), (0.90, 0.01), (0.90, 0.02)), True, False),  # "refined", and it does not
        (rows((0.995, 0.001), (0.88, 0.02), (0.89, 0.03)), True, True),  # another block moved most, not clearly
        (rows((0.995, 0.001), (0.70, 0.01), (0.80, 0.01)), False, False),  # another block clearly moved most
        (rows((0.98, 0.02), (0.95, 0.01), (0.80, 0.02)), True, True),  # an interval from refined across to untouched
        (rows((0.995, 0.001), (0.95, 0.01), (0.80, 0.02), embeddings=0.1), True, True),  # the embeddings are not a block
        (rows((1.0, 0.0), (1.0, 0.0), (1.0, 0.0)), False, False),
        (rows((0.995, 0.001), (None, 0.0), (0.80, 0.02)), None, None),
    ],
)
def test_the_headline_holds_where_the_intervals_leave_it_possible(there, place, words):
    found = verdict(HERE, there)
    assert (found.place, found.words) == (place, words)
    assert found.holds is (None if place is None else place and words)


def test_where_nothing_moved_on_either_side_the_place_is_not_asked():
    assert verdict(rows((0.999, 0), (0.998, 0)), rows((0.997, 0), (0.999, 0))).holds is True
    assert verdict(rows((1.0, 0), (1.0, 0)), rows((0.997, 0), (0.999, 0))).holds is True


def test_a_rank_correlation_needs_three_blocks_and_an_order():
    few = rank_agreement(rows((0.9, 0), (0.8, 0)), rows((0.9, 0), (0.8, 0)), "cka")
    assert few["rank_correlation"] is None
    assert few["n"] == 2
    reverse = rank_agreement(HERE, rows((0.80, 0), (0.95, 0), (0.995, 0)), "cka")
    assert reverse["rank_correlation"] == pytest.approx(-1.0)


# --- poolings ----------------------------------------------------------------------------------------------------------------------------


def test_one_pass_gives_every_pooling_as_a_pass_of_its_own_would():
    model, calls = load_model((tiny_model("bert"), tokenizer_for("bert"))), []
    handle = model.module.register_forward_hook(lambda *_: calls.append(1))
    found = capture(model, TEXTS, batch_size=4, also=("cls", "last"))
    assert len(calls) == 2
    handle.remove()
    for pooling in ("cls", "last"):
        alone = capture(model, TEXTS, batch_size=4, pooling=pooling)
        assert found.also[pooling].pooling == pooling
        assert all(torch.equal(found.also[pooling].layers[i], alone.layers[i]) for i in alone.layers)
        assert torch.equal(found.also[pooling].sites["final"], alone.sites["final"])
        assert "output" not in found.also[pooling].sites
    assert torch.equal(found.layers[2], capture(model, TEXTS, batch_size=4).layers[2])
    with pytest.raises(InputError, match="none keeps a row a token"):
        capture(model, TEXTS, also=("none",))


def test_other_poolings_are_compared_as_they_would_be_alone(planted):
    pooling = {one["pooling"]: one for one in planted.payload["text_sets"]["pooling"]}
    assert list(pooling) == ["cls", "last"]
    for name, one in pooling.items():
        alone = ts.diff(*halved(), sentences(HALVES[0]), pooling=name)
        assert [row["measures"]["cka"]["value"] for row in one["layers"]] == alone.profile["cka"].tolist()
        assert [row["status"] for row in one["layers"]] == alone.profile["status"].tolist()
        assert one["headline"] == alone.headline
        curves = planted.profile["cka_change"].tolist()[1:], alone.profile["cka_change"].tolist()[1:]
        agreement = next(row for row in one["agreement"] if row["measure"] == "cka")
        assert agreement["rank_correlation"] == pytest.approx(stats.spearmanr(*curves).statistic)


def test_the_first_token_of_a_causal_model_does_not_count():
    found = ts.diff(*halved(family="gpt2"), sentences(HALVES[0]), also_pooling=("cls", "mean", "last"))
    pooling = {one["pooling"]: one for one in found.payload["text_sets"]["pooling"]}
    assert list(pooling) == ["cls", "last"]
    assert not pooling["cls"]["counts"]
    survives = found.payload["text_sets"]["survives"]
    assert "cls pooling does not count: the first token of a causal model reads no other token" in survives["said"]
    assert survives["pooling"] is pooling["last"]["verdict"]["holds"]


@pytest.mark.parametrize(("pooling", "also"), [("none", "mean"), ("mean", "none"), ("mean", "cls,none")])
def test_token_rows_are_not_held_against_pooled_texts(pooling, also):
    with pytest.raises(InputError, match="cannot be held against each other"):
        ts.diff(*halved(), sentences(WORDS), pooling=pooling, also_pooling=also)
    with pytest.raises(UnknownName, match="unknown pooling 'max'"):
        ts.diff(*halved(), sentences(WORDS), also_pooling="max")


# --- the command line --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.txt", (None, "a.txt", "general")),
        ("wiki=a.txt", ("wiki", "a.txt", "general")),
        ("wiki=x=1/a.txt", ("wiki", "x=1/a.txt", "general")),
        ("runs/lr=3/a.txt", (None, "runs/lr=3/a.txt", "general")),
        (r"C:\data\a=b.txt", (None, r"C:\data\a=b.txt", "general")),
        (r"wiki=C:\data\a.txt", ("wiki", r"C:\data\a.txt", "general")),
        ("my-set.2@tuning=a@b.txt", ("my-set.2", "a@b.txt", "tuning")),
        ("wiki@general=a.txt", ("wiki", "a.txt", "general")),
        ("hf:org/name:train", (None, "hf:org/name:train", "general")),
        ("wiki=hf:org/name:train", ("wiki", "hf:org/name:train", "general")),
    ],
)
def test_a_path_keeps_its_own_equals_signs_and_colons(given, expected):
    assert parse_text_set(given) == expected


def test_a_file_that_is_there_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=3.txt").write_text("one\n")
    assert parse_text_set("lr=3.txt") == (None, "lr=3.txt", "general")
    with pytest.raises(UnknownName, match="role of the text set 'wiki' 'tunning'; did you mean tuning"):
        parse_text_set("wiki@tunning=a.txt")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with base/, tuned/ (with a chat template), wiki.txt, reviews.jsonl and chats.jsonl."""
    folder = tmp_path_factory.mktemp("sets")
    (base, _), (tuned, _) = halved()
    save_model(folder / "base", model=base)
    save_model(folder / "tuned", model=tuned)
    (folder / "wiki.txt").write_text("\n".join(sentences(HALVES[0])) + "\n")
    (folder / "reviews.jsonl").write_text("\n".join(json.dumps({"note": "x", "body": text}) for text in sentences(HALVES[1])) + "\n")
    return folder


def test_sets_on_the_command_line(place, tmp_path):
    sets = ("--texts", place / "wiki.txt", "--texts", f"reviews@tuning={place / 'reviews.jsonl'}")
    options = ("--column", "body", "--also-pooling", "last", "-o", tmp_path / "o")
    code, printed, _ = run("diff", place / "base", place / "tuned", *sets, *options)
    assert code == 0
    assert "elsewhere: The headline does not hold on 'reviews' (tuning texts)" in " ".join(printed.split())
    payload = json.loads((tmp_path / "o" / "comparison.json").read_text())
    found = [(one["name"], one["role"], one["n"]) for one in payload["text_sets"]["sets"]]
    assert found == [("wiki", "general", 40), ("reviews", "tuning", 40)]
    assert payload["data"]["source"].endswith("wiki.txt")
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Does it hold elsewhere?" in page


def test_two_sets_of_one_name_are_refused(place, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, "diff", "a", "b", "-t", place / "wiki.txt", "-t", f"wiki={place / 'reviews.jsonl'}")
    assert "two of --texts are called 'wiki'" in said
    with pytest.raises(UnknownName, match="unknown text set 'wikki'; did you mean wiki"):
        as_text_sets({"wiki": ["one"]}, tuning=("wikki",))
    with pytest.raises(InputError, match="'x' is given more than once"):
        as_text_sets([TextSet("x", as_corpus_of(["a"])), TextSet("x", as_corpus_of(["b"]))])
    with pytest.raises(InputError, match="empty dict"):
        as_text_sets({})


# --- chat templates ----------------------------------------------------------------------------------------------------------------------


def chatty(template: str | None = TEMPLATE):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_texts_are_read_as_turns_without_a_second_special_token():
    (base, _), (tuned, _) = halved()
    texts, tokenizer = sentences(HALVES[0]), chatty()
    found = ts.diff((base, tiny_tokenizer()), (tuned, tokenizer), texts, chat_template=True)
    written = [f"[CLS] user {text} [SEP] night" for text in texts]
    batch = tokenizer(written, add_special_tokens=False, padding=True, return_tensors="pt")
    weights = batch["attention_mask"][..., None] / batch["attention_mask"].sum(1)[:, None, None]
    pooled = []
    for model in (base, tuned):
        with torch.no_grad(), quietly():
            pooled.append([(state * weights).sum(1) for state in model(**batch, output_hidden_states=True).hidden_states])
    for layer in (1, 3):  # 1e-5: batches of other shapes in float32
        assert found.profile.loc[layer, "cka"] == pytest.approx(ts.cka(pooled[0][layer], pooled[1][layer]), abs=1e-5)
    data = found.payload["data"]
    assert data["tokens"] == int(batch["attention_mask"].sum())
    assert data["chat_template"]["add_generation_prompt"] == "where the last turn is the user's"
    assert data["sha256"] == as_corpus_of(written).sha256
    assert "templated" not in data


def test_conversations_are_read_as_they_are(tmp_path):
    path = tmp_path / "chats.jsonl"
    turns = [[{"role": "user", "content": text}, {"role": "dog", "content": "ran"}] for text in sentences(HALVES[0])]
    path.write_text("\n".join(json.dumps({"messages": chat, "id": i}) for i, chat in enumerate(turns)))
    pair = [(model, chatty()) for model, _ in halved()]
    found = ts.diff(*pair, path, chat_template=True)
    written = [f"[CLS] user {chat[0]['content']} [SEP] [CLS] dog ran [SEP] " for chat in turns]
    assert found.payload["data"]["sha256"] == as_corpus_of(written).sha256
    corpus = read_texts(path, chats=True)
    assert corpus.texts[0] == f"user: {turns[0][0]['content']}\ndog: ran"
    assert corpus.ids[1] == "1"
    with pytest.raises(TextsError, match="which column holds the texts"):
        read_texts(path)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("hello", "messages is a str; it must be a list of"),
        ([], "messages is empty; it must be a list of"),
        ([{"role": "user"}], "message 1 needs a role and a content"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": ["b"]}], "message 2 needs a role and a content"),
    ],
)
def test_a_conversation_that_is_none_is_named(tmp_path, cell, said):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": cell}))
    with pytest.raises(TextsError, match=f"line 1: {said}"):
        read_texts(path, chats=True)


def test_a_tokenizer_without_a_template_is_refused_by_name(place, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, "diff", place / "base", place / "tuned", "-t", place / "wiki.txt", "--chat-template")
    assert "a chat template was asked for, and neither the tokenizer of" in said
    assert str(place / "tuned") in said
    pair = [(model, chatty()) for model, _ in halved()]
    with pytest.raises(InputError, match="prompt 'query: ' and a chat template"):
        ts.diff(*pair, sentences(WORDS), prompt="query: ", chat_template=True)
    refusing = "{{ raise_exception('no system turns here') }}"
    with pytest.raises(TextsError, match=r"text 0: the chat template of .* refuses it \(no system turns here\)"):
        ts.diff(*[(model, chatty(refusing)) for model, _ in halved()], sentences(WORDS), chat_template=True)


def test_templates_that_differ_are_said():
    (base, _), (tuned, _) = halved()
    found = ts.diff((base, chatty(TEMPLATE + " ")), (tuned, chatty()), sentences(WORDS), chat_template=True, measures="cka")
    assert any(warning.startswith("the chat templates differ: both models read") for warning in found.warnings)


# --- datasets of the hub -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch) -> list[dict]:
    """A stand-in for the library `datasets` with one dataset, streamed row by row; what was asked of it, and how far it was read."""
    asked: list[dict] = []

    def load_dataset(path, name=None, *, split=None, streaming=False):
        asked.append({"path": path, "name": name, "split": split, "streaming": streaming, "read": 0})
        if path != "org/reviews":
            raise FileNotFoundError(f"Dataset '{path}' doesn't exist on the Hub or cannot be accessed.\nmore")
        if split not in ("train", "test"):
            raise ValueError(f"Bad split: {split}. Available splits: ['train', 'test']")

        def stream():
            for number in range(2000):
                asked[-1]["read"] += 1
                yield {"label": number % 2, "sentence": f"review {number} of {split}" if number % 10 else "  "}

        return stream()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_dataset_is_streamed_to_the_rows_asked_for(hub):
    corpus = read_texts("hf:org/reviews:test", sample=50)
    assert hub == [{"path": "org/reviews", "name": None, "split": "test", "streaming": True, "read": 50}]
    assert corpus.texts == tuple(f"review {i} of test" for i in range(50) if i % 10)
    assert corpus.ids[:2] == ("row 2", "row 3")
    assert corpus.columns["label"][:3] == (1, 0, 1)
    assert corpus.source == "hf:org/reviews:test, the first 50 rows"
    assert corpus.warnings == ("5 of 50 texts are blank and were skipped",)


def test_a_dataset_is_read_to_row_1000_without_a_sample_and_says_so(hub):
    corpus = read_texts("hf:org/reviews/plain")
    assert (hub[0]["name"], hub[0]["split"], hub[0]["read"]) == ("plain", "train", 1000)
    assert "hf:org/reviews/plain:train is read to its row 1,000; name another number with --sample" in corpus.warnings


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("hf:org/nothing", TextsError, r"cannot be read \(Dataset 'org/nothing' doesn't exist on the Hub or cannot be accessed.\)"),
        ("hf:org/reviews:dev", TextsError, "Available splits"),
        ("hf:reviews", InputError, "no name of a dataset; write hf:org/name"),
        ("hf:org/reviews:train[:10]", InputError, "no name of a dataset"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_one_line(hub, given, error, said):
    with pytest.raises(error, match=said):
        read_texts(given)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the library datasets; install it with: pip install 'tunescope\[datasets\]'"):
        read_texts("hf:org/reviews")


def test_datasets_are_sets_like_others(hub):
    sets = as_text_sets({"reviews": "hf:org/reviews", "list": ["one", "two"]}, sample=30, column="sentence", tuning="reviews")
    assert [(one.name, one.role, len(one.corpus)) for one in sets] == [("reviews", "tuning", 27), ("list", "general", 2)]
    with pytest.raises(UnknownName, match="unknown column of hf:org/reviews:train, the first 30 rows 'sentense'; did you mean sentence"):
        read_texts("hf:org/reviews", sample=30, column="sentense")
