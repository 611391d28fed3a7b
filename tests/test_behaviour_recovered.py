"""Behaviour recovered against forwards and divergences written by hand, and against what must hold: 0, 100%, and the true delta."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from tiny_models import (
    CONFIGS,
    ENCODERS,
    LAYERS,
    RECURRENT,
    TEXTS,
    UNLISTED,
    WIDTH,
    save_adapter,
    save_model,
    save_sentence_transformer,
    tiny_model,
    tokenizer_for,
)
from tunescope.dictionaries.closed_share import NOTHING, UNSURE, closed_share
from tunescope.dictionaries.dictionary import Dictionary
from tunescope.dictionaries.firing import Relu
from tunescope.dictionaries.hygiene import Hygiene, held_out
from tunescope.dictionaries.recovered import behaviour_recovered
from tunescope.dictionaries.recovered_table import HARMFUL, MEAN, TRUE, ZERO
from tunescope.dictionaries.spliced_forward import continued_from, whole_pass
from tunescope.errors import InputError, NotEnoughRows, UnknownName
from tunescope.models import load_model, load_several
from tunescope.models.heads import NoLanguageHead
from tunescope.models.quiet import quietly
from tunescope.outcome.language import language_loss

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"
needs_stories = pytest.mark.skipif(not STORIES.exists(), reason="the shared tiny model is not here")
TARGETS = {"bert": ["query", "dense"], "llama": ["q_proj", "o_proj"]}
HEADS = {"bert": "mlm", "llama": "lm"}
ALL = Hygiene(first=False, special=False, sinks=None)
LONG = [f"{a} {b} {c}" for a in TEXTS for b in TEXTS[:4] for c in TEXTS[:2]]


def exact(width: int = WIDTH, **options) -> Dictionary:
    """x = max(x, 0) − max(−x, 0): twice as many latents as features, and no error."""
    eye = torch.eye(width)
    encoder = torch.cat([eye, -eye], dim=1)
    return Dictionary(encoder, torch.zeros(2 * width), encoder.T.contiguous(), torch.zeros(width), Relu(), **{"name": "exact"} | options)


def silent(width: int = WIDTH) -> Dictionary:
    return Dictionary(torch.zeros(width, 4), torch.zeros(4), torch.zeros(4, width), torch.zeros(width), Relu(), name="silent")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of each family the base with its head, an adapter, and both."""
    made = {}

    def make(family: str):
        if family not in made:
            place = tmp_path_factory.mktemp(family)
            base = STORIES if family == "stories" else save_model(place / "base", family, head=HEADS[family])
            targets = TARGETS["llama" if family == "stories" else family]
            options = {"target_modules": targets}
            adapters = {name: save_adapter(place / name, base, seed=seed, **options) for seed, name in enumerate(("one", "two"))}
            made[family] = base, adapters, load_several(base, adapters, device="cpu")
        return made[family]

    return make


@pytest.mark.parametrize("family", [*CONFIGS, *UNLISTED, *RECURRENT, *ENCODERS])
def test_going_on_from_a_layer_is_a_whole_forward_with_the_states_put_in(family):
    """Bit for bit, against a hook of PyTorch's that replaces the block's output; and nothing is left behind."""
    model = load_model((tiny_model(family), tokenizer_for(family)), name=family)
    ids, mask = torch.randint(5, 40, (2, 6), generator=torch.Generator().manual_seed(0)), torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    layers = range(model.anatomy.n_layers + 1)
    with torch.no_grad(), model.active() as body:
        found = whole_pass(model, ids, mask, layers)
        plain = body(input_ids=ids, attention_mask=mask, **({"use_cache": False} if family in RECURRENT else {}))[0]
        assert torch.equal(found.out[0], plain)
        for layer in layers:
            assert torch.equal(continued_from(model, found, layer, found.states[layer])[0], found.out[0])
            states = found.states[layer] + torch.randn(found.states[layer].shape, generator=torch.Generator().manual_seed(layer))
            expected = _replaced(model, layer, states, ids, mask)
            assert not torch.equal(expected, plain)
            assert torch.equal(continued_from(model, found, layer, states)[0], expected)
        assert torch.equal(whole_pass(model, ids, mask, [layers[-1]]).out[0], plain)
    assert not any("forward" in block.__dict__ for block in model.blocks)


