"""Dictionaries in other libraries' formats: small files written by hand, against each format's formula in numpy, float64.

float32 sums of 8 to 24 terms of size 1 differ from float64 by about 1e-6; 1e-4 is allowed where weights are folded. Every bias, threshold
and decoder norm is far from its trivial value, so a convention that is got wrong moves results by more than .01.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tunescope as ts
from tunescope.dictionaries import Dictionary
from tunescope.dictionaries.firing import Gated, GroupMax, Relu, Threshold, TopK
from tunescope.dictionaries.formats.hook_points import hook_point
from tunescope.dictionaries.token_scaling import to_constant_norm, to_layer_norm
from tunescope.errors import ActivationError, FormatError, InputError, OutputError, TunescopeError, UnknownName, UnsafeWeights

D, N, K = 8, 24, 5
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def drawn(seed=0):
    """W_enc (d, n), W_dec (n, d) with rows of norms .5 to 2, biases, thresholds; x (40, d) off the origin."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, D))
    weights = {
        "W_enc": rng.normal(size=(D, N)) / D**0.5,
        "W_dec": rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.linspace(0.5, 2, N)[:, None],
        "b_enc": rng.normal(size=N) * 0.3,
        "b_dec": rng.normal(size=D) * 0.7,
        "threshold": rng.uniform(0.1, 0.8, size=N),
        "b_gate": rng.normal(size=N) * 0.3,
        "b_mag": rng.normal(size=N) * 0.3,
        "r_mag": rng.normal(size=N) * 0.4,
    }
    return {name: np.float32(value) for name, value in weights.items()}, np.float32(rng.normal(size=(40, D)) + 0.5)


def tensors(weights, *names, dtype=torch.float32, **more):
    return {
        name: torch.from_numpy(np.ascontiguousarray(value)).to(dtype) for name, value in ({n: weights[n] for n in names} | more).items()
    }


def relu(x):
    return np.maximum(x, 0)


def top_k(pre, k=K):
    kept = np.zeros_like(pre)
    for row, out in zip(pre, kept, strict=True):
        best = np.argsort(-row)[:k]
        out[best] = relu(row[best])
    return kept


def agrees(dictionary, x, f, x_hat):
    found = dictionary.encode(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), f, **CLOSE)
    np.testing.assert_allclose(dictionary.reconstruct(torch.from_numpy(x)).numpy(), x_hat, **CLOSE)
    if dictionary.scaling is None and dictionary.skip is None:
        np.testing.assert_allclose(dictionary.decode(found).numpy(), x_hat, **CLOSE)
    assert 0 < (f != 0).mean() < 1, "the case must have features that fire and features that do not"


def saelens(folder, cfg, values):
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {"d_in": D, "d_sae": N, "dtype": "float32", "metadata": {"sae_lens_version": "6.54.12"}} | cfg
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(values, folder / "sae_weights.safetensors")
    return folder


STANDARD = ("W_enc", "W_dec", "b_enc", "b_dec")
GATED = ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag")


class TestGemmaScope:
    def place(self, tmp_path, *below):
        folder = tmp_path.joinpath(*below)
        folder.mkdir(parents=True)
        return folder

    @pytest.mark.parametrize("lower", [False, True])
    def test_first(self, tmp_path, lower):
        w, x = drawn()
        folder = self.place(tmp_path, "models--google--gemma-scope-2b-pt-res", "layer_20", "width_16k", "average_l0_71")
        names = {name: name.replace("W_", "w_") if lower else name for name in (*STANDARD, "threshold")}
        np.savez(folder / "params.npz", **{to: w[name] for name, to in names.items()})
        pre = x @ w["W_enc"].astype(float) + w["b_enc"]
        f = relu(pre) * (pre > w["threshold"])
        for path in (folder, folder / "params.npz"):
            found = ts.read_dictionary(path)
            agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        said = {"model": "google/gemma-2-2b", "layer": 21, "site": "resid_post", "l0": 71.0, "dtype": "float32", "format": "gemma-scope"}
        assert found.metadata.items() >= said.items()
        assert found.name == "layer_20/width_16k/average_l0_71"

    def test_embeddings_are_scaled(self, tmp_path):
        w, x = drawn()
        folder = self.place(tmp_path, "gemma-scope-2b-pt-res", "embedding", "width_4k", "average_l0_44")
        np.savez(folder / "params.npz", **{name: w[name] for name in (*STANDARD, "threshold")})
        pre = x @ (w["W_enc"] / D**0.5) + w["b_enc"]
        f = relu(pre) * (pre > w["threshold"])
        found = ts.read_dictionary(folder)
        agrees(found, x, f, f @ (w["W_dec"] * D**0.5) + w["b_dec"])
        assert (found.metadata["layer"], found.metadata["site"]) == (0, "embed")

    @pytest.mark.parametrize("told", [True, False])
    def test_second(self, tmp_path, told):
        w, x = drawn()
        folder = self.place(tmp_path, "gemma-scope-2-1b-pt", "resid_post", "layer_12_width_16k_l0_small")
        save_file(tensors(w, "b_enc", "b_dec", "threshold", w_enc=w["W_enc"], w_dec=w["W_dec"]), folder / "params.safetensors")
        if told:
            config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.12.output"}
            (folder / "config.json").write_text(json.dumps(config))
        pre = x @ w["W_enc"] + w["b_enc"]
        f = relu(pre) * (pre > w["threshold"])
        found = ts.read_dictionary(folder)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata.items() >= {"model": "google/gemma-3-1b-pt", "layer": 13, "site": "resid_post"}.items()

    @pytest.mark.parametrize("case", ["config", "folder", "skip", "layers"])
    def test_transcoders_of_the_second_are_refused(self, tmp_path, case):
        w, _ = drawn()
        folder = self.place(tmp_path, "transcoder" if case == "folder" else "x", "layer_12")
        values = tensors(w, "b_enc", "b_dec", "threshold", w_enc=w["W_enc"], w_dec=w["W_dec"])
        values |= {"affine_skip_connection": torch.zeros(D, D)} if case == "skip" else {}
        values |= {"w_dec": values["w_dec"][:, None].repeat(1, 3, 1)} if case == "layers" else {}
        save_file(values, folder / "params.safetensors")
        if case == "config":
            (folder / "config.json").write_text('{"hf_hook_point_out": "model.layers.12.post_feedforward_layernorm.output"}')
        with pytest.raises(FormatError, match="is of a transcoder: it reads one place and writes another"):
            ts.read_dictionary(folder)

    def test_another_architecture_is_refused(self, tmp_path):
        w, _ = drawn()
        save_file(tensors(w, "b_enc", "b_dec", "threshold", w_enc=w["W_enc"], w_dec=w["W_dec"]), tmp_path / "params.safetensors")
        (tmp_path / "config.json").write_text('{"architecture": "topk"}')
        with pytest.raises(FormatError, match=r"architecture 'topk' in config\.json"):
            ts.read_dictionary(tmp_path)


