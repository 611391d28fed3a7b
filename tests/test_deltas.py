"""The three deltas against sums done by hand, the one pass against passes of its own, and which tokens count."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from tiny_models import LAYERS, TEXTS, WIDTH, adapted, save_adapter, save_model, tiny_model, tokenizer_for
from tunescope.activations import capture
from tunescope.dictionaries.contribution import contribution, tuned_modules
from tunescope.dictionaries.delta_norms import DeltaNorms, norm_table
from tunescope.dictionaries.delta_pass import DeltaBatch, DeltaPass, delta_batches
from tunescope.dictionaries.hygiene import Hygiene, held_out
from tunescope.dictionaries.partial_forward import forward_until_read
from tunescope.errors import ActivationError, AlignmentError, InputError, ModelError, UnknownName
from tunescope.models import Model, load_model, load_several
from tunescope.models.quiet import quietly

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K" / "hf"
TARGETS = {"bert": ["query", "dense"], "llama": ["q_proj", "o_proj"]}
FIRST = {"bert": "encoder.layer.0.attention.self.query", "llama": "layers.0.self_attn.q_proj"}
ALL = Hygiene(first=False, special=False, sinks=None)
FAMILIES = [*TARGETS, pytest.param("stories", marks=pytest.mark.skipif(not STORIES.exists(), reason="the shared tiny model is not here"))]


def family_of(name: str) -> str:
    return "llama" if name == "stories" else name


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Of each family the base, and two adapters that share its weights."""
    made: dict[str, tuple[Model, dict[str, Model]]] = {}

    def make(name: str) -> tuple[Model, dict[str, Model]]:
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            base = STORIES if name == "stories" else save_model(place / "base", name)
            options = {"target_modules": TARGETS[family_of(name)], "lora_dropout": 0.3}
            tuned = {f"seed {seed}".replace(" ", "-"): save_adapter(place / str(seed), base, seed=seed, **options) for seed in (1, 2)}
            made[name] = load_several(base, tuned, device="cpu")
        return made[name]

    return make


def joined(batches: Iterable[DeltaBatch], key: tuple[str, int | str]) -> Tensor:
    return torch.cat([batch.deltas[key] for batch in batches])


def input_of(model: Model, name: str, ids: Tensor, mask: Tensor) -> Tensor:
    """What the module receives, read by a hook of PyTorch's in a plain forward."""
    found: list[Tensor] = []
    handle = model.module.get_submodule(name).register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.no_grad(), model.active() as body:
        body(input_ids=ids, attention_mask=mask)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_local_at_the_first_adapted_module_is_bax(family, sides):
    """Δ = x Aᵀ Bᵀ · alpha / r, in float64 from PEFT's tensors; the dropout of .3 is off. 1e-5 is float32 of two sums."""
    base, tuned = sides(family)
    name, text = FIRST[family_of(family)], TEXTS[2]
    for key, model in tuned.items():
        (batch,) = delta_batches(base, tuned, [text], layers=name, kind="local", hygiene=ALL)
        with quietly():
            found = model.tokenizer([text], return_tensors="pt")
        x = input_of(model, name, found["input_ids"], found["attention_mask"])[0].double()
        layer, adapter = model.module.get_submodule(name), model.adapters[0]
        down, up = layer.lora_A[adapter].weight.double(), layer.lora_B[adapter].weight.double()
        expected = x @ down.T @ up.T * (8 / 2)
        assert expected.norm() > 1
        torch.testing.assert_close(batch.deltas[key, name].double(), expected, rtol=1e-5, atol=1e-5)
        with torch.no_grad(), model.active():
            moved = layer(x.float()[None])[0] - batch.x[name]  # before anything upstream has changed, the module's output moved by this
        torch.testing.assert_close(batch.deltas[key, name], moved, rtol=1e-4, atol=1e-4)  # a difference of float32 sums of some hundreds


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["residual", "patched", "local"])
def test_a_zero_adapter_gives_exactly_zero(family, kind, sides, tmp_path):
    base = STORIES if family == "stories" else save_model(tmp_path / "base", family)
    with quietly():
        peft = adapted(AutoModel.from_pretrained(base), target_modules=TARGETS[family_of(family)])
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.zeros_(parameter)
        peft.save_pretrained(tmp_path / "zero")
    base, tuned = load_several(base, {"zero": tmp_path / "zero"}, device="cpu")
    layers = FIRST[family_of(family)] if kind == "local" else None
    for batch in delta_batches(base, tuned, TEXTS, layers=layers, kind=kind, batch_size=3):
        assert all((delta == 0).all() for delta in batch.deltas.values())
        assert len(batch.deltas) == len(batch.x) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_is_the_difference_of_two_captures(family, sides):
    base, tuned = sides(family)
    batches = list(delta_batches(base, tuned, TEXTS, hygiene=ALL, batch_size=3))
    document = torch.cat([batch.document for batch in batches]).long()
    position = torch.cat([batch.position for batch in batches]).long()
    rows = capture(base, TEXTS, pooling="none", batch_size=3)
    starts = torch.cumsum(rows.tokens, 0) - rows.tokens
    places = starts[document] + position
    assert torch.equal(places.sort().values, torch.arange(len(rows.groups)))
    for name, model in tuned.items():
        own = capture(model, TEXTS, pooling="none", batch_size=3)
        for layer in range(base.anatomy.n_layers + 1):
            assert torch.equal(torch.cat([batch.x[layer] for batch in batches]), rows.layers[layer][places])
            assert torch.equal(joined(batches, (name, layer)), (own.layers[layer] - rows.layers[layer])[places])