def _replaced(model, layer: int, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    if layer == 0:
        def before(_, args, kwargs):
            return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

        handle = model.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    else:
        def after(_, args, output):
            return (states, *output[1:]) if isinstance(output, tuple) else states

        handle = model.blocks[layer - 1].register_forward_hook(after)
    options = {"use_cache": False} if model.anatomy.family in RECURRENT else {}
    out = model.module(input_ids=ids, attention_mask=mask, **options)[0]
    handle.remove()
    return out


@pytest.mark.parametrize("family", ["bert", "llama", pytest.param("stories", marks=needs_stories)])
def test_the_three_things_that_must_hold(family, folders):
    """Exact dictionary = true delta; a silent one closes 0; at the last block all positions of the true delta close everything."""
    base, _, (model, tuned) = folders(family)
    width, last = model.anatomy.width, model.anatomy.n_layers
    dictionaries = {(name, layer): [exact(width), silent(width)] for name in tuned for layer in (1, last)}
    table = behaviour_recovered(model, tuned, LONG, dictionaries, hygiene=ALL, held_out_share=0.4, batch_size=8)
    assert len(table.rows) == 4 * 5
    for name, layer in dictionaries:
        rows = {spliced: table.row(name, layer, spliced) for spliced in (ZERO, MEAN, "exact", "silent", TRUE)}
        helps = rows[TRUE].closed.value > 0  # a random adapter's first block alone may lead away from what all of it does
        assert helps or rows[TRUE].of_true.note == HARMFUL
        assert (rows[ZERO].closed.value, rows[ZERO].of_true.value) == (0, 0 if helps else None)
        assert rows["silent"].distance == pytest.approx(rows[ZERO].distance, rel=1e-9)
        assert rows["silent"].closed.value == pytest.approx(0, abs=1e-9)
        assert rows["exact"].distance == pytest.approx(rows[TRUE].distance, abs=1e-9)
        assert rows["exact"].of_true.value == (pytest.approx(1) if helps else None)
        assert rows[MEAN].closed.value < rows[TRUE].closed.value or layer < last
    for name in tuned:
        end = table.row(name, last, TRUE)
        assert end.base_distance > 0.01
        assert end.closed.value == pytest.approx(1, abs=1e-4)  # float32: base + (tuned − base) is tuned but for rounding
        assert end.loss == pytest.approx(end.tuned_loss, abs=1e-4)
        assert end.loss_closed.value == pytest.approx(1, abs=0.01) or end.loss_closed.note == UNSURE
        assert table.row(name, 1, TRUE).closed.value < 0.999  # blocks after the first were tuned too
    assert table.dropped.read == table.dropped.kept
    assert table.describe()["rows"][0]["spliced"] == ZERO


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_kl_and_losses_are_those_of_hand_written_torch(family, folders):
    """The whole causal or masked model of transformers, its block's output replaced by a hook, and torch's kl_div and cross_entropy."""
    base, adapters, (model, tuned) = folders(family)
    dictionary = Dictionary(
        torch.randn(WIDTH, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(8),
        torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(2)) / 8, torch.ones(WIDTH) / 10, Relu(), name="any",
    )  # fmt: skip
    table = behaviour_recovered(model, {"one": tuned["one"]}, LONG, {("one", 2): dictionary}, held_out_share=0.4, batch_size=5)
    held = [text for text, mine in zip(LONG, held_out(LONG, 0.4), strict=True) if mine]
    found = {key: _by_hand(family, base, adapters["one"], held, dictionary, key) for key in ("base", "any", TRUE)}
    rows = {"base": table.row("one", 2, ZERO), "any": table.row("one", 2, "any"), TRUE: table.row("one", 2, TRUE)}
    counts = found["base"][:, 2]
    for key, row in rows.items():
        assert row.answers == counts.sum()
        assert row.distance == pytest.approx(found[key][:, 0].sum() / counts.sum(), rel=1e-4)
        assert row.loss == pytest.approx(found[key][:, 1].sum() / counts.sum(), rel=1e-5)
    left, gap = found["any"][:, 0], found["base"][:, 0]
    value, n = 1 - left.sum() / gap.sum(), len(gap)
    without = np.array([1 - np.delete(left, i).sum() / np.delete(gap, i).sum() for i in range(n)])
    se = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum() + 0)  # Efron and Stein's, about the mean of the deletions
    assert rows["any"].closed.value == pytest.approx(value, rel=1e-3)
    assert rows["any"].closed.high - value == pytest.approx(value - rows["any"].closed.low, rel=1e-2)
    assert (rows["any"].closed.high - rows["any"].closed.low) / 2 == pytest.approx(_t(n - 1) * se, rel=1e-2)
    answer = language_loss(base, adapters["one"], held, device="cpu")
    assert table.row("one", 2, ZERO).base_loss == pytest.approx(answer.detail["by_token"]["base_loss"], rel=1e-5)


