"""Models too large for one place: spread by a device map, in shards, or in memory one at a time."""

from __future__ import annotations

import gc
import json
import weakref

import pytest
import torch

from tiny_models import EVERY, LAYERS, TEXTS, save_adapter, save_model, save_sentence_transformer, tiny_model
from tunescope.activations import capture
from tunescope.comparison import diff
from tunescope.comparison.in_turn import NO_WEIGHTS, SHARED
from tunescope.errors import DeviceError, InputError, ModelError, UnknownName
from tunescope.models import load_model, load_pair
from tunescope.models.outline import outline
from tunescope.models.placement import read_device_map
from tunescope.training import perturb

# Embeddings and the first block in memory, the rest on the disk, as accelerate leaves them when memory ends.
SPLIT = {"embeddings": "cpu", "encoder.layer.0": "cpu", "pooler": "cpu"} | {f"encoder.layer.{i}": "disk" for i in range(1, LAYERS)}
MAPS = {
    "one place": {"": "cpu"},
    "cpu": "cpu",
    "auto": "auto",
    "sequential": "sequential",
    "half on the disk": SPLIT,
    "embeddings on the disk": SPLIT | {"embeddings": "disk"},
    "all on the disk": {"": "disk"},
}


def same_rows(one, two) -> bool:
    """Whether two captures agree at every layer and site, bit for bit."""
    keys = [(one.layers[i], two.layers[i]) for i in one.layers] + [(one.sites[site], two.sites[site]) for site in one.sites]
    return all(torch.equal(x, y) for x, y in keys)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_device_map_changes_no_number_and_no_hash(tmp_path, name, dtype):
    folder = save_model(tmp_path / "model")
    plain, spread = load_model(folder, dtype=dtype, device="cpu"), load_model(folder, dtype=dtype, device_map=MAPS[name])
    assert same_rows(capture(plain, TEXTS), capture(spread, TEXTS))
    assert plain.identity() == spread.identity()
    absent = {key for key, tensor in spread.tensors().items() if tensor.is_meta}
    assert bool(absent) == ("disk" in name), absent


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "none"])
def test_every_pooling_of_a_spread_model(tmp_path, pooling):
    folder = save_model(tmp_path / "model", "gpt2")
    blocks = {f"h.{i}": "disk" if i else "cpu" for i in range(LAYERS)}
    spread = load_model(folder, device_map={"wte": "cpu", "wpe": "cpu", "drop": "cpu", "ln_f": "disk", **blocks})
    assert same_rows(capture(load_model(folder, device="cpu"), TEXTS, pooling=pooling), capture(spread, TEXTS, pooling=pooling))


def test_the_deployed_head_of_a_spread_sentence_transformer(tmp_path):
    folder = save_sentence_transformer(tmp_path / "model", dense=8)
    assert same_rows(capture(load_model(folder, device="cpu"), TEXTS), capture(load_model(folder, device_map=SPLIT), TEXTS))


@pytest.mark.parametrize("family", ["t5", "clip"])
def test_a_body_inside_a_spread_model(tmp_path, family):
    folder = save_model(tmp_path / "model", family)
    assert same_rows(capture(load_model(folder, device="cpu"), TEXTS), capture(load_model(folder, device_map={"": "disk"}), TEXTS))


