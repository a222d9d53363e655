from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from idp.errors import ModelError
from idp.evaluate.damage.pair import require_alike
from idp.evaluate.damage.weights import MatrixError, combined, relative, weight_errors
from idp.model.loaded import LanguageModel


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("share", [0.01, 0.5, 2.0])
def test_a_known_change_has_the_known_error(tiny_lm, architecture, share):
    lm = tiny_lm(architecture)
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight *= 1 + share
    errors, uncompared = weight_errors(lm, LanguageModel(model, lm.tokenizer, "scaled"))
    assert not uncompared
    assert len(errors) == {"llama": 14, "gpt2": 8}[architecture]
    assert [each.error for each in errors] == pytest.approx([share] * len(errors), rel=1e-4)
    assert combined(errors) == pytest.approx(share, rel=1e-4)


def test_only_what_was_changed_differs(tiny_lm, changed):
    errors, _ = weight_errors(tiny_lm(), changed(tiny_lm(), 0.25, 1))
    assert {each.error for each in errors if each.layer == 0} == {0.0}
    assert [each.error for each in errors if each.layer == 1] == pytest.approx([0.25] * 7, rel=1e-5)


def test_a_layer_is_told_as_one_matrix():
    errors = [MatrixError(0, "a", "a", 3.0, 6.0), MatrixError(0, "b", "b", 4.0, 8.0)]
    assert combined(errors) == 5 / 10
    assert combined([MatrixError(0, "a", "a", 0.0, 0.0)]) == 0


def test_something_made_of_nothing_is_infinitely_wrong():
    assert (relative(0.0, 0.0), relative(1.0, 0.0), relative(1.0, 4.0)) == (0.0, math.inf, 0.25)


def test_what_has_no_counterpart_is_named(tiny_lm):
    lm = tiny_lm()
    model = copy.deepcopy(lm.model)
    layers = model.model.layers
    layers[0].mlp.extra = nn.Linear(4, 3)
    layers[1].mlp.up_proj = nn.Linear(32, 48)
    layers[1].mlp.gate_proj = nn.Identity()
    model.forward = lm.model.forward  # it could not be run like this
    errors, uncompared = weight_errors(lm, LanguageModel(model, lm.tokenizer, "odd"))
    assert len(errors) == 12
    assert {(each.layer, each.name): each.reason for each in uncompared} == {
        (0, "mlp.extra"): "only in the compressed model",
        (1, "mlp.gate_proj"): "only in the dense model",
        (1, "mlp.up_proj"): "64 x 32 in the dense model, 48 x 32 in the compressed one",
    }


def test_progress_is_told(tiny_lm):
    told = []
    weight_errors(tiny_lm(), tiny_lm(), told.append)
    assert told == [1, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"architecture": "mistral"}, "architecture is LlamaForCausalLM in one and MistralForCausalLM"),
        ({"num_hidden_layers": 3}, "number of layers is 2 in one and 3 in the other"),
        ({"hidden_size": 64}, "width is 32 in one and 64"),
        ({"vocab_size": 400}, "number of token embeddings is 384 in one and 400"),
    ],
)
def test_models_that_are_not_alike_are_refused(tiny_lm, other, message):
    with pytest.raises(ModelError, match=message) as refused:
        require_alike(tiny_lm(), tiny_lm(**other))
    assert "\n" not in str(refused.value)


def test_another_tokenizer_is_refused(tiny_lm):
    other = copy.deepcopy(tiny_lm().tokenizer)
    other.add_special_tokens({"unk_token": "<unk>"})
    with pytest.raises(ModelError, match="the tokenizer"):
        require_alike(tiny_lm(), LanguageModel(tiny_lm().model, other, "other"))


def test_a_model_without_a_list_of_layers_is_refused(tiny_lm):
    lm = tiny_lm()
    model = copy.deepcopy(lm.model)
    model.model.layers = nn.ParameterDict()
    model.forward = lm.model.forward
    with pytest.raises(ModelError, match="no list of decoder layers"):
        weight_errors(lm, LanguageModel(model, lm.tokenizer, "odd"))