def _t(df: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, df))


def _by_hand(family: str, base, adapter, held: list[str], dictionary: Dictionary, key: str) -> np.ndarray:
    """KL, loss and tokens (n, 3) of each text, one at a time."""
    from peft import PeftModel

    from tunescope.texts.masking import chosen_positions

    loader = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    with quietly():
        plain = loader.from_pretrained(base).eval()
        wearing = loader.from_pretrained(base).eval()
        PeftModel.from_pretrained(wearing.base_model, adapter)
    tokenizer = tokenizer_for(family)
    rows = []
    for text in held:
        labels = torch.tensor([tokenizer(text)["input_ids"]])
        ids, special = labels.clone(), torch.tensor(tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]).bool()
        if family == "bert":
            places = torch.from_numpy(chosen_positions(text, ~special.numpy(), seed=0)).long()
            ids[0, places] = tokenizer.mask_token_id
            wanted = labels[0, places]
        else:
            places, wanted = torch.arange(labels.shape[1] - 1), labels[0, 1:]
        kept = ~special
        kept[0] = False
        with torch.no_grad():
            theirs = _scores(wearing, ids, None)
            mine, other = (_states(each, ids) for each in (plain, wearing))
            delta = (other - mine)[:, kept]
            added = {"base": torch.zeros_like(delta), TRUE: delta, "any": _decoded(dictionary, delta)}[key]
            states = mine.clone()
            states[:, kept] += added
            own = _scores(plain, ids, states)
        p, q = theirs[0, places].log_softmax(-1), own[0, places].log_softmax(-1)
        rows.append([float(kl_div(q, p, log_target=True, reduction="sum")), float(cross_entropy(q, wanted, reduction="sum")), len(wanted)])
    return np.array([row for row in rows if row[2]])


def _decoded(dictionary: Dictionary, delta: Tensor) -> Tensor:
    return torch.relu((delta - dictionary.b_dec) @ dictionary.w_enc) @ dictionary.decoder + dictionary.b_dec


def _blocks(model):
    body = model.base_model
    return body.encoder.layer if hasattr(body, "encoder") else body.layers


def _states(model, ids: Tensor) -> Tensor:
    """What block 2 returns."""
    return model(input_ids=ids, output_hidden_states=True).hidden_states[2]


def _scores(model, ids: Tensor, states: Tensor | None) -> Tensor:
    handle = None if states is None else _blocks(model)[1].register_forward_hook(lambda *_: states)
    out = model(input_ids=ids).logits
    if handle is not None:
        handle.remove()
    return out


def test_a_sentence_encoder_without_a_head_closes_distances_of_its_embeddings(tmp_path):
    """|e_tuned − e|² by hand from the body's last states, mean-pooled and normalised; and everything at the last block."""
    base = save_sentence_transformer(tmp_path / "base")
    tuned = {"a": save_adapter(tmp_path / "a", base, target_modules=TARGETS["bert"])}
    model, sides = load_several(base, tuned, device="cpu")
    dictionaries = {("a", layer): {"mine": exact(), "none": silent()} for layer in (1, LAYERS)}
    texts = [text[:40] for text in LONG]
    table = behaviour_recovered(model, sides, texts, dictionaries, hygiene=ALL, held_out_share=0.4)
    assert table.behaviour == "embeddings"
    end = table.row("a", LAYERS, TRUE)
    assert end.closed.value == pytest.approx(1, abs=1e-6)
    assert end.loss_closed is end.loss is None
    assert table.row("a", 1, "mine").closed.value == pytest.approx(table.row("a", 1, TRUE).closed.value, abs=1e-6)
    assert table.row("a", 1, "none").closed.value == pytest.approx(0, abs=1e-6)
    held = [text for text, mine in zip(texts, held_out(texts, 0.4), strict=True) if mine]
    gaps = []
    for text in held:
        pair = []
        for side in (model, sides["a"]):
            with torch.no_grad(), side.active() as body:
                ids = side.tokenizer(text, return_tensors="pt", truncation=True, max_length=12)
                mean = body(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])[0][0].mean(0)
                pair.append(mean / mean.norm())
        gaps.append(float((pair[0] - pair[1]).square().sum()))
    assert end.base_distance == pytest.approx(np.mean(gaps), rel=1e-4)
    assert end.answers == end.documents == len(held)