@pytest.mark.parametrize("family", FAMILIES)
def test_patched_is_one_tuned_block_on_the_bases_stream(family, sides, tmp_path):
    """By a model of its own in which only block 2's adapter is left: its residual delta at block 2 is the patched one."""
    base, tuned = sides(family)
    name, model = next(iter(tuned.items()))
    patched = list(delta_batches(base, tuned, TEXTS, kind="patched", batch_size=4))
    residual = list(delta_batches(base, tuned, TEXTS, batch_size=4))
    assert torch.equal(joined(patched, (name, 1)), joined(residual, (name, 1)))  # nothing is before the first block
    alone = copy.deepcopy(model.peft)
    for path, parameter in alone.named_parameters():
        if "lora_B" in path and f"{base.anatomy.blocks}.1." not in path:
            torch.nn.init.zeros_(parameter)
    only = load_model((alone, model.tokenizer), adapter=model.adapters[0])
    one = list(delta_batches(base, {"only": only}, TEXTS, layers=[2], batch_size=4))
    assert torch.equal(joined(patched, (name, 2)), joined(one, ("only", 2)))
    # the residual stream adds up its blocks, and what the first block changed is in the residual delta and not in the patched one
    apart = joined(residual, (name, 2)) - joined(patched, (name, 2))
    assert apart.norm() > 0.1 * joined(residual, (name, 2)).norm()


@pytest.mark.parametrize("listening", [False, True])
def test_patched_deltas_add_up_to_the_residual_one_but_for_what_is_propagated(listening):
    """Where later blocks write nothing, nothing is propagated, and the sum is exact to float32; where they listen, it is not."""
    base = tiny_model("llama")
    for block in () if listening else base.layers[1:]:
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()
    tuned = copy.deepcopy(base)
    for block in tuned.layers:
        block.self_attn.v_proj.weight.data += 0.1
    one, two = (load_model((each, tokenizer_for("llama")), name=name) for each, name in ((base, "base"), (tuned, "tuned")))
    residual = joined(delta_batches(one, {"t": two}, TEXTS, layers=LAYERS), ("t", LAYERS))
    patched = list(delta_batches(one, {"t": two}, TEXTS, kind="patched"))
    missing = residual - sum(joined(patched, ("t", layer)) for layer in range(1, LAYERS + 1))
    assert (float(missing.norm() / residual.norm()) < 1e-5) is not listening
    assert not listening or missing.norm() > 0.05 * residual.norm()


