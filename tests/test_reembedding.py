"""Whether to embed again: bridges that must succeed, bridges that must not, and what each costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

import tunescope as ts
from tunescope.errors import InputError
from tunescope.outcome.reembedding import orthogonal_bridge
from tunescope.texts import Collection

N, QUERIES, WIDTH = 900, 150, 24


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    passages = rng.normal(size=(N, WIDTH)) + 0.5
    queries = passages[:QUERIES] + 0.9 * rng.normal(size=(QUERIES, WIDTH))
    ids = [f"d{row}" for row in range(N)]
    both = Collection.of({id: id for id in ids}, {f"q{q}": "?" for q in range(QUERIES)}, {f"q{q}": {ids[q]: 1} for q in range(QUERIES)})
    return both, queries, passages


def rotation(width: int = WIDTH, wide: int = WIDTH) -> np.ndarray:
    """Orthonormal rows (width ≤ wide)."""
    return np.linalg.qr(np.random.default_rng(1).normal(size=(wide, width)))[0].T


def shear() -> np.ndarray:
    u, _, vt = np.linalg.svd(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))
    return u * np.geomspace(0.05, 2, WIDTH) @ vt


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scores(result) -> dict[str, float | None]:
    return {row["key"]: row["ndcg"] for row in result.detail["choices"]}


def test_the_same_model_needs_nothing(world):
    both, queries, passages = world
    result = ts.reembedding((queries, passages), (queries, passages), both)
    found = scores(result)
    assert found["as-is"] == found["re-embed"] == result.base_ndcg
    assert {row["key"]: row["cost"] for row in result.detail["choices"]} == {"re-embed": N, "as-is": 0, "orthogonal": 450, "linear": 450}
    assert all(row["kept"] > 0.99 for row in result.detail["choices"])


def test_a_rotation_is_undone_by_the_orthogonal_bridge(world):
    """Cosines are those of before: every neighbour is kept, to the last; as they are, the queries find nothing."""
    both, queries, passages = world
    result = ts.reembedding((queries, passages), (queries @ rotation(), passages @ rotation()), both, anchors=300)
    rows = {row["key"]: row for row in result.detail["choices"]}
    assert rows["orthogonal"]["kept"] == pytest.approx(1, abs=1e-3)
    assert rows["orthogonal"]["ndcg"] == pytest.approx(rows["re-embed"]["ndcg"], abs=1e-9)
    assert rows["as-is"]["ndcg"] < 0.1 < 0.5 < rows["re-embed"]["ndcg"]
    assert rows["as-is"]["high"] < 0
    assert (result.anchors, result.judged_anchors, result.warnings) == (300, 0, ())
    assert [outcome.verdict for outcome in result.outcomes if outcome.name.endswith("as they are")] == ["worse"]


def test_a_shear_needs_the_linear_bridge(world):
    """Vectors of length 1 that are a linear image of the base's: ridge inverts it, a rotation cannot."""
    both, queries, passages = world
    tuned = unit(queries) @ shear(), unit(passages) @ shear()
    result = ts.reembedding((queries, passages), tuned, both, similarity="dot")
    unlike = ts.reembedding((unit(queries), unit(passages)), tuned, both, similarity="dot")
    found = scores(unlike)
    assert found["linear"] == pytest.approx(unlike.base_ndcg, abs=0.01)
    assert found["orthogonal"] < found["linear"] - 0.1
    assert scores(result)["as-is"] < found["linear"]


@pytest.mark.parametrize("wider", ["base", "tuned"])
def test_widths_may_differ(world, wider):
    both, queries, passages = world
    wide = tuple(side @ rotation(WIDTH, 40) for side in (queries, passages))  # isometric: the same cosines in 40 dimensions
    sides = [(queries, passages), wide] if wider == "tuned" else [wide, (queries, passages)]
    result = ts.reembedding(*sides, both)
    rows = {row["key"]: row for row in result.detail["choices"]}
    assert rows["orthogonal"]["ndcg"] == pytest.approx(rows["re-embed"]["ndcg"], abs=1e-9)
    assert rows["as-is"]["ndcg"] is None
    as_is = result.outcomes[0]
    assert (as_is.verdict, as_is.n, as_is.main) == ("not evaluable", 0, True)
    assert as_is.reason == f"tuned queries have {sides[1][0].shape[1]} features and the index {sides[0][0].shape[1]}"
    json.dumps(result.detail, allow_nan=False)


def test_the_bridge_is_the_procrustes_solution(related):
    """Against scipy at equal widths; at others, against scipy on the narrower side widened with zeros."""
    for d, e in ((12, 12), (12, 7), (7, 12)):
        x, y = (side.numpy() for side in related(n=80, d=d, e=e))
        wide = max(d, e)
        q, _ = orthogonal_procrustes(np.pad(x, ((0, 0), (0, wide - d))), np.pad(y, ((0, 0), (0, wide - e))))
        np.testing.assert_allclose(orthogonal_bridge(x, y), q[:d, :e], atol=1e-9)


def test_anchors_are_drawn_from_passages_that_no_query_is_judged_by(world):
    both, queries, passages = world
    result = ts.reembedding((queries, passages), (queries, passages), both, anchors=N - QUERIES + 30)
    assert result.judged_anchors == 30
    assert result.warnings == ("30 of 780 anchors are judged passages, for want of others: bridges may look better here than they are",)
    for anchors in (1, N + 1, True):
        with pytest.raises(InputError, match=f"anchors={anchors} for a corpus of 900 passages; a bridge is fitted on 2 to 900"):
            ts.reembedding((queries, passages), (queries, passages), both, anchors=anchors)


def test_it_takes_the_vectors_of_a_retrieval(world):
    both, queries, passages = world
    tuned = queries @ rotation(), passages @ rotation()
    found = ts.retrieval((queries, passages), tuned, both)
    result = ts.reembedding(*found.vectors, found.collection)
    assert scores(result)["re-embed"] == pytest.approx(found.outcomes[0].tuned, abs=1e-12)
    assert result.base_ndcg == pytest.approx(found.outcomes[0].base, abs=1e-12)
    assert "cheapest that is equivalent to re-embedding" in repr(result)
