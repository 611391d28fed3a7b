"""Dictionaries written by the libraries that train them, and ours read by SAELens: their `encode` and `decode` are the oracle.

Needs the extra `peers`, and `pip install --no-deps dictionary-learning==0.1.0`; each library's tests are skipped where it is absent. Both
sides compute in float32 from the same numbers, in other orders where weights are folded: 2e-5 is allowed on values of size 1 to 10.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tunescope as ts
from tunescope.dictionaries import Dictionary
from tunescope.dictionaries.firing import Gated, Relu, Threshold, TopK
from tunescope.dictionaries.token_scaling import to_constant_norm, to_layer_norm

D, N, K = 16, 48, 6
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def peer(name):
    """The library, imported quietly, or the test skipped."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed (extra 'peers')")


@pytest.fixture(scope="module")
def sae_lens():
    return peer("sae_lens")


@pytest.fixture(scope="module")
def sparsify():
    return peer("sparsify.sparse_coder"), peer("sparsify.config")


@pytest.fixture(scope="module")
def dictionary_learning():
    """Without what it needs for training only."""
    for name in ("nnsight", "wandb"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].LanguageModel = object
    peer("dictionary_learning")
    return peer("dictionary_learning.dictionary"), *(
        peer(f"dictionary_learning.trainers.{name}") for name in ("top_k", "batch_top_k", "matryoshka_batch_top_k")
    )