@pytest.mark.parametrize("family", TARGETS)
def test_local_of_two_models_is_the_change_of_weights(family):
    base, tuned = (tiny_model(family, seed=seed) for seed in (0, 1))
    one, two = (load_model((each, tokenizer_for(family)), name=name) for each, name in ((base, "base"), (tuned, "tuned")))
    name = FIRST[family]
    (batch,) = delta_batches(one, {"t": two}, [TEXTS[2]], layers=name, kind="local", hygiene=ALL)
    ids = two.tokenizer([TEXTS[2]], return_tensors="pt")["input_ids"]
    x = input_of(two, name, ids, torch.ones_like(ids))[0].double()
    before, after = (side.module.get_submodule(name) for side in (one, two))
    expected = x @ (after.weight.double() - before.weight.double()).T
    if before.bias is not None:
        expected = expected + after.bias.double() - before.bias.double()
    torch.testing.assert_close(batch.deltas["t", name].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}, {"lora_bias": True}, {}], ids=str)
def test_local_of_a_variant_is_what_the_layer_gives_with_and_without_it(options, tmp_path):
    base = save_model(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base, target_modules=["query"], **options)
    one, tuned = load_several(base, {"a": adapter}, device="cpu")
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    layer = tuned["a"].module.get_submodule(FIRST["bert"])
    with torch.no_grad(), tuned["a"].active():
        expected = layer(x) - layer.get_base_layer()(x)
        found = contribution(one, tuned["a"], FIRST["bert"])(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # float32, a difference of sums ten times as large


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma2", "mamba", "t5", "rwkv", "opt", "distilbert"])
def test_a_forward_that_stops_early_reads_what_a_whole_one_does(family):
    body = tiny_model(family)
    model = load_model((body, tokenizer_for(family)))
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    ran: list[int] = []
    watches = [block.register_forward_pre_hook(lambda *_, number=number: ran.append(number)) for number, block in enumerate(model.blocks)]
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    found = {}
    for stop in (True, False):
        ran.clear()
        reads = {place: lambda args, kwargs, states: states.clone() for place in (0, 1, 2)}
        with torch.no_grad(), model.active():
            found[stop] = forward_until_read(model, ids, mask, reads, stop=stop)
        assert ran == ([0, 1] if stop else [0, 1, 2])
    for watch in watches:
        watch.remove()
    assert all(torch.equal(found[True][place], found[False][place]) for place in (0, 1, 2))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in body.modules())


def test_a_place_that_never_runs_is_named():
    model = load_model((tiny_model(), tokenizer_for("bert")))
    ids = torch.ones(1, 3, dtype=torch.long)
    model.module.spare = torch.nn.Linear(2, 2)
    with torch.no_grad(), model.active(), pytest.raises(ModelError, match=r"spare was not run by the forward of"):
        forward_until_read(model, ids, ids, {1: lambda *_: None, "spare": lambda *_: None})


def test_a_block_that_runs_twice_is_found_out():
    body = tiny_model("llama")
    body.layers[2] = body.layers[1]
    model = load_model((body, tokenizer_for("llama")))
    with pytest.raises(ModelError, match="block 2 ran twice in one forward"):
        list(delta_batches(model, {"t": model}, TEXTS, layers=[2]))


def test_several_adapters_cost_one_forward_each_and_one_copy_of_the_weights(sides):
    base, tuned = sides("bert")
    assert len({id(model.module) for model in (base, *tuned.values())}) == 1
    ran: list[int] = []
    watch = base.blocks[0].register_forward_pre_hook(lambda *_: ran.append(1))
    whole = DeltaPass.of(base, tuned, TEXTS, layers=[1], batch_size=len(TEXTS))
    calibration = whole.calibrate()
    ran.clear()
    list(whole.batches(calibration))
    watch.remove()
    assert len(ran) == 3


@pytest.mark.parametrize("first", ["residual", "patched"])
def test_one_pass_for_many_gives_what_one_for_each_does(first, sides):
    base, tuned = sides("llama")
    together = list(delta_batches(base, tuned, TEXTS, kind=first, batch_size=2))
    for name, model in tuned.items():
        alone = list(delta_batches(base, {name: model}, TEXTS, kind=first, layers=[2], batch_size=2))
        assert torch.equal(joined(together, (name, 2)), joined(alone, (name, 2)))


