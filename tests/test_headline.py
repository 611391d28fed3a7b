"""What the headline says, from rows whose words are made up."""

from __future__ import annotations

import pytest

from tunescope.comparison.headline import headline

CKA = {"untouched": 0.995, "refined": 0.9, "rewritten": 0.3}


def place(word: str, index: int | None = None, *, identical: bool = False) -> dict:
    value = 1.0 if identical else CKA[word]
    cka = {"value": value, "change": 1 - value, "null": 0.05}
    row = {"status": word, "identical": identical, "saturated": False, "measures": {"cka": cka}}
    return row if index is None else row | {"index": index, "name": f"block {index}" if index else "embeddings"}


def profile(*words: str) -> list[dict]:
    """The embeddings, unmoved, and blocks of these words."""
    return [place("untouched", 0, identical=True), *(place(word, index) for index, word in enumerate(words, start=1))]


@pytest.mark.parametrize(
    ("words", "depth", "said"),
    [
        (("refined", "refined", "rewritten"), 6, "after 1 block and refined those after 2 of the 6 blocks (3 measured); block 3's"),
        (("refined", "refined", "rewritten"), 3, "rewrote the representations after 1 block and refined those after 2 of 3 blocks;"),
        (("refined",), 1, "refined the representations after its only block;"),
        (("refined", "refined"), 5, "refined the representations after 2 of the 5 blocks (2 measured);"),
        (("rewritten", "rewritten"), 2, "rewrote the representations after all 2 blocks;"),
        (("untouched", "untouched"), 2, "Almost nothing moved: after all 2 blocks the representations are untouched;"),
        (("untouched", "untouched"), 5, "After 2 of the 5 blocks (2 measured) the representations are untouched;"),
    ],
)
def test_counts_of_blocks_cannot_be_read_as_their_numbers(words, depth, said):
    assert said in headline(profile(*words), 100, depth=depth)


@pytest.mark.parametrize(("output", "told"), [("untouched", False), ("refined", False), ("rewritten", True)])
def test_a_deployed_embedding_that_moved_further_than_every_block_is_told(output, told):
    said = headline(profile("refined", "refined"), 100, depth=5, sites={"output": place(output)})
    assert ("The deployed embedding (output) is rewritten: similarity to the base .300, chance .050." in said) is told
    rewritten = profile("refined", "rewritten")
    assert "deployed" not in headline(rewritten, 100, depth=2, sites={"output": place("rewritten")})


def test_a_head_may_move_where_no_layer_did():
    still = [place("untouched", index, identical=True) for index in range(3)]
    said = headline(still, 100, depth=2, sites={"output": place("refined")})
    assert said.startswith("All 3 layers give bit-identical representations of these 100 texts. The deployed embedding (output) is refined")
    assert headline(still[:1], 100, depth=2).startswith("Nothing changed: the 1 layer measured gives")