def inputs(seed=0):
    return torch.randn(64, D, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.4


def stirred(module, seed=1):
    """Every parameter far from its trivial value: biases, thresholds above 0, decoder rows of norms .4 to 2."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "threshold" in name:
                parameter.copy_(0.1 + 0.8 * torch.rand(parameter.shape, generator=random))
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=random) / (D**0.5 if parameter.dim() == 2 else 2.0))
    return module


def same(found, x, f, x_hat):
    assert 0 < (f != 0).float().mean() < 1
    torch.testing.assert_close(found.encode(x), f, **CLOSE)
    torch.testing.assert_close(found.reconstruct(x), x_hat, **CLOSE)


def as_saelens(sae, x):
    with torch.no_grad():
        f = sae.encode(x)
        return f, sae.decode(f)


SCALINGS = ("none", "constant_norm_rescale", "layer_norm")


class TestSAELens:
    @pytest.mark.parametrize("normalisation", SCALINGS)
    @pytest.mark.parametrize("centred", [True, False])
    @pytest.mark.parametrize("kind", ["Standard", "TopK", "JumpReLU", "Gated"])
    def test_inference_folders(self, sae_lens, tmp_path, kind, centred, normalisation):
        more = {"k": K, "rescale_acts_by_decoder_norm": centred} if kind == "TopK" else {}
        config = getattr(sae_lens, f"{kind}SAEConfig")(
            d_in=D, d_sae=N, apply_b_dec_to_input=centred, normalize_activations=normalisation, **more
        )
        sae = stirred(getattr(sae_lens, f"{kind}SAE")(config))
        sae.save_model(tmp_path)
        x = inputs()
        same(ts.read_dictionary(tmp_path), x, *as_saelens(sae, x))

    @pytest.mark.parametrize("rescaled", [True, False])
    @pytest.mark.parametrize("kind", ["TopK", "BatchTopK", "MatryoshkaBatchTopK"])
    def test_training_checkpoints_are_what_their_inference_model_is(self, sae_lens, tmp_path, kind, rescaled):
        config = {"d_in": D, "d_sae": N, "k": K, "rescale_acts_by_decoder_norm": rescaled}
        config |= {"matryoshka_widths": [16, N]} if kind.startswith("M") else {}
        sae = stirred(getattr(sae_lens, f"{kind}TrainingSAE")(getattr(sae_lens, f"{kind}TrainingSAEConfig")(**config)))
        if kind != "TopK":
            sae.topk_threshold.fill_(0.6)
        sae.save_model(tmp_path / "checkpoint")
        sae.save_inference_model(tmp_path / "finished")
        x = inputs()
        oracle = as_saelens(sae_lens.SAE.load_from_disk(tmp_path / "finished"), x)
        same(ts.read_dictionary(tmp_path / "checkpoint"), x, *oracle)
        same(ts.read_dictionary(tmp_path / "finished"), x, *oracle)

    @pytest.mark.parametrize("rescaled", [True, False])
    @pytest.mark.parametrize("kind", ["Standard", "TopK", "BatchTopK", "JumpReLU", "Gated"])
    def test_a_constant_factor_of_a_checkpoint(self, sae_lens, tmp_path, kind, rescaled):
        config = {"d_in": D, "d_sae": N, "normalize_activations": "expected_average_only_in"}
        config |= {"k": K, "rescale_acts_by_decoder_norm": rescaled} if "TopK" in kind else {}
        sae = stirred(getattr(sae_lens, f"{kind}TrainingSAE")(getattr(sae_lens, f"{kind}TrainingSAEConfig")(**config)))
        if kind == "BatchTopK":
            sae.topk_threshold.fill_(0.6)
        sae.save_model(tmp_path / "checkpoint")
        scaler = peer("sae_lens.training.activation_scaler").ActivationScaler(scaling_factor=0.4)
        scaler.save(str(tmp_path / "checkpoint" / "activation_scaler.json"))
        sae.fold_activation_norm_scaling_factor(0.4)
        sae.save_inference_model(tmp_path / "finished")
        x = inputs() * 2
        same(ts.read_dictionary(tmp_path / "checkpoint"), x, *as_saelens(sae_lens.SAE.load_from_disk(tmp_path / "finished"), x))

    @pytest.mark.parametrize("centred", [True, False])
    @pytest.mark.parametrize("kind", ["Standard", "TopK", "BatchTopK", "Gated"])
    def test_whitening_of_a_checkpoint(self, sae_lens, tmp_path, kind, centred):
        module = peer("sae_lens.training.activation_scaler")
        config = {"d_in": D, "d_sae": N, "normalize_activations": "covariance_whitening", "apply_b_dec_to_input": centred}
        config |= {"k": K} if "TopK" in kind else {}
        sae = stirred(getattr(sae_lens, f"{kind}TrainingSAE")(getattr(sae_lens, f"{kind}TrainingSAEConfig")(**config)))
        if kind == "BatchTopK":
            sae.topk_threshold.fill_(0.6)
        sae.save_model(tmp_path / "checkpoint")
        random = torch.Generator().manual_seed(4)
        matrix = torch.randn(D, D, generator=random, dtype=torch.float64) / D**0.5 + torch.eye(D)
        whitening = module.ActivationWhitening(torch.randn(D, generator=random, dtype=torch.float64), matrix, matrix.inverse().contiguous())
        module.ActivationScaler(whitening=whitening).save(str(tmp_path / "checkpoint" / "activation_scaler.json"))
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
        sae.save_inference_model(tmp_path / "finished")
        x = inputs()
        found, oracle = ts.read_dictionary(tmp_path / "checkpoint"), as_saelens(sae_lens.SAE.load_from_disk(tmp_path / "finished"), x)
        torch.testing.assert_close(found.encode(x), oracle[0], rtol=1e-4, atol=1e-4)  # an inverse of condition 10 to 100 is folded
        torch.testing.assert_close(found.reconstruct(x), oracle[1], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("architecture", ["standard", "topk"])
    def test_before_version_6(self, sae_lens, tmp_path, architecture):
        sae = stirred(sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=D, d_sae=N)))
        sae.save_model(tmp_path)
        cfg = {
            "d_in": D,
            "d_sae": N,
            "dtype": "float32",
            "device": "cpu",
            "hook_point": "blocks.2.hook_resid_pre",
            "model_name": "gpt2-small",
        }
        cfg |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}} if architecture == "topk" else {"activation_fn_str": "relu"}
        (tmp_path / "cfg.json").write_text(json.dumps(cfg))
        x = inputs()
        same(ts.read_dictionary(tmp_path), x, *as_saelens(sae_lens.SAE.load_from_disk(tmp_path), x))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_half_precision(self, sae_lens, tmp_path, dtype):
        """Read as float32, where SAELens is asked for float32 too."""
        sae = stirred(sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(d_in=D, d_sae=N, dtype=dtype)))
        sae.save_model(tmp_path)
        x = inputs()
        same(ts.read_dictionary(tmp_path), x, *as_saelens(sae_lens.SAE.load_from_disk(tmp_path, dtype="float32"), x))

    @pytest.mark.parametrize("centred", [True, False])
    @pytest.mark.parametrize("scaling", [None, to_constant_norm, to_layer_norm])
    @pytest.mark.parametrize("firing", ["standard", "topk", "jumprelu", "batchtopk", "gated"])
    def test_opens_what_we_save(self, sae_lens, tmp_path, firing, scaling, centred):
        random = torch.Generator().manual_seed(3)

        def some(*shape):
            return torch.randn(*shape, generator=random) / (D**0.5 if len(shape) == 2 else 2)

        kinds = {
            "standard": Relu(),
            "topk": TopK(K),
            "jumprelu": Threshold(some(N).abs()),
            "batchtopk": Threshold(torch.tensor(0.5), "batchtopk"),
            "gated": Gated(some(N).exp(), some(N)),
        }
        metadata = {"latents": N, "seed": 0, "schedule": {"steps": 3}}
        made = Dictionary(some(D, N), some(N), some(N, D), some(D), kinds[firing], centred, scaling, metadata=metadata)
        ts.save_dictionary(made, tmp_path, model="gpt2", hook_name="blocks.4.hook_resid_post", prepend_bos=True, context_size=128)
        sae = sae_lens.SAE.load_from_disk(tmp_path)
        x = inputs()
        same(made, x, *as_saelens(sae, x))
        same(ts.read_dictionary(tmp_path), x, *as_saelens(sae, x))
        told = sae.cfg.metadata
        assert (told.model_name, told.hook_name, told.prepend_bos, told.context_size) == ("gpt2", "blocks.4.hook_resid_post", True, 128)
        assert sae.cfg.architecture() == {"batchtopk": "jumprelu"}.get(firing, firing)


class TestReleases:
    """Through SAELens' converters, whose download is a file of ours."""

    @pytest.fixture
    def hub(self, sae_lens, tmp_path, monkeypatch):
        loaders = importlib.import_module("sae_lens.loading.pretrained_sae_loaders")

        def download(repo_id, filename, subfolder=None, **_):
            return str(tmp_path.joinpath(repo_id.split("/")[-1], *((subfolder,) if subfolder else ()), filename))

        def shapes(repo_id, filename):
            from safetensors import safe_open

            with safe_open(download(repo_id, filename), framework="pt") as file:
                return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

        monkeypatch.setattr(loaders, "hf_hub_download", download)
        monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
        return loaders

    def weights(self, width=D, latents=N):
        random = np.random.default_rng(0)
        return {
            "W_enc": random.normal(size=(width, latents)) / width**0.5,
            "W_dec": random.normal(size=(latents, width)) / width**0.5,
            "b_enc": random.normal(size=latents) * 0.5,
            "b_dec": random.normal(size=width) * 0.5,
            "threshold": random.uniform(0.1, 0.8, size=latents),
        }

    def converted(self, sae_lens, cfg, state, *, factor=None):
        sae_module = importlib.import_module("sae_lens.saes.sae")
        cfg = sae_module.handle_config_defaulting(cfg)
        kind = sae_lens.SAE.get_sae_config_class_for_architecture(cfg["architecture"])
        sae = sae_lens.SAE.get_sae_class_for_architecture(cfg["architecture"])(kind.from_dict(cfg | {"d_sae": N}))
        sae.load_state_dict({name: value.float() for name, value in state.items()})
        if factor is not None:
            sae.fold_activation_norm_scaling_factor(factor)
        return sae

    @pytest.mark.parametrize("place", ["layer_20/width_16k/average_l0_71", "embedding/width_4k/average_l0_44"])
    def test_gemma_scope(self, sae_lens, hub, tmp_path, place):
        width = 2304  # the loader knows it by the release
        folder = tmp_path / "gemma-scope-2b-pt-res" / place
        folder.mkdir(parents=True)
        np.savez(folder / "params.npz", **{name: np.float32(value) for name, value in self.weights(width).items()})
        cfg, state, _ = hub.gemma_2_sae_huggingface_loader("google/gemma-scope-2b-pt-res", place)
        found, x = ts.read_dictionary(folder), torch.randn(32, width, generator=torch.Generator().manual_seed(0))
        x = x * width**0.5 if "embedding" in place else x
        same(found, x, *as_saelens(self.converted(sae_lens, cfg, state), x))
        assert found.metadata["hook_name"] == cfg["hook_name"]
        assert found.metadata["model"] == f"google/{cfg['model_name']}"

    @pytest.mark.parametrize("told", [True, False])
    def test_gemma_scope_2(self, sae_lens, hub, tmp_path, told):
        place = "resid_post/layer_12_width_16k_l0_small"
        folder = tmp_path / "gemma-scope-2-1b-pt" / place
        folder.mkdir(parents=True)
        values = {name.replace("W_", "w_"): torch.from_numpy(np.float32(value)) for name, value in self.weights().items()}
        save_file(values, folder / "params.safetensors")
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.12.output"}
        if not told:
            config = hub._infer_gemma_3_raw_cfg_dict("google/gemma-scope-2-1b-pt", place)
        (folder / "config.json").write_text(json.dumps(config))
        cfg, state, _ = hub.gemma_3_sae_huggingface_loader("google/gemma-scope-2-1b-pt", place)
        if not told:
            (folder / "config.json").unlink()
        x = inputs()
        found = ts.read_dictionary(folder)
        same(found, x, *as_saelens(self.converted(sae_lens, cfg, state), x))
        assert (found.metadata["hook_name"], found.metadata["model"]) == (cfg["hook_name"], cfg["model_name"])

    def test_llama_scope(self, sae_lens, hub, tmp_path):
        folder = tmp_path / "Llama3_1-8B-Base-LXR-8x" / "Llama3_1-8B-Base-L15R-8x"
        (folder / "checkpoints").mkdir(parents=True)
        settings = {"d_model": D, "d_sae": N, "jump_relu_threshold": 0.5, "dataset_average_activation_norm": {"in": 6.0}}
        (folder / "hyperparams.json").write_text(json.dumps(settings | {"hook_point_in": "blocks.15.hook_resid_post"}))
        w = {name: torch.from_numpy(np.float32(value)) for name, value in self.weights().items()}
        values = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, "encoder.bias": w["b_enc"], "decoder.bias": w["b_dec"]}
        save_file({name: value.contiguous() for name, value in values.items()}, folder / "checkpoints" / "final.safetensors")
        cfg, state, _ = hub.llama_scope_sae_huggingface_loader(
            "fnlp/Llama3_1-8B-Base-LXR-8x", folder.name, cfg_overrides={"dtype": "float32"}
        )
        x = inputs()
        same(ts.read_dictionary(folder), x, *as_saelens(self.converted(sae_lens, cfg, state, factor=D**0.5 / 6.0), x))

    def test_qwen_scope(self, sae_lens, hub, tmp_path):
        folder = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_6"
        folder.mkdir()
        w = {name: torch.from_numpy(np.float32(value)) for name, value in self.weights().items()}
        torch.save({"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T, "b_enc": w["b_enc"], "b_dec": w["b_dec"]}, folder / "layer7.sae.pt")
        cfg, state, _ = hub.qwen_scope_sae_huggingface_loader(f"Qwen/{folder.name}", "layer7.sae.pt")
        x = inputs()
        found = ts.read_dictionary(folder / "layer7.sae.pt")
        same(found, x, *as_saelens(self.converted(sae_lens, cfg | {"d_in": D}, state), x))
        assert found.metadata["hook_name"] == cfg["hook_name"]


class TestSparsify:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("settings", [{}, {"num_latents": N}, {"activation": "groupmax"}, {"skip_connection": True}], ids=str)
    def test_sparse_coders(self, sparsify, tmp_path, settings, dtype):
        """In bfloat16 the coder is run in float32 from the rounded weights."""
        coders, configs = sparsify
        coder = stirred(coders.SparseCoder(D, configs.SparseCoderConfig(k=K, expansion_factor=N // D, **settings))).to(dtype)
        coder.save_to_disk(tmp_path / "layers.3")
        coder = coders.SparseCoder.load_from_disk(tmp_path / "layers.3").float()
        x = inputs()
        with torch.no_grad():
            values, indices, _ = coder.encode(x)
            x_hat = coder(x).sae_out
        same(ts.read_dictionary(tmp_path / "layers.3"), x, torch.zeros(len(x), N).scatter(1, indices, values), x_hat)


class TestDictionaryLearning:
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
    def test_classes(self, dictionary_learning, tmp_path, kind):
        made = next(getattr(module, kind) for module in dictionary_learning if hasattr(module, kind))
        more = {"AutoEncoderTopK": {"k": K}, "BatchTopKSAE": {"k": K}, "MatryoshkaBatchTopKSAE": {"k": K, "group_sizes": [16, N - 16]}}
        sae = stirred(made(D, N, **more.get(kind, {})))
        if "TopK" in kind:
            sae.threshold.fill_(0.5)
        torch.save(sae.state_dict(), tmp_path / "ae.pt")
        config = {"trainer": {"dict_class": kind, "layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "k": K}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        x = inputs()
        with torch.no_grad():
            f = sae.encode(x)
            same(ts.read_dictionary(tmp_path), x, f, sae.decode(f))