def test_models_are_left_as_they_were(sides):
    base, tuned = sides("bert")
    before = {key: value.clone() for key, value in base.module.state_dict().items()}
    active, training = list(base.peft.active_adapters), [module.training for module in base.module.modules()]
    for kind, layers in (("residual", [1]), ("patched", [1, 3]), ("local", FIRST["bert"])):
        list(delta_batches(base, tuned, TEXTS, kind=kind, layers=layers, noise=True))
    assert base.peft.active_adapters == active
    assert [module.training for module in base.module.modules()] == training
    assert all(torch.equal(value, before[key]) for key, value in base.module.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.module.modules())
    assert torch.is_grad_enabled()


def test_a_pass_half_read_leaves_gradients_on(sides):
    base, tuned = sides("bert")
    batches = delta_batches(base, tuned, TEXTS, batch_size=2)
    next(batches)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_noise_is_the_base_against_itself_in_another_batch(batch_size, sides):
    """Float32 carries 6e-8 of a number; sums of a few hundred in another order differ by some of that."""
    base, _ = sides("bert")
    batches = list(delta_batches(base, {}, TEXTS, noise=True, batch_size=batch_size))
    noise, x = joined(batches, ("noise", 3)), torch.cat([batch.x[3] for batch in batches])
    assert noise.shape == x.shape
    assert noise.norm() <= 1e-5 * x.norm()
    assert (batch_size == 1) or noise.norm() > 0


def test_bfloat16_models_are_subtracted_in_float32(tmp_path):
    base = save_model(tmp_path / "base", "llama")
    adapter = save_adapter(tmp_path / "a", base, target_modules=["q_proj"])
    one, tuned = load_several(base, {"a": adapter}, device="cpu", dtype="bfloat16")
    batches = list(delta_batches(one, tuned, TEXTS, layers=[1], hygiene=ALL))
    rows = [capture(model, TEXTS, layers=[1], pooling="none").layers[1] for model in (one, tuned["a"])]
    assert all(torch.equal(each, each.bfloat16().float()) for each in rows)
    delta = joined(batches, ("a", 1))
    assert delta.dtype == torch.float32
    assert torch.equal(delta.sum(dim=1).sort().values, (rows[1] - rows[0]).sum(dim=1).sort().values)
    assert not torch.equal(delta, delta.bfloat16().float())  # it is exact, and no longer a bfloat16 number