def test_tokens_that_hygiene_drops_get_nothing_and_it_is_said(folders):
    _, _, (model, tuned) = folders("bert")
    table = behaviour_recovered(model, {"one": tuned["one"]}, LONG, {("one", LAYERS): exact()}, held_out_share=0.4)
    held = [text for text, mine in zip(LONG, held_out(LONG, 0.4), strict=True) if mine]
    words = sum(len(text.split()) for text in held)
    assert (table.dropped.kept, table.dropped.first, table.dropped.special) == (words, len(held), len(held))
    assert f"nothing is added at {2 * len(held):,} of {words + 2 * len(held):,} tokens (first {len(held):,}" in table.notes[1]


def test_means_may_come_from_a_store(folders):
    """Without means they are those of the documents that are not held out, by numpy."""
    _, _, (model, tuned) = folders("llama")
    one, key = {"one": tuned["one"]}, ("one", 1)
    options = {"held_out_share": 0.4, "batch_size": 8}
    from tunescope.dictionaries import delta_batches

    rows = [batch.deltas[key][~batch.held_out] for batch in delta_batches(model, one, LONG, layers=[1], **options)]
    given = {key: torch.from_numpy(torch.cat(rows).double().numpy().mean(0))}
    mine, theirs = (behaviour_recovered(model, one, LONG, {key: silent()}, means=means, **options) for means in (None, given))
    assert mine.row(*key, MEAN).distance == pytest.approx(theirs.row(*key, MEAN).distance, rel=1e-6)


def test_shares_without_a_gap_say_so():
    assert closed_share(np.zeros(3), np.zeros(3)).note == NOTHING
    assert closed_share(np.ones(4), np.array([1.0, -1.0, 1.0, -0.9]), signed=True).note == UNSURE
    assert closed_share(np.array([1.0]), np.array([4.0])) == closed_share(np.array([2.0]), np.array([8.0]))
    share = closed_share(np.array([1.0, 2.0, 3.0]), np.array([4.0, 8.0, 12.0]))  # a constant ratio has no spread
    assert (share.value, share.low, share.high) == pytest.approx((0.75, 0.75, 0.75))


def test_a_zero_adapter_has_nothing_to_recover(folders):
    _, _, (model, _) = folders("llama")
    table = behaviour_recovered(model, {"same": model}, LONG, {("same", 1): silent()}, held_out_share=0.4)
    assert [row.closed.note for row in table.rows] == [NOTHING] * 4
    assert table.rows[0].distance == 0


def test_bad_input_is_refused_in_one_line(folders, tmp_path):
    _, _, (model, tuned) = folders("llama")
    bare = save_model(tmp_path / "bare")
    plain, worn = load_several(bare, {"one": save_adapter(tmp_path / "one", bare)}, device="cpu")
    good = {("one", 1): exact()}
    cases = [
        (InputError, "patched deltas are not spliced: only what all blocks before a layer changed is", {"kind": "patched"}),
        (InputError, "deltas of the module layers.0 are not spliced", {"dictionaries": {("one", "layers.0"): exact()}}),
        (InputError, "no dictionary given; name where each belongs", {"dictionaries": {}}),
        (InputError, "2 dictionaries given, some under one name", {"dictionaries": {("one", 1): [exact(), exact()]}}),
        (InputError, "a dictionary called 'zero' given, which is a reference", {"dictionaries": {("one", 1): exact(name="zero")}}),
        (InputError, "dictionary 'exact' of width 8 given for '.*', whose blocks return 16", {"dictionaries": {("one", 1): exact(8)}}),
        (InputError, "layer 9 asked for", {"dictionaries": {("one", 9): exact()}}),
        (UnknownName, "unknown tuned model 'onee'; did you mean one", {"dictionaries": {("onee", 1): exact()}}),
        (UnknownName, "unknown behaviour 'prediction'; did you mean predictions", {"behaviour": "prediction"}),
        (NotEnoughRows, "none of 56 documents is held out at a share of 0.0", {"held_out_share": 0.0}),
        (NoLanguageHead, "no behaviour to recover: .* nor is it declared how an embedding is made", {"models": (plain, worn)}),
    ]  # fmt: skip
    for error, message, options in cases:
        one, several = options.pop("models", (model, tuned))
        asked = {"held_out_share": 0.4} | options
        with pytest.raises(error, match=message) as raised:
            behaviour_recovered(one, several, LONG, asked.pop("dictionaries", good), **asked)
        assert "\n" not in str(raised.value)
