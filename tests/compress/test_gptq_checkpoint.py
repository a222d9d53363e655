from __future__ import annotations

import json
import sys

import pytest
import torch

from idp.compress import compress as compressing
from idp.compress.compress import compress
from idp.compress.gptq_checkpoint import gptqmodel_settings
from idp.compress.layers import Layers
from idp.compress.recipe import find_recipe
from idp.errors import MissingExtraError, RecipeError
from idp.model.info import folder_info
from idp.model.load import load

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4, "initializer_range": 0.14}
LAYERS = Layers("lm_head", ("q_proj",), (64,))


@pytest.mark.slow
def test_the_result_is_a_gptq_checkpoint_that_answers_nearly_as_the_dense_model(dense_folder, some_text, tmp_path):
    dense = dense_folder(**WIDE)
    made = compress(dense, "gptqmodel:bits=4,group=32", tmp_path / "m", calibration=some_text)
    settings = json.loads((tmp_path / "m" / "config.json").read_text())["quantization_config"]
    assert (settings["quant_method"], settings["bits"], settings["group_size"]) == ("gptq", 4, 32)
    assert "gptq, 4 bits, groups of 32" in folder_info(tmp_path / "m").describe() == made.kind
    assert {"README.md", "compression.json", "recipe.yaml", "tokenizer.json"} <= {
        p.name for p in (tmp_path / "m").iterdir()
    }
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    with torch.no_grad():
        expected, found = (load(path, "cpu", "float32").model(input_ids=ids).logits for path in (dense, tmp_path / "m"))
    assert float(torch.corrcoef(torch.stack([expected.flatten(), found.flatten()]))[0, 1]) > 0.9
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_what_its_kernels_cannot_run_is_not_kept(dense_folder, some_text, tmp_path):
    with pytest.raises(RecipeError, match="cannot be run on this device.*GroupSize"):
        compress(dense_folder(hidden_size=48), "gptqmodel:group=16", tmp_path / "m", calibration=some_text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("group", "size"), [("32", 32), ("0", -1), ("auto", 64)])
def test_options_are_told_in_gptqmodels_words(group, size):
    filled = find_recipe(f"gptqmodel:bits=3,group={group},symmetric=false").fill(LAYERS)
    assert gptqmodel_settings(filled) == {"bits": 3, "group_size": size, "sym": False}


def test_recipes_of_llm_compressor_are_not_for_gptqmodel():
    assert gptqmodel_settings(find_recipe("gptq").fill(LAYERS)) is None
    assert find_recipe("gptq").by_compressor and not find_recipe("gptqmodel").by_compressor


def test_what_is_missing_is_told_before_anything_is_loaded(dense_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gptqmodel", None)
    monkeypatch.setattr(compressing, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    with pytest.raises(MissingExtraError, match=r"idp\[gptq\]"):
        compress(dense_folder(), "gptqmodel", tmp_path / "m")