@pytest.mark.parametrize(("share", "stored", "naive"), [(1e-2, 1e-5, 0.03), (3e-3, 1e-5, 0.3), (1e-3, 1e-5, 1.0)])
def test_the_difference_is_formed_before_it_is_stored(share, stored, naive):
    """The figures of the specification: bfloat16 of the float32 difference against the difference of two bfloat16."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 256, generator=generator)
    delta = torch.randn(2000, 256, generator=generator)
    delta *= share * x.norm(dim=1, keepdim=True) / delta.norm(dim=1, keepdim=True)
    variance = float(delta.double().var())

    def error(found: Tensor) -> float:
        return float((found.double() - delta.double()).square().mean()) / variance

    assert error(((x + delta) - x).bfloat16().float()) < stored
    assert error((x + delta).bfloat16().float() - x.bfloat16().float()) > naive


def test_tokens_at_position_0_special_ones_and_padding_are_dropped_and_counted(sides):
    base, tuned = sides("bert")
    batches = list(delta_batches(base, tuned, TEXTS, layers=[1], batch_size=3))
    dropped = sum((batch.dropped for batch in batches[1:]), batches[0].dropped)
    words = [len(re.findall(r"\w+", text)) for text in TEXTS]
    assert (dropped.read, dropped.first, dropped.special, dropped.sinks, dropped.kept) == (
        sum(words) + 2 * len(words), len(words), len(words), 0, sum(words),
    )  # fmt: skip
    for batch in batches:
        for document, position, token in zip(batch.document, batch.position, batch.token, strict=True):
            assert base.tokenizer(TEXTS[document])["input_ids"][position] == token
    assert sum(map(len, batches)) == sum(words)
    everything = list(delta_batches(base, tuned, TEXTS, layers=[1], hygiene=ALL))
    assert sum(map(len, everything)) == dropped.read


def test_attention_sinks_are_dropped_at_every_layer_and_their_median_is_of_the_base():
    """A token whose embedding is a thousand times the others' is a sink; ten times the median, as numpy has it, is the line."""
    body = tiny_model("llama")
    tokenizer = tokenizer_for("llama")
    cat = tokenizer.convert_tokens_to_ids("cat")
    body.embed_tokens.weight.data[cat] *= 1000
    base = load_model((body, tokenizer), name="base")
    tuned = load_model((tiny_model("llama", seed=1), tokenizer), name="tuned")
    texts = [f"{text} cat dog" for text in TEXTS]
    whole = DeltaPass.of(base, {"t": tuned}, texts, layers=[0, 2])
    calibration, (batch,) = whole.calibrate(), list(whole.batches(whole.calibrate()))
    rows = capture(base, texts, layers=[0, 2], pooling="none")
    first = torch.cumsum(rows.tokens, 0) - rows.tokens
    kept = torch.ones(len(rows.groups), dtype=torch.bool)
    kept[first] = False
    norms = {layer: found[kept].norm(dim=1).numpy() for layer, found in rows.layers.items()}
    for layer in (0, 2):
        assert calibration.medians[layer] == pytest.approx(np.median(norms[layer]), rel=1e-6)
    sinks = (norms[0] > 10 * np.median(norms[0])) | (norms[2] > 10 * np.median(norms[2]))
    assert sinks.sum() >= len(texts)
    assert (batch.dropped.sinks, batch.dropped.kept) == (sinks.sum(), (~sinks).sum())
    assert batch.dropped.sinks_at["embeddings"] == (norms[0] > 10 * np.median(norms[0])).sum()
    assert not (batch.token == cat).any()
    (every,) = delta_batches(base, {"t": tuned}, texts, layers=[0, 2], hygiene=Hygiene(sinks=None))
    assert len(every) == kept.sum()


def test_documents_are_held_out_by_their_text_alone():
    texts = [f"text {i}" for i in range(4000)]
    held = held_out(texts, 0.1)
    assert 0.08 < held.mean() < 0.12  # 4000 draws at .1: a standard deviation of .005
    order = np.random.default_rng(0).permutation(4000)
    assert (held_out([texts[i] for i in order], 0.1) == held[order]).all()
    assert (held_out(texts, 0.3) | ~held).all()  # a larger share holds the smaller
    assert not held_out(texts, 0).any()
    with pytest.raises(InputError, match=r"held_out=1.0 asked for; it is the share of documents held out, at least 0 and below 1"):
        held_out(texts, 1.0)


def test_norms_add_up_to_numpys(sides):
    base, tuned = sides("bert")
    batches = list(delta_batches(base, tuned, TEXTS, batch_size=2, held_out_share=0.4))
    table = norm_table(batches)
    for (name, layer), found in table.items():
        delta, x = joined(batches, (name, layer)).numpy().astype(float), torch.cat([batch.x[layer] for batch in batches]).numpy()
        lengths = np.linalg.norm(delta, axis=1)
        assert found.rows == len(delta)
        assert found.norm == pytest.approx(lengths.mean())
        assert found.relative == pytest.approx(lengths.mean() / np.linalg.norm(x.astype(float), axis=1).mean())
        if layer:
            assert found.constant == pytest.approx((delta.mean(0) ** 2).sum() / (lengths**2).mean())
    train, held = (norm_table(batches, split=split) for split in ("train", "held_out"))
    assert train[name, 1].rows + held[name, 1].rows == table[name, 1].rows


def test_a_constant_delta_is_wholly_constant():
    delta = torch.ones(5, 3)
    assert DeltaNorms.of(delta, delta).summary().constant == pytest.approx(1)
    assert DeltaNorms.of(torch.cat([delta, -delta]), torch.ones(10, 3)).summary().constant == 0


