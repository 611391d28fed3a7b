"""What is read off a feature against brute force over all codes, planted features, and the unembedding multiplied by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tiny_models import LAYERS, TEXTS, WIDTH, save_adapter, save_model, tiny_model, tokenizer_for
from tunescope.dictionaries import delta_batches, feature_reading, save_deltas
from tunescope.dictionaries.contexts import Documents
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.feature_reading import NearestIn, read_features
from tunescope.dictionaries.firing import Relu, TopK
from tunescope.dictionaries.placed_rows import PlacedRows
from tunescope.dictionaries.promoted_tokens import promoted_tokens
from tunescope.dictionaries.strongest import Fired, FiringSums, Strongest
from tunescope.dictionaries.token_scaling import to_constant_norm
from tunescope.errors import AlignmentError, InputError, NotEnoughRows
from tunescope.models import load_model, load_several
from tunescope.models.heads import language_head
from tunescope.texts import as_corpus

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"
LONG = [f"{a} {b} {c}" for a in TEXTS for b in TEXTS[:4] for c in TEXTS[:2]]


def a_dictionary(latents: int = 24, width: int = WIDTH, *, firing=None, seed: int = 0, **options) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(*shape, generator=generator) for shape in ((width, latents), (latents,), (latents, width), (width,))]
    parts[1] -= 1
    return Dictionary(*parts, firing=firing or TopK(4), **options)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    base = save_model(place / "base", head="mlm")
    return load_several(base, {"one": save_adapter(place / "one", base)}, device="cpu")


@pytest.fixture(scope="module")
def store(sides, tmp_path_factory):
    return save_deltas(*sides, LONG, tmp_path_factory.mktemp("stores") / "s", layers=[2], shard_rows=256, batch_size=16)


def planted(token_of: dict[int, int], model, texts: list[str]) -> PlacedRows:
    """Rows whose features are one-hot by token: latent j fires on its token only, the stronger the later it stands."""
    batches = list(delta_batches(model, {"same": model}, texts, layers=[1]))
    document, position, token = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("document", "position", "token"))
    x = torch.zeros(len(token), WIDTH)
    for latent, word in token_of.items():
        x[token == word, latent] = 1 + position[token == word].float() / 100
    return PlacedRows(document, position, token, lambda: iter(x.split(17)))


def one_hot(latents: int = 4) -> Dictionary:
    eye = torch.eye(WIDTH)[:latents]
    return Dictionary(eye.T.contiguous(), torch.zeros(latents), eye, torch.zeros(WIDTH), Relu(), name="planted")


def test_a_feature_that_fires_on_one_token_shows_that_token(sides):
    model, _ = sides
    words = {0: "cat", 1: "sun", 3: "house"}
    ids = {latent: model.tokenizer.convert_tokens_to_ids(word) for latent, word in words.items()}
    reading = read_features(one_hot(), planted(ids, model, LONG), model=model, texts=LONG, sets=["a"] * 20 + ["b"] * 36, around=3)
    assert (reading.dead, reading.described, reading.latents) == (1, 3, 4)
    cards = {card["latent"]: card for card in reading.features}
    for latent, word in words.items():
        card = cards[latent]
        assert card["contexts"]
        for each in card["contexts"]:
            assert each["tokens"][each["marked"]].strip() == word
            assert each["activation"] == each["activations"][each["marked"]] == pytest.approx(1 + each["position"] / 100)
            fires = [value is not None and value > 0 for value in each["activations"]]
            assert fires == [token.strip() == word for token in each["tokens"]]
            said = "".join(each["tokens"]).replace("[CLS]", "").replace("[SEP]", "").strip()
            assert said in LONG[each["document"]]
            assert len(each["tokens"]) <= 7
            assert each["set"] == ("a" if each["document"] < 20 else "b")
        strengths = [each["activation"] for each in card["contexts"]]
        assert strengths == sorted(strengths, reverse=True)
        assert card["max"] == strengths[0]
        held = defaultdict(int)
        for number, text in enumerate(LONG):
            held["a" if number < 20 else "b"] += word in text.split()
        assert card["documents_by_set"] == dict(held)
    assert cards[2] == cards[2] | {"density": 0.0, "max": 0.0, "mean": 0.0, "contexts": [], "nearest": [], "promotes": None}
    assert sum(cards[latent]["explained_share"] for latent in words) == pytest.approx(_share_by_hand(planted(ids, model, LONG)))
    json.dumps(reading.describe(), allow_nan=False)


def _share_by_hand(rows: PlacedRows) -> float:
    """Without one of features that do not overlap the error grows by its own squares: Σ|x|² / Σ|x − x̄|² over all of them."""
    x = torch.cat(list(rows.read())).double().numpy()
    return float((x**2).sum() / ((x - x.mean(0)) ** 2).sum())


@pytest.mark.parametrize("firing", [TopK(4), Relu()])
@pytest.mark.parametrize("splits", [("train", "held_out"), ("train",)])
def test_a_store_read_in_blocks_is_brute_force_over_all_codes(firing, splits, sides, store, monkeypatch):
    """Densities, maxima, strongest rows and explained shares from the whole matrix of codes; blocks of 100 rows cut documents in two."""
    for module in (feature_reading, __import__("tunescope.dictionaries.contexts", fromlist=["contexts"])):
        monkeypatch.setattr(module, "rows_at_a_time", lambda dictionary: 100)
    model, dictionary = sides[0], a_dictionary(firing=firing)
    rows, sets = PlacedRows.of_store(store, 2, "one", splits=splits), [str(number % 3) for number in range(len(LONG))]
    reading = read_features(dictionary, rows, model=model, texts=LONG, sets=sets, most=10, contexts=5, around=4)
    x = torch.cat([torch.cat(list(store.rows(2, "one", split).in_order())) for split in splits])
    codes = dictionary.encode(x).double().numpy()
    document = rows.document.numpy()
    wide = x.double().numpy()
    error = wide - (codes @ dictionary.decoder.double().numpy() + dictionary.b_dec.double().numpy())
    spread = ((wide - wide.mean(0)) ** 2).sum()
    shares = []
    for latent in range(dictionary.latents):
        without = error + codes[:, [latent]] * dictionary.decoder[latent].double().numpy()
        shares.append(((without**2).sum() - (error**2).sum()) / spread)
    cards = {card["latent"]: card for card in reading.features}
    assert sorted(cards) == list(range(dictionary.latents))
    for latent, card in cards.items():
        own = codes[:, latent]
        if not own.any():
            continue
        assert card["density"] == pytest.approx((own > 0).mean())
        assert card["max"] == pytest.approx(own.max())
        assert card["mean"] == pytest.approx(own[own > 0].mean(), rel=1e-5)
        assert card["explained_share"] == pytest.approx(shares[latent], rel=1e-3, abs=1e-6)  # float32 products of the error
        assert card["documents_by_set"] == {
            name: sum(sets[number] == name for number in set(document[own > 0])) for name in card["documents_by_set"]
        }
        mine = {name: np.array([sets[number] == name for number in document]) for name in card["density_by_set"]}
        for name, density in card["density_by_set"].items():
            assert density == pytest.approx((own[mine[name]] > 0).mean())
    order = [card["explained_share"] for card in reading.features if card["density"]]
    assert order == sorted(order, reverse=True)
    for card in reading.features[:10]:
        assert [each["activation"] for each in card["contexts"]] == pytest.approx(_shown_by_hand(codes[:, card["latent"]], rows, 5, 4))
    assert all(not card["contexts"] for card in reading.features[10:])


def _shown_by_hand(own: np.ndarray, rows: PlacedRows, most: int, around: int) -> list[float]:
    taken: list[int] = []
    for row in sorted(range(len(own)), key=lambda row: (-own[row], row)):
        near = [
            other for other in taken
            if rows.document[other] == rows.document[row] and abs(int(rows.position[other]) - int(rows.position[row])) <= around
        ]  # fmt: skip
        if own[row] > 0 and not near and len(taken) < most:
            taken.append(row)
    return [own[row] for row in taken]


def test_strongest_rows_are_those_of_a_full_sort_whatever_the_blocks():
    generator = torch.Generator().manual_seed(0)
    codes = (torch.randn(200, 7, generator=generator) * 4).round().clamp_min(0)  # many equals
    codes[:, 6] = 0
    expected = torch.full((7, 9), -1)
    for latent in range(7):
        rows = sorted((row for row in range(200) if codes[row, latent] > 0), key=lambda row: (-codes[row, latent].item(), row))[:9]
        expected[latent, : len(rows)] = torch.tensor(rows, dtype=torch.long)
    for size in (1, 3, 64, 200):
        found = Strongest(7, 9)
        for start in range(0, 200, size):
            row, latent = codes[start : start + size].nonzero(as_tuple=True)
            found.add(row + start, latent, codes[start : start + size][row, latent])
        assert torch.equal(found.rows, expected)


def test_documents_that_a_block_cuts_are_counted_once():
    dictionary = one_hot(2)
    x = torch.zeros(9, WIDTH)
    x[[0, 2, 3, 6, 8], 0] = 1
    x[4, 1] = 1
    document, of_set = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 0, 1, 1, 0, 0])
    for size in (1, 2, 4, 9):
        sums = FiringSums(2, 2)
        for start in range(0, 9, size):
            part = slice(start, start + size)
            sums.add(Fired.of(dictionary, x[part]), document[part], of_set[part])
        assert sums.documents.tolist() == [[2, 1], [1, 0]]
        assert sums.fired.tolist() == [[4, 1], [1, 0]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
def test_promoted_tokens_are_the_unembedding_times_the_direction(family):
    """By hand: norm(d) − norm(0) with the norm's own formula, times W_U; the ranking is that of every token's score."""
    whole = tiny_model(family, head="lm")
    model = load_model((whole, tokenizer_for(family)), name=family)
    directions = torch.nn.functional.normalize(torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(3)), dim=1)
    found = promoted_tokens(language_head(model), directions, k=4)
    unembedding = whole.get_output_embeddings().weight.detach().double()
    for direction, own in zip(directions, found, strict=True):
        scores = _scores(family, whole, direction.double(), unembedding)
        order = scores.argsort(descending=True)
        assert [token for token, _ in own.promotes] == order[:4].tolist()
        assert [token for token, _ in own.suppresses] == order.flip(0)[:4].tolist()
        torch.testing.assert_close(torch.tensor([score for _, score in own.promotes]).double(), scores[order[:4]], rtol=1e-4, atol=1e-4)


def _scores(family: str, whole, d: Tensor, unembedding: Tensor) -> Tensor:
    if family in ("llama", "gemma2"):
        weight, eps = whole.model.norm.weight.detach().double(), whole.config.rms_norm_eps
        normed = d / (d.square().mean() + eps).sqrt() * (weight + 1 if family == "gemma2" else weight)
        scores = unembedding @ normed
        cap = getattr(whole.config, "final_logit_softcapping", None)
        return scores if cap is None else cap * torch.tanh(scores / cap)
    norm = whole.transformer.ln_f if family == "gpt2" else whole.model.decoder.final_layer_norm
    normed = (d - d.mean()) / (d.var(unbiased=False) + norm.eps).sqrt() * norm.weight.detach().double()
    if family == "opt":
        normed = whole.model.decoder.project_out.weight.detach().double() @ normed
    return unembedding @ normed


@pytest.mark.skipif(not STORIES.exists(), reason="the shared tiny model is not here")
def test_a_trained_model_promotes_by_its_own_weights_and_its_tokens_read_as_the_text_does():
    """The ranking of W_U (γ ∘ d) from the tensors of the file; the pieces of a text joined are the text."""
    model, weights = load_model(STORIES, device="cpu"), load_file(STORIES / "model.safetensors")
    directions = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    found = promoted_tokens(language_head(model), directions, k=3)
    scores = (directions * weights["model.norm.weight"]) @ weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).T
    assert [[token for token, _ in each.promotes] for each in found] == scores.topk(3).indices.tolist()
    assert [[token for token, _ in each.suppresses] for each in found] == scores.topk(3, largest=False).indices.tolist()
    text = "Once upon a time, there was a little girl. She was 3 years old!"
    documents = Documents(model, as_corpus([text]), "", 512)
    documents.add([0])
    pieces = documents.shown(0, 0, len(documents.read[0]))
    assert "".join(pieces).replace(model.tokenizer.bos_token or "", "").strip() == text


def test_an_encoder_without_a_head_names_no_tokens_and_says_why(tmp_path):
    base, adapters = (place := save_model(tmp_path / "bare")), {"one": save_adapter(tmp_path / "one", save_model(tmp_path / "same"))}
    assert place.exists()
    model, tuned = load_several(base, adapters, device="cpu")
    rows = PlacedRows.of_batches(delta_batches(model, tuned, TEXTS, layers=[LAYERS]), LAYERS, "one")
    near = NearestIn(torch.linspace(0, 1, 48).view(24, 2), torch.arange(48).view(24, 2), "base features", floor=0.3)
    reading = read_features(a_dictionary(), rows, model=model, texts=TEXTS, nearest=near)
    assert reading.notes[0].startswith("no tokens are named: ")
    assert "has no language-model head" in reading.notes[0]
    card = reading.features[0]
    assert (card["promotes"], card["suppresses"]) == (None, None)
    first = card["latent"]
    assert card["nearest"][1] == {
        "dictionary": "base features", "latent": 2 * first + 1, "cosine": pytest.approx((2 * first + 1) / 47), "floor": 0.3
    }  # fmt: skip
    assert card["density_by_set"] == {"all": card["density"]}


def test_a_zero_delta_is_read_as_features_that_never_fire(sides):
    model, _ = sides
    rows = PlacedRows.of_batches(delta_batches(model, {"same": model}, TEXTS, layers=[1]), 1, "same")
    reading = read_features(one_hot(), rows, model=model, texts=TEXTS)
    assert (reading.dead, reading.described) == (4, 0)
    assert [card["explained_share"] for card in reading.features] == [None] * 4
    json.dumps(reading.describe(), allow_nan=False)


def test_a_dictionary_that_scales_tokens_has_no_explained_shares(sides, store):
    reading = read_features(
        a_dictionary(scaling=to_constant_norm), PlacedRows.of_store(store, 2, "one"), model=sides[0], texts=LONG, most=2, contexts=1
    )
    assert all(card["explained_share"] is None for card in reading.features)
    assert "scales every token" in reading.notes[0]


def test_bad_input_is_refused_in_one_line(sides, store):
    rows, dictionary = PlacedRows.of_store(store, 2, "one"), a_dictionary()
    none = PlacedRows(torch.empty(0, dtype=torch.int32), torch.empty(0), torch.empty(0), lambda: iter(()))
    cases = [
        (AlignmentError, r"rows of text 56 and 7 texts given; give the texts the rows were made from", {"texts": TEXTS}),
        (AlignmentError, r"row .* is token \d+ at position \d+ of text .*, which reads otherwise here", {"texts": LONG[::-1]}),
        (AlignmentError, "1 sets named for 56 texts; name one a text", {"sets": ["general"]}),
        (AlignmentError, "nearest features of 2 latents given for a dictionary of 24", {"nearest": NearestIn([0.1, 0.2], [0, 1], "base")}),
        (InputError, "contexts=0 asked for; it must be 1 or more", {"contexts": 0}),
        (InputError, "activations of width 16 given to 'dictionary', a dictionary of width 8", {"dictionary": a_dictionary(width=8)}),
        (NotEnoughRows, "no row was kept, so no feature fires anywhere", {"rows": none}),
    ]
    for error, message, options in cases:
        asked = {"dictionary": dictionary, "rows": rows, "texts": LONG} | options
        with pytest.raises(error, match=message) as raised:
            read_features(asked.pop("dictionary"), asked.pop("rows"), model=sides[0], **asked)
        assert "\n" not in str(raised.value)
