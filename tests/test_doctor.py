"""`tunescope doctor` on dictionaries whose faults are planted.

The dictionary of a layer is its PCA: the mean and the r first components, each as two features of opposite sign. Its R² on the rows it was
made of is known in closed form (the share of the variance in r components), no other dictionary of rank r does better there, and every
mistake of reading makes it worse.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tunescope as ts
from tiny_models import LAYERS, TEXTS, WIDTH, save_model
from tunescope.cli import app
from tunescope.dictionaries import Dictionary
from tunescope.dictionaries.doctor_checks import check_model
from tunescope.dictionaries.doctor_rows import TokenRows, check_rows
from tunescope.dictionaries.firing import Relu, Threshold, TopK
from tunescope.errors import InputError, NotEnoughRows

RANK = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ts.load_model(str(save_model(tmp_path_factory.mktemp("model") / "tiny-llama", "llama")))


@pytest.fixture(scope="module")
def texts():
    """40 sentences of the tiny vocabulary, none of them twice."""
    random = np.random.default_rng(0)
    words = " ".join(TEXTS).split()
    return [" ".join(random.choice(words, size=random.integers(6, 14))) for _ in range(40)]


def rows_of(model, texts, layer):
    """What block `layer` returns, without position 0, by a hook of our own; float64."""
    out, rows = [], []
    blocks = model.blocks
    handle = blocks[layer - 1].register_forward_hook(
        lambda module, args, output: out.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad(), model.active() as body:
        for text in texts:
            body(input_ids=torch.tensor([model.tokenizer(text)["input_ids"]]), use_cache=False)
            rows.append(out.pop()[0, 1:].double())
    handle.remove()
    return torch.cat(rows).numpy()


def pca(model, texts, layer, *, rank=RANK):
    """The dictionary, and its R² on these rows."""
    rows = rows_of(model, texts, layer)
    mean = rows.mean(0)
    _, sizes, directions = np.linalg.svd(rows - mean, full_matrices=False)
    both = torch.from_numpy(np.float32(np.concatenate([directions[:rank], -directions[:rank]])))
    zero = torch.zeros(2 * rank)
    metadata = {"layer": layer, "hook_name": f"blocks.{layer - 1}.hook_resid_post", "site": "resid_post", "model": "tiny-llama", "l0": rank}
    made = Dictionary(both.T, zero, both, torch.from_numpy(np.float32(mean)), Relu(), name="pca", metadata=metadata)
    return made, (sizes[:rank] ** 2).sum() / (sizes**2).sum()


def checks(found):
    return {check.check: check for check in found.checks}


@pytest.fixture(scope="module")
def sound(model, texts):
    return pca(model, texts, 2)


def test_a_sound_dictionary_is_well(model, texts, sound):
    made, r2 = sound
    found = ts.doctor(made, model, texts=texts)
    assert {name: check.status for name, check in checks(found).items() if check.status != "ok"} == {}, found.checks
    assert found.status == "ok"
    assert all((check.todo == "") == (check.status == "ok") for check in found.checks)
    assert found.layer == 2
    assert found.figures["r2"] == pytest.approx(r2, abs=1e-5)
    assert found.figures["l0"] == pytest.approx(RANK, abs=1e-3)  # one of each pair fires, but for a projection of exactly 0


def test_r2_is_that_of_numpy_at_every_layer_and_under_every_convention(model, texts, sound):
    made, _ = sound
    figures = ts.doctor(made, model, texts=texts).figures

    def r2(rows, read):
        error = rows - read
        return 1 - (error**2).sum() / ((rows - rows.mean(0)) ** 2).sum()

    decoder, b_dec = made.decoder[:RANK].double().numpy(), made.b_dec.double().numpy()
    for layer in (1, 2, 3):
        rows = rows_of(model, texts, layer)
        expected = r2(rows, (rows - b_dec) @ decoder.T @ decoder + b_dec)
        assert figures["r2_by_layer"][str(layer)] == pytest.approx(expected, abs=1e-5)
    rows = rows_of(model, texts, 2)
    assert figures["r2_with_the_other_b_dec_convention"] == pytest.approx(r2(rows, rows @ decoder.T @ decoder + b_dec), abs=1e-5)
    factor = math.sqrt(WIDTH) / np.linalg.norm(rows, axis=1).mean()
    assert figures["scale"] == pytest.approx(factor, rel=1e-5)
    scaled = rows * factor
    assert figures["r2_of_scaled_inputs"] == pytest.approx(r2(scaled, (scaled - b_dec) @ decoder.T @ decoder + b_dec), abs=1e-5)


@pytest.mark.parametrize("own", [1, 2, 3])
def test_a_hook_point_off_by_one(model, texts, own):
    """Read one layer too early or too late, the right one is named."""
    made, _ = pca(model, texts, own)
    for asked in (own - 1, own + 1):
        if not 1 <= asked <= LAYERS:
            continue
        found = checks(ts.doctor(made, model, layer=asked, texts=texts))
        assert found["hook point"].status == "wrong"
        assert f"--layer {own}, hidden_states[{own}], the output of block {own - 1} counted from 0" in found["hook point"].todo
        assert found["layer"].status == "wrong"
        assert "wrong" not in {found["b_dec"].status, found["input scale"].status}  # which the layer may be the reason of
        assert f"--layer {own}" in found["layer"].todo


@pytest.mark.parametrize(
    ("check", "change", "todo"),
    [
        ("b_dec", lambda made: replace(made, centred=False), "read it with b_dec subtracted before it is read"),
        ("decoder norms", lambda made: replace(made, decoder=made.decoder * 2, w_enc=made.w_enc / 2), "multiply activations by the norm"),
        ("threshold", lambda made: replace(made, firing=Threshold(torch.tensor(-1.0), "batchtopk")), "it was never set"),
        ("L0", lambda made: replace(made, metadata=made.metadata | {"l0": 60.0}), "at another L0 than its own"),
        ("R²", lambda made: replace(made, metadata=made.metadata | {"r2": 0.999}), "other texts than it was trained on lower it"),
        ("model", lambda made: replace(made, metadata=made.metadata | {"model": "google/gemma-2-2b"}), "give the model it was trained on"),
        ("model", lambda made: replace(made, metadata=made.metadata | {"model": "org/tiny-llama-it"}), "one may be tuned from the other"),
        ("BOS", lambda made: replace(made, metadata=made.metadata | {"prepend_bos": True}), "have the tokenizer add BOS"),
    ],
)
def test_planted_faults(model, texts, sound, check, change, todo):
    """Each is found by its own row, and by no other but where it lowers R² itself."""
    found = checks(ts.doctor(change(sound[0]), model, texts=texts))
    assert found[check].status in ("warn", "wrong")
    assert todo in found[check].todo
    others = {name for name, row in found.items() if row.status != "ok"} - {check}
    assert others <= ({"R²", "hook point", "input scale", "L0"} if check == "b_dec" else set())


def test_a_constant_that_is_not_in_the_weights(model, texts, sound):
    """Rows 50 times larger than those of mean norm √d that it was made of, whose mean it then gets wrong."""
    made, r2 = sound
    plain = TokenRows.captured(model, texts, 2)
    shift = torch.arange(WIDTH) / 4
    rows = plain.layers[2] + shift
    factor = math.sqrt(WIDTH) / float(rows[~plain.first].norm(dim=1).mean())
    trained = replace(made, b_dec=(made.b_dec + shift) * factor)
    found, figures = check_rows(trained, model, replace(plain, layers={2: 50 * rows}))
    (scale,) = (check for check in found if check.check == "input scale")
    assert figures["r2_of_scaled_inputs"] == pytest.approx(r2, abs=1e-4)
    assert figures["r2"] < r2 - 0.1
    assert scale.status == "wrong"
    assert f"not in the weights, {factor / 50:.3g} on these texts" in scale.todo


@pytest.mark.parametrize(
    ("name", "declared", "status"),
    [
        ("google/gemma-2-2b", "gemma-2-2b", "ok"),
        ("/cache/models--google--gemma-2-2b/snapshots/abc", "google/gemma-2-2b", "ok"),
        ("openai-community/gpt2", "gpt2-small", "ok"),
        ("google/gemma-2-2b-it", "google/gemma-2-2b", "warn"),
        ("google/gemma-2-9b", "google/gemma-2-2b", "warn"),
        ("google/gemma-2-9b", None, "ok"),
    ],
)
def test_names_of_models(sound, name, declared, status):
    assert check_model(replace(sound[0], metadata={"model": declared}), name).status == status


def test_dead_latents(model, texts, sound):
    made, _ = sound
    silent = replace(
        made,
        w_enc=torch.cat([made.w_enc, torch.zeros(WIDTH, 20)], 1),
        b_enc=torch.cat([made.b_enc, -torch.ones(20)]),
        decoder=torch.cat([made.decoder, torch.eye(WIDTH)[0].expand(20, -1)]),
    )
    found = ts.doctor(silent, model, texts=texts)
    assert found.figures["silent_share"] == pytest.approx(20 / 32)
    assert checks(found)["dead latents"].status == "warn"
    assert "62% of 32 fired on none of" in checks(found)["dead latents"].found


def test_position_0_and_sinks_are_left_out_and_said(model, texts, sound):
    """One first token and one later one made a thousand times longer: R² is what it is without them, and with them it is another."""
    made, r2 = sound
    plain = TokenRows.captured(model, texts, 2)
    assert torch.equal(
        plain.first.nonzero()[:, 0], torch.tensor([0, *np.cumsum([len(model.tokenizer(t)["input_ids"]) for t in texts])[:-1]])
    )
    long = {layer: rows.clone() for layer, rows in plain.layers.items()}
    for rows in long.values():
        rows[0] *= 1000
        rows[5] *= 1000
    found, figures = check_rows(made, model, replace(plain, layers=long))
    by_name = {check.check: check for check in found}
    assert figures["sinks"] == 1
    assert figures["r2"] == pytest.approx(r2, abs=1e-3)
    assert by_name["attention sinks"].status == by_name["position 0"].status == "warn"
    assert abs(figures["r2_with_position_0"] - r2) > 0.05 < abs(figures["r2_with_sinks"] - r2)


def test_a_model_in_half_precision(model, texts, sound, tmp_path):
    folder = save_model(tmp_path / "tiny-llama", "llama")
    half = ts.load_model(str(folder), dtype="bfloat16")
    found = checks(ts.doctor(sound[0], half, texts=texts))["dtype"]
    assert (found.status, "model run in bfloat16" in found.found) == ("warn", True)


def test_another_width_or_site_ends_it_before_texts_are_read(model, sound):
    def never(*_):
        raise AssertionError("no text may be read")

    made, _ = sound
    wide = Dictionary(torch.ones(8, 4), torch.zeros(4), torch.ones(4, 8), torch.zeros(8), TopK(2), metadata={"layer": 1})
    found = ts.doctor(wide, model, progress=never)
    assert (found.status, checks(found)["width"].found, checks(found)["width"].expected) == ("wrong", "8", "16, the model's")
    inside = replace(made, metadata={"layer": 2, "hook_name": "blocks.1.hook_mlp_out", "site": "mlp_out"})
    found = ts.doctor(inside, model, progress=never)
    assert "it reads inside a block" in checks(found)["site"].todo
    assert (found.texts, found.tokens, found.figures) == (0, 0, {})


def test_what_cannot_be_checked(model, texts, sound):
    made, _ = sound
    with pytest.raises(InputError, match="the files of 'pca' do not say which layer it is of; give one with --layer: 0"):
        ts.doctor(replace(made, metadata={}), model, texts=texts)
    with pytest.raises(InputError, match=r"layer 9 asked for; '.*' has 0 \(embeddings\) to 3"):
        ts.doctor(made, model, layer=9, texts=texts)
    with pytest.raises(InputError, match="layer 30 is what the files of 'pca' say"):
        ts.doctor(replace(made, metadata={"layer": 30}), model, texts=texts)
    with pytest.raises(NotEnoughRows, match="a dictionary is judged by 32 at least; give more texts"):
        ts.doctor(made, model, texts=["the cat sat on the mat"])


def test_the_command(model, texts, sound, tmp_path):
    made, r2 = sound
    folder, file = tmp_path / "sae", tmp_path / "texts.txt"
    ts.save_dictionary(made, folder, model="tiny-llama", hook_name="blocks.1.hook_resid_post")
    file.write_text("\n".join(texts))
    base = str(save_model(tmp_path / "tiny-llama", "llama"))
    command = ["doctor", str(folder), "--model", base, "--texts", str(file)]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "at layer 2 of" in done.stdout
    done = CliRunner().invoke(app, [*command, "--json", "--layer", "1"])
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (told["schema"], told["status"], told["layer"]) == ("tunescope.doctor/1", "wrong", 1)
    assert told["figures"]["r2_by_layer"]["2"] == pytest.approx(r2, abs=1e-5)
    assert {*told["checks"][0]} == {"check", "found", "expected", "status", "todo"}