def test_bad_input_is_refused_in_one_line(sides, tmp_path):
    base, tuned = sides("bert")
    other, wide = load_model((tiny_model("llama"), tokenizer_for("llama")), name="llama"), tiny_model(hidden_size=32)
    wide = load_model((wide, base.tokenizer), name="wide")
    damaged = tiny_model()
    nan = load_model((damaged, base.tokenizer), name="damaged")
    damaged.encoder.layer[1].output.dense.bias.data[:] = float("nan")
    cases = [
        (InputError, r"layer 4 asked for; residual deltas of '.*' are at 0 \(embeddings\) to 3", {"layers": [1, 4]}),
        (InputError, r"layer 0 asked for; patched deltas of '.*' are at 1 to 3", {"layers": 0, "kind": "patched"}),
        (InputError, "local deltas are asked for by the names of modules, and", {"layers": [1], "kind": "local"}),
        (UnknownName, r"unknown adapted module of 'seed-1' '(.*)self.quary'; did you mean encoder", {
            "layers": "encoder.layer.0.attention.self.quary", "kind": "local",
        }),
        (UnknownName, "unknown adapted module of 'seed-1' 'encoder.layer.0.attention.self.key'; did you mean", {
            "layers": "encoder.layer.0.attention.self.key", "kind": "local",
        }),
        (UnknownName, "unknown kind of delta 'resid'; did you mean residual", {"kind": "resid"}),
        (AlignmentError, "the tokenizers of '.*' and 'llama' differ", {"tuned": {"a": other}}),
        (AlignmentError, "is 16 features wide and 'wide' 32; a delta needs equal widths", {"tuned": {"a": wide}}),
        (InputError, "'a/b' cannot name a tuned model", {"tuned": {"a/b": base}}),
        (InputError, "'noise' cannot name a tuned model", {"tuned": {"noise": base}}),
        (InputError, "no tuned model was given", {"tuned": {}}),
        (InputError, "batch_size 0 asked for", {"batch_size": 0}),
        (ActivationError, "'damaged' gives NaN at block 2 for text .*; the model is damaged or diverged", {"tuned": {"a": nan}}),
    ]  # fmt: skip
    for error, message, options in cases:
        with pytest.raises(error, match=message) as raised:
            list(delta_batches(base, options.pop("tuned", tuned), TEXTS, **options))
        assert "\n" not in str(raised.value)
    with pytest.raises(ActivationError, match=r"'damaged' gives NaN at block 2 for text"):
        list(delta_batches(nan, {"a": base}, TEXTS))
    with pytest.raises(InputError, match=r"local deltas need a plain base, and 'seed-1' wears an adapter itself"):
        list(delta_batches(tuned["seed-1"], {"b": tuned["seed-2"]}, TEXTS, kind="local", layers=FIRST["bert"]))


def test_adapters_that_cannot_share_are_loaded_beside(tmp_path):
    base = save_model(tmp_path / "base")
    plain = save_adapter(tmp_path / "plain", base)
    biased = save_adapter(tmp_path / "biased", base, bias="lora_only")
    full = save_model(tmp_path / "full", seed=3)
    one, tuned = load_several(base, {"plain": plain, "biased": biased, "full": full}, device="cpu")
    assert tuned["plain"].module is one.module
    assert tuned["biased"].module is not one.module
    assert [model.name for model in tuned.values()] == ["plain", "biased", "full"]
    assert [name.rsplit(".", 1)[1] for name in tuned_modules(one, tuned["plain"])] == ["query", "value"] * LAYERS
    for name, source in (("plain", plain), ("biased", biased), ("full", full)):
        alone = capture(load_model(source, device="cpu"), TEXTS)
        assert all(torch.equal(capture(tuned[name], TEXTS).layers[layer], rows) for layer, rows in alone.layers.items())
    alone = capture(load_model(base, device="cpu"), TEXTS)
    assert all(torch.equal(capture(one, TEXTS).layers[layer], rows) for layer, rows in alone.layers.items())