@pytest.mark.parametrize("device_map", [None, SPLIT])
def test_shards_are_the_model_they_were_cut_from(tmp_path, device_map):
    whole, model = save_model(tmp_path / "whole"), tiny_model()
    shards = save_model(tmp_path / "shards", model=model)
    (shards / "model.safetensors").unlink()
    model.save_pretrained(shards, max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    one, two = load_model(whole, device="cpu", name="m"), load_model(shards, name="m", device_map=device_map)
    assert same_rows(capture(one, TEXTS), capture(two, TEXTS))
    assert one.identity() == two.identity()


def test_an_adapter_on_a_base_in_one_place_shares_its_weights(tmp_path):
    base = save_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    plain, mapped = load_pair(base, adapter, device="cpu"), load_pair(base, adapter, device_map="auto")
    assert mapped[0].module is mapped[1].module
    for one, two in zip(plain, mapped, strict=True):
        assert same_rows(capture(one, TEXTS), capture(two, TEXTS))


def test_what_needs_the_weights_in_memory_says_so(tmp_path):
    base = save_model(tmp_path / "base")
    with pytest.raises(ModelError, match=r"an adapter needs all weights in memory, and encoder\.layer\.1\.\S+ of '\S+base' is offloaded"):
        load_pair(base, save_adapter(tmp_path / "adapter", base), device_map=SPLIT)
    with pytest.raises(ModelError, match="perturb needs all weights in memory"):
        perturb(load_model(base, device_map=SPLIT), kind="gaussian", sigma=0.1)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ("balance", UnknownName, "unknown device map 'balance'; did you mean balanced"),
        ("{'': 0}", InputError, "which is no JSON"),
        ("{}", InputError, "device map '{}' asked for; give auto, balanced"),
        ({"": "cuda:9"}, DeviceError, "no such device: 'cuda:9' asked for, this machine has cpu"),
        ({"": 9}, DeviceError, "no such device: 'cuda:9'"),
        (7, InputError, "device map 7 asked for"),
    ],
)
def test_device_maps_that_are_refused(asked, kind, message):
    with pytest.raises(kind, match=message):
        read_device_map(asked)


def test_a_map_is_read_from_json_and_goes_alone(tmp_path):
    assert read_device_map(json.dumps(SPLIT)) == SPLIT
    with pytest.raises(InputError, match="device 'cpu' and a device map were asked for"):
        load_model(save_model(tmp_path / "m"), device="cpu", device_map="auto")
    with pytest.raises(ModelError, match="cannot load"):
        load_model(tmp_path / "m", device_map={"embeddings": "cpu", "no.such.part": "disk"})


@pytest.fixture
def pair(tmp_path):
    """Base and tuned folders; the tuned model differs in its second block."""
    moved = tiny_model()
    with torch.no_grad():
        moved.encoder.layer[1].output.dense.weight.mul_(1.5)
    return save_model(tmp_path / "base"), save_model(tmp_path / "tuned", model=moved)


def without(payload: dict) -> dict:
    """What does not depend on the moment, or on whether the weights were there to compare."""
    return {key: value for key, value in payload.items() if key not in ("created", "seconds", "weights", "warnings", "text_sets")}


MANY = [f"{text} {word}" for word in ("red", "blue", "old") for text in TEXTS]


@pytest.mark.parametrize("more", [{}, {"pooling": "none"}, {"layers": [1, 2], "max_length": 8}])
def test_one_at_a_time_gives_the_very_numbers(pair, more):
    together = diff(*pair, MANY, measures="cka,procrustes", method="exact", **more)
    apart = diff(*pair, MANY, measures="cka,procrustes", one_at_a_time=True, **more)
    assert without(apart.payload) == without(together.payload)
    assert apart.payload["weights"] is None
    assert NO_WEIGHTS in apart.warnings
    assert [line for line in apart.warnings if line != NO_WEIGHTS] == together.warnings


def test_never_are_both_models_in_memory(pair, monkeypatch):
    alive: list[weakref.ref] = []

    def loading(*args, **options):
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
        model = load_model(*args, **options)
        alive.append(weakref.ref(model.module))
        return model

    monkeypatch.setattr("tunescope.comparison.in_turn.load_model", loading)
    monkeypatch.setattr("tunescope.comparison.sources.load_pair", None)
    diff(*pair, MANY, measures="cka", one_at_a_time=True)
    assert [ref() for ref in alive] == [None, None]