class TestSAELens:
    def encoded(self, w, x, architecture, centred):
        x = x - w["b_dec"] * centred
        pre = x @ w["W_enc"].astype(float) + (w["b_gate"] if architecture == "gated" else w["b_enc"])
        if architecture == "gated":
            return (pre > 0) * relu(x @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
        return {"standard": relu(pre), "topk": top_k(pre), "jumprelu": relu(pre) * (pre > w["threshold"])}[architecture]

    def names(self, architecture):
        return GATED if architecture == "gated" else (*STANDARD, *(["threshold"] if architecture == "jumprelu" else []))

    @pytest.mark.parametrize("centred", [True, False, None])
    @pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
    def test_architectures(self, tmp_path, architecture, centred):
        w, x = drawn()
        cfg = {"architecture": architecture, "k": K} | ({} if centred is None else {"apply_b_dec_to_input": centred})
        found = ts.read_dictionary(saelens(tmp_path / "sae", cfg, tensors(w, *self.names(architecture))))
        f = self.encoded(w, x, architecture, centred is not False)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.name == "sae"

    def test_top_k_by_what_a_latent_writes(self, tmp_path):
        w, x = drawn()
        cfg = {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True}
        found = ts.read_dictionary(saelens(tmp_path, cfg, tensors(w, *STANDARD)))
        norms = np.linalg.norm(w["W_dec"], axis=1)
        f = top_k(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms)
        agrees(found, x, f, (f / norms) @ w["W_dec"] + w["b_dec"])

    @pytest.mark.parametrize("scale", [None, 0.37])
    @pytest.mark.parametrize("rescaled", [None, True, False])
    @pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
    def test_training_checkpoints(self, tmp_path, architecture, rescaled, scale):
        """f = pre ‖w‖ where that is above the threshold, on inputs times s; a finished training's weights are those for x itself."""
        w, x = drawn()
        cfg = {"architecture": architecture, "k": 3.5} | ({} if rescaled is None else {"rescale_acts_by_decoder_norm": rescaled})
        cfg |= {} if scale is None else {"normalize_activations": "expected_average_only_in"}
        saelens(tmp_path, cfg, tensors(w, *STANDARD) | {"topk_threshold": torch.tensor(0.6, dtype=torch.float64)})
        if scale is not None:
            (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale, "has_whitening": False}))
        s = scale or 1
        norms = np.linalg.norm(w["W_dec"], axis=1) if rescaled is not False else np.ones(N)
        pre = ((x * s - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
        f = pre * (pre > 0.6)
        x_hat = ((f / norms) @ w["W_dec"] + w["b_dec"]) / s
        agrees(ts.read_dictionary(tmp_path), x, f / (s if rescaled is not False else 1), x_hat)

    @pytest.mark.parametrize("said", ["expected_average_only_in", True])
    @pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
    def test_a_constant_factor_is_folded(self, tmp_path, architecture, said):
        w, x = drawn()
        folder = saelens(
            tmp_path, {"architecture": architecture, "k": K, "normalize_activations": said}, tensors(w, *self.names(architecture))
        )
        f = self.encoded(w, x * np.float32(0.37), architecture, True)
        agrees(ts.read_dictionary(folder, scale=0.37), x, f, (f @ w["W_dec"] + w["b_dec"]) / 0.37)
        with pytest.raises(
            InputError, match=r"multiplied by a constant that the folder does not hold; give it: read_dictionary\(path, scale"
        ):
            ts.read_dictionary(folder)

    def test_a_factor_that_nothing_asks_for_is_refused(self, tmp_path):
        w, _ = drawn()
        with pytest.raises(InputError, match=r"scale=2 given, and .* says normalize_activations is 'none'"):
            ts.read_dictionary(saelens(tmp_path, {"architecture": "standard"}, tensors(w, *STANDARD)), scale=2)

    @pytest.mark.parametrize("kind", ["constant_norm_rescale", "layer_norm"])
    def test_tokens_are_scaled_and_scaled_back(self, tmp_path, kind):
        w, x = drawn()
        found = ts.read_dictionary(saelens(tmp_path, {"architecture": "standard", "normalize_activations": kind}, tensors(w, *STANDARD)))
        mean, size = np.zeros((40, 1)), np.linalg.norm(x, axis=1, keepdims=True) / D**0.5
        shown = size
        if kind == "layer_norm":
            mean, size = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
            shown = size + 1e-5
        f = relu(((x - mean) / shown - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        agrees(found, x, f, (f @ w["W_dec"] + w["b_dec"]) * size + mean)

    @pytest.mark.parametrize("centred", [True, False])
    @pytest.mark.parametrize("architecture", ["standard", "topk", "gated", "batchtopk"])
    def test_whitening_is_folded(self, tmp_path, architecture, centred):
        w, x = drawn()
        rng = np.random.default_rng(3)
        mean, matrix = rng.normal(size=D), rng.normal(size=(D, D)) + 3 * np.eye(D)
        cfg = {"architecture": architecture, "k": K, "normalize_activations": "covariance_whitening", "apply_b_dec_to_input": centred}
        cfg |= {"rescale_acts_by_decoder_norm": True} if architecture in ("topk", "batchtopk") else {}
        more = {"topk_threshold": torch.tensor(0.6, dtype=torch.float64)} if architecture == "batchtopk" else {}
        saelens(tmp_path, cfg, tensors(w, *self.names(architecture)) | more)
        with pytest.raises(FormatError, match=r"there is no 'activation_whitening\.safetensors' beside it"):
            ts.read_dictionary(tmp_path)
        whitening = {"mean": mean, "matrix": matrix, "inverse_matrix": np.linalg.inv(matrix)}
        save_file({name: torch.from_numpy(value) for name, value in whitening.items()}, tmp_path / "activation_whitening.safetensors")
        z = (x - mean) @ matrix
        if architecture in ("topk", "batchtopk"):
            norms = np.linalg.norm(w["W_dec"], axis=1)
            pre = ((z - w["b_dec"] * centred) @ w["W_enc"] + w["b_enc"]) * norms
            f = top_k(pre) if architecture == "topk" else pre * (pre > 0.6)
            z_hat = (f / norms) @ w["W_dec"] + w["b_dec"]
        else:
            f = self.encoded(w, z, architecture, centred)
            z_hat = f @ w["W_dec"] + w["b_dec"]
        agrees(ts.read_dictionary(tmp_path), x, f, z_hat @ np.linalg.inv(matrix) + mean)

    def test_before_version_6(self, tmp_path):
        w, x = drawn()
        cfg = {
            "hook_point": "blocks.5.hook_resid_pre",
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": K},
            "model_name": "gpt2-small",
            "normalize_activations": False,
            "metadata": None,
        }
        found = ts.read_dictionary(saelens(tmp_path, cfg, tensors(w, *STANDARD, scaling_factor=np.ones(N, np.float32))))
        f = top_k((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        said = {"model": "gpt2-small", "hook_name": "blocks.5.hook_resid_pre", "site": "resid_pre", "layer": 5}
        assert found.metadata.items() >= said.items()

    def test_a_finetuning_scale_is_in_what_is_written(self, tmp_path):
        w, x = drawn()
        factor = np.linspace(0.5, 1.5, N, dtype=np.float32)
        values = tensors(w, *STANDARD, scaling_factor=factor)
        f = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        found = ts.read_dictionary(saelens(tmp_path, {"finetuning_scaling_factor": True}, values))
        agrees(found, x, f, (f * factor) @ w["W_dec"] + w["b_dec"])
        with pytest.raises(FormatError, match="finetuning_scaling_factor is off"):
            ts.read_dictionary(saelens(tmp_path, {"finetuning_scaling_factor": False}, values))

    def test_log_thresholds_and_frequencies_and_heads(self, tmp_path):
        w, x = drawn()
        values = tensors(w, *STANDARD, log_threshold=np.log(w["threshold"]))
        cfg = {"architecture": "jumprelu", "metadata": {"hook_name": "blocks.3.attn.hook_z"}, "reshape_activations": "hook_z"}
        rates = np.linspace(0, 0.5, N)
        saelens(tmp_path, cfg, values)
        save_file({"sparsity": torch.from_numpy(np.log10(rates + 1e-10))}, tmp_path / "sparsity.safetensors")
        found = ts.read_dictionary(tmp_path)
        f = self.encoded(w, x, "jumprelu", True)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata.items() >= {"site": "z", "layer": 4, "reshape_activations": "hook_z", "num_dead_features": 1}.items()
        assert found.metadata["l0"] == pytest.approx(rates.sum(), abs=1e-6)

    @pytest.mark.parametrize(
        ("cfg", "error", "said"),
        [
            ({"architecture": "skip_transcoder"}, FormatError, "is of a transcoder"),
            ({"architecture": "standard", "metadata": {"hook_name_out": "blocks.1.hook_mlp_out"}}, FormatError, "is of a transcoder"),
            ({"architecture": "abstopk", "k": 3}, UnknownName, r"unknown architecture of .*'abstopk'.*topk"),
            ({"activation_fn": "tanh-relu"}, UnknownName, "unknown activation_fn of .*'tanh-relu'"),
            ({"normalize_activations": "l2"}, UnknownName, "unknown normalize_activations of .*'l2'"),
            ({"architecture": "topk", "k": 0}, FormatError, "k is 0 where 1 to 24"),
            ({"architecture": "topk", "k": 25}, FormatError, "k is 25 where 1 to 24"),
            ({"architecture": "topk"}, FormatError, "k is None where 1 to 24"),
            ({"d_sae": 0}, FormatError, "d_sae is 0 where a whole number above 0"),
            ({"d_sae": 16}, FormatError, r"W_enc is \(8, 24\) where \(8, 16\) was expected"),
            (
                {"architecture": "jumprelu"},
                FormatError,
                "lacks threshold, which a SAELens dictionary of its kind has; it holds W_dec, W_enc",
            ),
        ],
    )
    def test_what_cannot_be_read(self, tmp_path, cfg, error, said):
        w, _ = drawn()
        with pytest.raises(error, match=said):
            ts.read_dictionary(saelens(tmp_path, cfg, tensors(w, *STANDARD)))

    def test_a_tensor_nobody_knows_is_refused(self, tmp_path):
        w, _ = drawn()
        with pytest.raises(FormatError, match="also holds W_skip, which this version does not know"):
            ts.read_dictionary(saelens(tmp_path, {}, tensors(w, *STANDARD, W_skip=np.eye(D, dtype=np.float32))))


class TestSparsify:
    def save(self, folder, settings, w, dtype=torch.float32, **more):
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "activation": "topk",
            "k": K,
            "d_in": D,
            "expansion_factor": N // D,
            "num_latents": 0,
            "normalize_decoder": True,
        } | settings
        (folder / "cfg.json").write_text(json.dumps(settings))
        parts = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
        save_file(tensors(w, "W_dec", "b_dec", dtype=dtype, **parts, **more), folder / "sae.safetensors")
        return folder

    @pytest.mark.parametrize("latents", [0, N, None])
    def test_top_k(self, tmp_path, latents):
        w, x = drawn()
        found = ts.read_dictionary(self.save(tmp_path / "layers.10", {"num_latents": latents}, w))
        f = top_k((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata.items() >= {"hook_name": "layers.10", "layer": 11, "site": "resid_post"}.items()

    def test_groups(self, tmp_path):
        w, x = drawn()
        found = ts.read_dictionary(self.save(tmp_path / "layers.5.mlp", {"activation": "groupmax", "k": 6}, w))
        pre = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).reshape(40, 6, 4)
        f = (pre * (pre == pre.max(2, keepdims=True))).reshape(40, N)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata.items() >= {"site": "mlp", "layer": 6}.items()

    def test_a_skip_connection(self, tmp_path):
        w, x = drawn()
        skip = np.random.default_rng(2).normal(size=(D, D)).astype(np.float32)
        found = ts.read_dictionary(self.save(tmp_path / "h.3", {"skip_connection": True}, w, W_skip=skip))
        f = top_k((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"] + x @ skip.T)

    def test_bfloat16(self, tmp_path):
        w, x = drawn()
        found = ts.read_dictionary(self.save(tmp_path, {}, w, dtype=torch.bfloat16))
        short = {name: torch.from_numpy(value).bfloat16().float().numpy() for name, value in w.items()}
        f = top_k((x - short["b_dec"]) @ short["W_enc"] + short["b_enc"])
        agrees(found, x, f, f @ short["W_dec"] + short["b_dec"])
        assert found.metadata["dtype"] == "bfloat16"
        assert found.decoder.dtype == torch.float32

    def test_what_its_run_says(self, tmp_path):
        w, _ = drawn()
        self.save(tmp_path / "layers.1", {}, w)
        (tmp_path / "config.json").write_text('{"model": "EleutherAI/pythia-160m", "ctx_len": 2048}')
        assert (
            ts.read_dictionary(tmp_path / "layers.1").metadata.items() >= {"model": "EleutherAI/pythia-160m", "context_size": 2048}.items()
        )

    @pytest.mark.parametrize(
        ("settings", "error", "said"),
        [
            ({"transcode": True}, FormatError, "is of a transcoder"),
            ({"signed": True}, FormatError, "signed latents, which fire in both directions"),
            ({"skip_connection": True}, FormatError, r"skip_connection is True, and 'sae\.safetensors' says otherwise"),
            ({"activation": "relu"}, UnknownName, "unknown activation of a sparsify dictionary 'relu'"),
            ({"activation": "groupmax", "k": 7}, FormatError, "24 latents do not divide into 7 groups"),
            ({"k": 0}, FormatError, "k is 0 where"),
            ({"num_latents": 16}, FormatError, r"encoder\.weight is \(24, 8\) where \(16, 8\)"),
            ({"expansion_factor": 0}, FormatError, "expansion_factor is 0"),
            ({"d_in": None}, FormatError, "d_in is None"),
        ],
    )
    def test_what_cannot_be_read(self, tmp_path, settings, error, said):
        with pytest.raises(error, match=said):
            ts.read_dictionary(self.save(tmp_path, settings, drawn()[0]))


class TestDictionaryLearning:
    def save(self, folder, kind, w, trainer=None, **more):
        folder.mkdir(parents=True, exist_ok=True)
        config = {"trainer": {"dict_class": kind, "layer": 8, "lm_name": "EleutherAI/pythia-70m-deduped", "k": K} | (trainer or {})}
        (folder / "config.json").write_text(json.dumps(config | {"buffer": {"ctx_len": 128}}))
        linear = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T}
        parts = {
            "AutoEncoder": linear | {"encoder.bias": w["b_enc"], "bias": w["b_dec"]},
            "AutoEncoderNew": linear | {"encoder.bias": w["b_enc"], "decoder.bias": w["b_dec"]},
            "GatedAutoEncoder": linear
            | {"decoder_bias": w["b_dec"], "r_mag": w["r_mag"], "gate_bias": w["b_gate"], "mag_bias": w["b_mag"]},
            "JumpReluAutoEncoder": {name: w[name] for name in (*STANDARD, "threshold")},
            "AutoEncoderTopK": linear | {"encoder.bias": w["b_enc"], "b_dec": w["b_dec"], "k": np.int32(K), "threshold": np.float32(0.4)},
            "BatchTopKSAE": linear | {"encoder.bias": w["b_enc"], "b_dec": w["b_dec"], "k": np.int32(K), "threshold": np.float32(0.4)},
            "MatryoshkaBatchTopKSAE": {name: w[name] for name in STANDARD}
            | {"k": np.int32(K), "threshold": np.float32(0.4), "group_sizes": np.array([8, 16])},
        }[kind]
        state = {name: torch.from_numpy(np.ascontiguousarray(value)).reshape(np.shape(value)) for name, value in (parts | more).items()}
        torch.save(state, folder / "ae.pt")
        return folder

    def encoded(self, kind, w, x):
        centred = x - w["b_dec"]
        pre = centred @ w["W_enc"].astype(float) + w["b_enc"]
        raw = x @ w["W_enc"].astype(float) + w["b_enc"]
        gate = centred @ w["W_enc"]
        return {
            "AutoEncoder": relu(pre),
            "AutoEncoderNew": relu(raw),
            "GatedAutoEncoder": (gate + w["b_gate"] > 0) * relu(np.exp(w["r_mag"]) * gate + w["b_mag"]),
            "JumpReluAutoEncoder": relu(raw) * (raw > w["threshold"]),
            "AutoEncoderTopK": top_k(pre),
            "BatchTopKSAE": pre * (pre > np.float32(0.4)),
            "MatryoshkaBatchTopKSAE": pre * (pre > np.float32(0.4)),
        }[kind]

    @pytest.mark.parametrize(
        "kind",
        [
            "AutoEncoder",
            "AutoEncoderNew",
            "GatedAutoEncoder",
            "JumpReluAutoEncoder",
            "AutoEncoderTopK",
            "BatchTopKSAE",
            "MatryoshkaBatchTopKSAE",
        ],
    )
    @pytest.mark.parametrize("told", [True, False])
    def test_classes(self, tmp_path, kind, told):
        w, x = drawn()
        folder = self.save(tmp_path / "trainer_0", kind, w)
        if not told:
            (folder / "config.json").unlink()
            if kind in ("AutoEncoderTopK", "BatchTopKSAE"):
                with pytest.raises(FormatError, match="of AutoEncoderTopK and of BatchTopKSAE, which encode differently"):
                    ts.read_dictionary(folder)
                return
        found = ts.read_dictionary(folder)
        f = self.encoded(kind, w, x)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        if told:
            assert found.metadata.items() >= {"layer": 9, "site": "resid_post", "model": "EleutherAI/pythia-70m-deduped", "k": K}.items()

    def test_a_threshold_never_set_lets_all_positive_ones_through_and_is_said(self, tmp_path):
        w, x = drawn()
        found = ts.read_dictionary(self.save(tmp_path, "BatchTopKSAE", w, threshold=np.float32(-1)))
        f = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata["threshold_unset"]

    @pytest.mark.parametrize("whole", [True, False])
    def test_the_normaliser_of_a_diff_sae(self, tmp_path, whole):
        """(x − mean) · scale first, undone on the way out; scale is one number, or each feature has its own standard deviation."""
        w, x = drawn()
        rng = np.random.default_rng(5)
        mean, std = rng.normal(size=D).astype(np.float32), rng.uniform(0.5, 2, size=D).astype(np.float32)
        scale = 1.7 / np.sqrt((std**2).sum()) if whole else 1 / std
        normaliser = {"activation_mean": mean, "activation_std": std, "target_rms": np.float32(1.7)}
        normaliser["activation_global_scale"] = np.float32(scale if whole else 1)
        found = ts.read_dictionary(self.save(tmp_path, "BatchTopKSAE", w, **normaliser))
        f = self.encoded("BatchTopKSAE", w, (x - mean) * scale)
        agrees(found, x, f, (f @ w["W_dec"] + w["b_dec"]) / scale + mean)

    def test_a_mean_of_nan_is_no_normaliser(self, tmp_path):
        w, x = drawn()
        nothing = {"activation_mean": np.full(D, np.nan, np.float32), "activation_std": np.full(D, np.nan, np.float32)}
        nothing |= {"activation_global_scale": np.float32(1), "target_rms": np.float32(1)}
        f = self.encoded("BatchTopKSAE", w, x)
        agrees(ts.read_dictionary(self.save(tmp_path, "BatchTopKSAE", w, **nothing)), x, f, f @ w["W_dec"] + w["b_dec"])

    def test_checkpoints_find_the_config_above_them(self, tmp_path):
        folder = self.save(tmp_path, "AutoEncoderTopK", drawn()[0])
        (folder / "checkpoints").mkdir()
        os.replace(folder / "ae.pt", folder / "checkpoints" / "ae_500.pt")
        assert ts.read_dictionary(folder / "checkpoints" / "ae_500.pt").firing == TopK(K)

    @pytest.mark.parametrize(
        ("content", "error", "said"),
        [
            (
                {"step": 1000, "ae": {}, "optimizer": {}, "config": {}, "norm_factor": 2.0},
                FormatError,
                r"backup of an unfinished training \(step 1,000\)",
            ),
            ({"encoder.weight": torch.zeros(2, D, N)}, FormatError, "is a crosscoder: it reads several places at once"),
            ({"encoder.weight": torch.zeros(N, D), "note": "x"}, FormatError, "holds more than tensors"),
            ([torch.zeros(2)], FormatError, "holds a list where a dict of tensors was expected"),
            (Relu(), UnsafeWeights, "could run code when it is opened"),
        ],
    )
    def test_what_cannot_be_read(self, tmp_path, content, error, said):
        torch.save(content, tmp_path / "ae.pt")
        with pytest.raises(error, match=said):
            ts.read_dictionary(tmp_path)

    def test_a_class_nobody_knows(self, tmp_path):
        folder = self.save(tmp_path, "AutoEncoder", drawn()[0], trainer={"dict_class": "IdentityDict"})
        with pytest.raises(UnknownName, match="unknown dict_class in the config of .*'IdentityDict'"):
            ts.read_dictionary(folder)


class TestReleases:
    def test_llama_scope(self, tmp_path):
        w, x = drawn()
        (tmp_path / "checkpoints").mkdir()
        settings = {"d_model": D, "d_sae": N, "jump_relu_threshold": 0.5, "dataset_average_activation_norm": {"in": 5.0}}
        (tmp_path / "hyperparams.json").write_text(json.dumps(settings | {"hook_point_in": "blocks.15.hook_resid_post"}))
        parts = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, "encoder.bias": w["b_enc"], "decoder.bias": w["b_dec"]}
        save_file(tensors(w, **parts), tmp_path / "checkpoints" / "final.safetensors")
        s = D**0.5 / 5
        pre = (x * s) @ w["W_enc"] + w["b_enc"]
        f = relu(pre) * (pre > 0.5 * s)
        found = ts.read_dictionary(tmp_path)
        agrees(found, x, f, (f @ w["W_dec"] + w["b_dec"]) / s)
        assert found.metadata["layer"] == 16

    def test_qwen_scope(self, tmp_path):
        w, x = drawn()
        folder = tmp_path / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"
        folder.mkdir()
        torch.save(tensors(w, "b_enc", "b_dec", W_enc=w["W_enc"].T, W_dec=w["W_dec"].T), folder / "layer7.sae.pt")
        f = top_k(x @ w["W_enc"] + w["b_enc"])
        found = ts.read_dictionary(folder)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata.items() >= {"layer": 8, "model": "Qwen/Qwen3-1.7B-Base"}.items()
        os.rename(folder, tmp_path / "mine")
        with pytest.raises(
            InputError, match="does not say how many latents are active; keep it in a folder with the name of its repository"
        ):
            ts.read_dictionary(tmp_path / "mine" / "layer7.sae.pt")

    def test_goodfire(self, tmp_path):
        w, x = drawn()
        parts = {"encoder": (w["W_enc"].T, w["b_enc"]), "decoder": (w["W_dec"].T, w["b_dec"])}
        named = {
            f"{side}_linear.{name}": value for side, both in parts.items() for name, value in zip(("weight", "bias"), both, strict=True)
        }
        torch.save(tensors(w, **named), tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth")
        f = relu(x @ w["W_enc"] + w["b_enc"])
        found = ts.read_dictionary(tmp_path)
        agrees(found, x, f, f @ w["W_dec"] + w["b_dec"])
        assert found.metadata.items() >= {"layer": 20, "model": "meta-llama/Llama-3.1-8B-Instruct"}.items()

    @pytest.mark.parametrize("kind", ["ReLU", "TopK"])
    def test_openai(self, tmp_path, kind):
        """Of TopK, tokens are scaled to mean 0 and deviation 1 (of d − 1) first."""
        w, x = drawn()
        parts = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, "latent_bias": w["b_enc"], "pre_bias": w["b_dec"]}
        settings = {"activation": kind, "activation_state_dict": {"k": K, "postact_fn": "ReLU"} if kind == "TopK" else {}}
        torch.save(tensors(w, **parts) | settings, tmp_path / "5.pt")
        mean, std = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
        z = (x - mean) / (std + 1e-5) if kind == "TopK" else x
        pre = (z - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        f = top_k(pre) if kind == "TopK" else relu(pre)
        x_hat = f @ w["W_dec"] + w["b_dec"]
        agrees(ts.read_dictionary(tmp_path / "5.pt"), x, f, x_hat * std + mean if kind == "TopK" else x_hat)


class TestDamage:
    """Whatever is done to a file, the answer is the dictionary or one line that names the file; never a wrong dictionary."""

    SAVED = {
        "gemma-scope": lambda folder, w: np.savez(folder / "params.npz", **{name: w[name] for name in (*STANDARD, "threshold")}),
        "gemma-scope-2": lambda folder, w: save_file(
            tensors(w, "b_enc", "b_dec", "threshold", w_enc=w["W_enc"], w_dec=w["W_dec"]), folder / "params.safetensors"
        ),
        "saelens": lambda folder, w: saelens(folder, {"architecture": "jumprelu"}, tensors(w, *STANDARD, "threshold")),
        "sparsify": lambda folder, w: TestSparsify().save(folder, {}, w),
        "dictionary_learning": lambda folder, w: TestDictionaryLearning().save(folder, "AutoEncoder", w),
    }

    @pytest.mark.parametrize("format", SAVED)
    @pytest.mark.parametrize("part", ["W_enc", "W_dec"])
    def test_a_transposed_matrix(self, tmp_path, format, part):
        w, _ = drawn()
        self.SAVED[format](tmp_path, w | {part: w[part].T})
        with pytest.raises(
            FormatError, match=r"is \(\d+, \d+\) where \(\d+, \d+\) was expected; it is transposed, or of another dictionary"
        ):
            ts.read_dictionary(tmp_path)

    @pytest.mark.parametrize("format", SAVED)
    def test_a_bias_of_another_dictionary(self, tmp_path, format):
        w, _ = drawn()
        self.SAVED[format](tmp_path, w | {"b_dec": np.zeros(D + 1, np.float32)})
        with pytest.raises(FormatError, match="where .* was expected"):
            ts.read_dictionary(tmp_path)

    @pytest.mark.parametrize("format", SAVED)
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_none(self, tmp_path, format, value):
        w, _ = drawn()
        w["W_dec"][3, 2] = value
        self.SAVED[format](tmp_path, w)
        with pytest.raises(ActivationError, match=r"the weights of '.*' hold (NaN|Inf) in (W_dec|w_dec|decoder\.weight)"):
            ts.read_dictionary(tmp_path)

    @pytest.mark.parametrize("format", SAVED)
    @pytest.mark.parametrize("share", [0, 0.5, 0.9])
    def test_a_file_that_is_cut_off(self, tmp_path, format, share):
        self.SAVED[format](tmp_path, drawn()[0])
        weights = next(file for file in tmp_path.iterdir() if file.suffix in (".npz", ".safetensors", ".pt"))
        weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
        with pytest.raises((FormatError, UnsafeWeights), match=weights.name.replace(".", r"\.")):
            ts.read_dictionary(tmp_path)

    @pytest.mark.parametrize(("format", "name"), [("saelens", "cfg.json"), ("sparsify", "cfg.json")])
    @pytest.mark.parametrize("content", [None, "", "[]", '{"d_in": "8"}'])
    def test_settings_that_are_missing_or_broken(self, tmp_path, format, name, content):
        self.SAVED[format](tmp_path, drawn()[0])
        (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
        with pytest.raises(FormatError, match=r"cfg\.json"):
            ts.read_dictionary(tmp_path)

    @pytest.mark.parametrize("format", ["gemma-scope", "saelens", "sparsify"])
    def test_a_missing_tensor(self, tmp_path, format):
        w, _ = drawn()
        self.SAVED[format](tmp_path, w)
        if format == "gemma-scope":
            np.savez(tmp_path / "params.npz", **{name: w[name] for name in STANDARD})
        else:
            file = next(tmp_path.glob("*.safetensors"))
            save_file({name: value for name, value in load_file(file).items() if name != "W_dec"}, file)
        with pytest.raises(FormatError, match="lacks (threshold|W_dec), which a .* dictionary of its kind has; it holds"):
            ts.read_dictionary(tmp_path)

    def test_no_dictionary_there(self, tmp_path):
        with pytest.raises(FormatError, match=r"no dictionary at '.*nowhere': there is no such folder or file; fetch it first"):
            ts.read_dictionary(tmp_path / "nowhere")
        with pytest.raises(FormatError, match=r"no dictionary in '.*': it has none of params\.npz"):
            ts.read_dictionary(tmp_path)
        (tmp_path / "a.bin").write_bytes(b"x")
        with pytest.raises(FormatError, match="is no file of weights that this version knows"):
            ts.read_dictionary(tmp_path / "a.bin")

    def test_the_dictionaries_below_a_folder_are_named(self, tmp_path):
        for layer in range(6):
            folder = tmp_path / f"layer_{layer}"
            folder.mkdir()
            self.SAVED["gemma-scope"](folder, drawn()[0])
        with pytest.raises(FormatError, match="holds 6 dictionaries below it; name one: layer_0, layer_1, layer_2, layer_3, …"):
            ts.read_dictionary(tmp_path)


@pytest.mark.parametrize("threshold", ["each", "one"])
def test_the_threshold_is_strict(tmp_path, threshold):
    """At pre == threshold a latent does not fire; one float above, it does. Whole numbers, so that pre is exact."""
    eye = np.eye(D, dtype=np.float32)
    state = {"W_enc": eye, "W_dec": eye, "b_enc": np.zeros(D, np.float32), "b_dec": np.zeros(D, np.float32)}
    if threshold == "each":
        np.savez(tmp_path / "params.npz", **state, threshold=np.full(D, 2, np.float32))
    else:
        (tmp_path / "config.json").write_text('{"trainer": {"dict_class": "MatryoshkaBatchTopKSAE"}}')
        state |= {"threshold": np.float32(2), "k": np.int32(2), "group_sizes": np.array([D])}
        torch.save({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}, tmp_path / "ae.pt")
    x = torch.full((3, D), 2.0)
    x[1] = torch.nextafter(torch.tensor(2.0), torch.tensor(3.0))
    x[2] = torch.nextafter(torch.tensor(2.0), torch.tensor(1.0))
    assert torch.equal(ts.read_dictionary(tmp_path).encode(x), torch.stack([torch.zeros(D), x[1], torch.zeros(D)]))


@pytest.mark.parametrize(
    ("name", "layer", "site"),
    [
        ("blocks.12.hook_resid_post", 13, "resid_post"),
        ("blocks.12.hook_resid_pre", 12, "resid_pre"),
        ("blocks.3.attn.hook_z", 4, "z"),
        ("blocks.3.hook_mlp_out", 4, "mlp_out"),
        ("model.layers.12.output", 13, "resid_post"),
        ("model.layers.12", 13, "resid_post"),
        ("model.layers.4.self_attn.o_proj.input", 5, "self_attn.o_proj.input"),
        ("layers.10", 11, "resid_post"),
        ("layers.5.mlp", 6, "mlp"),
        ("gpt_neox.layers.0", 1, "resid_post"),
        ("transformer.h.3.attn", 4, "attn"),
        ("resid_post_layer_8", 9, "resid_post"),
        ("embed_tokens", 0, "embed"),
        ("something", None, None),
    ],
)
def test_names_of_places(name, layer, site):
    found = hook_point(name)
    assert (found["hook_name"], found.get("layer"), found.get("site")) == (name, layer, site)


def made(firing, seed=0, **more):
    w, _ = drawn(seed)
    parts = {name: torch.from_numpy(w[name]) for name in STANDARD}
    return Dictionary(parts["W_enc"], parts["b_enc"], parts["W_dec"], parts["b_dec"], firing, name="made", **more)


FIRING = {
    "standard": Relu(),
    "topk": TopK(K),
    "jumprelu": Threshold(torch.linspace(0.1, 0.8, N)),
    "batchtopk": Threshold(torch.tensor(0.4), "batchtopk"),
    "gated": Gated(torch.linspace(0.5, 2, N), torch.linspace(-0.3, 0.3, N)),
}


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("scaling", [None, to_constant_norm, to_layer_norm])
@pytest.mark.parametrize("firing", FIRING)
def test_what_is_saved_is_read_back(tmp_path, firing, scaling, centred):
    """gated goes through a logarithm and back; the others are the same numbers."""
    _, x = drawn()
    saved = made(FIRING[firing], scaling=scaling, centred=centred, metadata={"latents": N, "unexplained": float("nan"), "mean": [1.0, 2.0]})
    ts.save_dictionary(saved, tmp_path / "sae", model="gpt2", hook_name="blocks.4.hook_resid_post", prepend_bos=False)
    found = ts.read_dictionary(tmp_path / "sae")
    x = torch.from_numpy(x)
    torch.testing.assert_close(
        found.encode(x), saved.encode(x), **({"rtol": 1e-5, "atol": 1e-5} if firing == "gated" else {"rtol": 0, "atol": 0})
    )
    torch.testing.assert_close(found.reconstruct(x), saved.reconstruct(x), rtol=1e-5, atol=1e-5)
    assert found.metadata.items() >= {"model": "gpt2", "layer": 5, "prepend_bos": False}.items()
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]["tunescope"] == {
        "name": "made", "latents": N, "unexplained": None, "mean": [1.0, 2.0],
    }  # fmt: skip
    assert found.name == "made"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"firing": GroupMax(6)}, "fires by groupmax, which SAELens has no architecture for"),
        ({"skip": torch.eye(D)}, "has a skip connection"),
        ({"scaling": lambda x: (x, lambda out: out)}, "scales tokens in a way that SAELens does not know"),
        ({"metadata": {"made_by": object()}}, "metadata 'made_by' is a object, which cfg.json cannot hold"),
        ({"decoder": torch.full((N, D), torch.nan)}, "the weights of 'made' hold NaN in W_dec"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path, change, said):
    with pytest.raises(TunescopeError, match=said):
        ts.save_dictionary(replace(made(Relu()), **change), tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds something else \(notes\.txt\)"):
        ts.save_dictionary(made(Relu()), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_an_earlier_dictionary_is_replaced_whole(tmp_path):
    ts.save_dictionary(made(TopK(K)), tmp_path)
    ts.save_dictionary(made(Relu(), seed=1), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    assert torch.equal(ts.read_dictionary(tmp_path).decoder, made(Relu(), seed=1).decoder)


def test_a_kill_between_the_two_files_leaves_no_dictionary_of_mixed_parts(tmp_path):
    """Killed while files change places, the folder has no cfg.json: it is refused, and the next save makes it whole."""
    ts.save_dictionary(made(TopK(K)), tmp_path)
    program = """
import os, signal, sys, torch
import tunescope.dictionaries.formats.saelens_writer as writer
from tunescope.dictionaries import Dictionary
from tunescope.dictionaries.firing import Relu
real = os.replace
def replace(old, new):
    real(old, new)
    os.kill(os.getpid(), signal.SIGKILL)
writer.os.replace = replace
writer.save_dictionary(Dictionary(torch.ones(8, 24), torch.zeros(24), torch.ones(24, 8), torch.zeros(8), Relu()), sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    with pytest.raises(FormatError, match=r"cfg\.json"):
        ts.read_dictionary(tmp_path)
    ts.save_dictionary(made(Relu(), seed=1), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    assert torch.equal(ts.read_dictionary(tmp_path).decoder, made(Relu(), seed=1).decoder)
