from __future__ import annotations

import pytest
import torch

from idp.compress.calibration import calibration_text
from idp.compress.layers import linear_layers
from idp.compress.oneshot import carry_out, require_compressor
from idp.compress.recipe import find_recipe, recipe_names
from idp.errors import MissingExtraError, RecipeError
from idp.model.load import load
from idp.model.view import decoder_layers


@pytest.fixture
def carried_out(dense_folder, some_text, watcher):
    """Carry out a recipe on a tiny model: the model, what came of it, and what was told."""

    def run(spec, **overrides):
        lm = load(dense_folder(**overrides), "cpu", "float32")
        told = watcher()
        steps = spec if isinstance(spec, dict) else find_recipe(spec).fill(linear_layers(lm))
        outcome = carry_out(lm, steps, calibration_text(lm, some_text).rows, observer=told)
        return lm, outcome, told

    return run


def zeros(lm):
    found = [lm.model.get_submodule(name).weight for name in linear_layers(lm).names]
    return [float((weight == 0).double().mean()) for weight in found]


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("option", ["sparsity=0.75", "structure=2:4"])
def test_as_much_is_pruned_as_asked_for(carried_out, method, option):
    lm, outcome, _ = carried_out(f"{method}:{option}")
    assert zeros(lm) == pytest.approx([0.75 if "sparsity" in option else 0.5] * 14, abs=0.02)
    assert outcome.unquantised == () and outcome.blocks == ()
    if option == "structure=2:4":
        weight = decoder_layers(lm)[1].mlp.down_proj.weight.reshape(-1, 4)
        assert ((weight == 0).sum(dim=1) == 2).all()


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in ("flexround-quick", "gptqmodel")])
def test_head_and_embeddings_are_left_alone(carried_out, tiny_lm, name, tied):
    spec = f"{name}:iterations=3" if "iterations" in find_recipe(name).options else name
    lm, _, _ = carried_out(spec, tie_word_embeddings=tied)
    before = tiny_lm(tie_word_embeddings=tied).model
    assert torch.equal(lm.model.get_output_embeddings().weight, before.get_output_embeddings().weight)
    assert torch.equal(lm.model.get_input_embeddings().weight, before.get_input_embeddings().weight)


def test_what_wanda_keeps_stays_what_it_was(carried_out, tiny_lm):
    lm, _, _ = carried_out("wanda")
    for name in linear_layers(lm).names:
        now, before = lm.model.get_submodule(name).weight, tiny_lm().model.get_submodule(name).weight
        assert torch.equal(now, torch.where(now == 0, 0, before))


@pytest.mark.parametrize("spec", ["rtn:bits=3", "gptq:bits=3", "awq:bits=3", "flexround:bits=3,iterations=3"])
def test_weights_lie_on_a_grid_of_as_many_values_as_the_bits_allow(carried_out, spec):
    lm, outcome, _ = carried_out(f"{spec},group=0")
    layer = decoder_layers(lm)[0].mlp.up_proj
    with torch.no_grad():
        effective = layer(torch.eye(layer.in_features)).T  # (out, in)
    values = (effective / layer.weight_scale).round()
    assert all(len(row.unique()) <= 8 for row in values)
    torch.testing.assert_close(effective, values * layer.weight_scale, atol=1e-5, rtol=0)
    assert outcome.unquantised == ()


def test_zeros_stay_zeros_when_what_is_left_is_quantised(carried_out):
    lm, _, _ = carried_out("wanda-flexround:bits=4,iterations=3,sparsity=0.5")
    assert min(zeros(lm)) >= 0.5


@pytest.mark.parametrize(
    ("spec", "total"), [("rtn", None), ("gptq", 2), ("sparsegpt-gptq", 4), ("flexround:iterations=5", 12)]
)
def test_progress_comes_to_what_was_announced(carried_out, spec, total):
    _, _, told = carried_out(spec)
    assert told.stages == [["compressing", total, total or 0]]


def test_layers_that_a_quantisation_leaves_out_are_named(carried_out):
    groups = {"all": {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel"}}}
    scheme = {"ignore": ["lm_head", "re:.*down_proj"], "config_groups": groups}
    _, outcome, _ = carried_out({"a_stage": {"a_modifiers": {"QuantizationModifier": scheme}}})
    assert [name.rpartition(".")[2] for name in outcome.unquantised] == ["down_proj"] * 2


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"a_stage": {"a_modifiers": {"NoSuchModifier": {}}}}, "does not understand.*NoSuchModifier"),
        ({"a_stage": {"a_modifiers": {"GPTQModifier": {"bits": 3}}}}, "does not understand the recipe"),
        ({"a_stage": {}}, "no modifiers"),
        (
            {"a_stage": {"a_modifiers": {"SparseGPTModifier": {"sparsity": 0.5, "targets": ["Nowhere"]}}}},
            "changed nothing in",
        ),
    ],
    ids=["unknown modifier", "unknown field", "empty", "no such layers"],
)
def test_what_llm_compressor_refuses_is_one_line(carried_out, recipe, message):
    with pytest.raises(RecipeError, match=message) as caught:
        carried_out(recipe)
    assert "\n" not in str(caught.value)


def test_an_architecture_whose_layers_awq_does_not_know_is_told_of(dense_folder, some_text):
    lm = load(dense_folder("opt"), "cpu", "float32")
    with pytest.raises(RecipeError, match="which layers of a OPTForCausalLM AWQ scales together. Use another"):
        carry_out(lm, find_recipe("awq").fill(linear_layers(lm)), calibration_text(lm, some_text).rows)


def test_without_llm_compressor_the_pip_line_is_told(without):
    without("llmcompressor")
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[compress\]'"):
        require_compressor()


def test_the_global_generator_is_left_alone(carried_out):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    carried_out("rtn")
    assert torch.equal(torch.rand(3), expected)