@pytest.mark.parametrize("kind", ["positions", "tokenizer", "sentence-transformers"])
def test_the_length_is_the_shorter_one_before_the_base_reads(tmp_path, kind):
    base = save_model(tmp_path / "base")
    if kind == "sentence-transformers":
        tuned = save_sentence_transformer(tmp_path / "tuned")  # declares 12 tokens
    else:
        tuned = save_model(tmp_path / "tuned", **({"max_position_embeddings": 20} if kind == "positions" else {}))
    if kind == "tokenizer":
        settings = tuned / "tokenizer_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 9}))
    wanted = {"positions": 20, "tokenizer": 9, "sentence-transformers": 12}[kind]
    found = diff(base, tuned, MANY, measures="cka", one_at_a_time=True)
    assert found.payload["data"]["max_length"] == wanted == outline(tuned).max_length == load_model(tuned).max_length


@pytest.mark.parametrize("family", EVERY)
def test_an_outline_is_the_model_without_its_weights(tmp_path, family):
    folder = save_model(tmp_path / "model", family)
    known, whole = outline(folder), load_model(folder)
    assert all(parameter.is_meta for parameter in known.module.parameters())
    assert (known.anatomy, known.max_length, known.name) == (whole.anatomy, whole.max_length, whole.name)


def test_a_length_the_files_did_not_tell_is_asked_for(pair, monkeypatch):
    monkeypatch.setattr("tunescope.comparison.in_turn.outline", lambda *args, **options: load_model(pair[0]))
    length = pair[1] / "tokenizer_config.json"
    length.write_text(json.dumps(json.loads(length.read_text()) | {"model_max_length": 9}))
    with pytest.raises(ModelError, match=r"reads 9 tokens, its files said more, and the base has read 64; give the length: --max-length 9"):
        diff(*pair, MANY, measures="cka", one_at_a_time=True)


def test_an_adapter_shares_the_weights_and_the_flag_says_so(pair, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", pair[0])
    together, apart = (diff(pair[0], adapter, MANY, measures="cka", one_at_a_time=flag) for flag in (False, True))
    assert without(apart.payload) == without(together.payload)
    assert apart.payload["weights"] == together.payload["weights"]
    assert apart.warnings == [SHARED, *together.warnings]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ruler": True}, "the ruler disturbs the base's weights, which --one-at-a-time has freed by then"),
        ({"method": "stream"}, "--method stream reads both models side by side"),
        ({"also_pooling": "cls"}, "also_pooling asked for with one_at_a_time: a model is freed once it has read; hold both models"),
        ({"texts": {"a": MANY, "b": TEXTS}}, "2 text sets were given with one_at_a_time, which is of one set; hold both models"),
        ({"base": torch.zeros(9, 4), "tuned": torch.ones(9, 4)}, "one_at_a_time is about two models, and rows were given"),
    ],
)
def test_what_one_at_a_time_cannot_do_is_refused(pair, more, message):
    base, tuned = pair
    with pytest.raises(InputError, match=message):
        diff(**({"base": base, "tuned": tuned, "texts": MANY, "measures": "cka", "one_at_a_time": True} | more))


def test_a_loaded_model_cannot_be_freed(pair):
    with pytest.raises(InputError, match="one of them is loaded already; give folders or hub ids"):
        diff(load_model(pair[0]), pair[1], MANY, measures="cka", one_at_a_time=True)


def test_the_ruler_needs_the_base_in_memory(pair):
    with pytest.raises(ModelError, match="the ruler needs all weights in memory"):
        diff(*pair, MANY, measures="cka", ruler=True, device_map=SPLIT)


def test_a_spread_pair_gives_the_numbers_of_a_plain_one(pair):
    plain, spread = (diff(*pair, MANY, measures="cka,procrustes", device_map=place).payload for place in ("cpu", SPLIT))
    assert without(spread) == without(plain)
    reasons = {row["name"]: row.get("reason") for row in spread["weights"]["matrices"]}
    assert reasons["encoder.layer.1.output.dense.weight"] == "its weights are not in memory"
    assert reasons["encoder.layer.0.output.dense.weight"] is None
