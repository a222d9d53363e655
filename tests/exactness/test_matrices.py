"""A matrix read off a layer is what the layer multiplies with, packed or not, in every architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from idp.evaluate.damage.matrices import Matrix, matrices
from idp.evaluate.damage.reading import read_both
from idp.evaluate.damage.weights import weight_errors
from idp.model.fingerprint import settle
from idp.model.loaded import LanguageModel
from idp.model.view import decoder_layers

CPU = torch.device("cpu")
ROWS = [tuple(range(3, 23)), tuple(range(40, 60)), tuple(range(100, 120))]


def whole(matrix: Matrix) -> torch.Tensor:
    return torch.cat(list(matrix.pieces(CPU, torch.float32)), dim=1)  # (out, in)


def test_a_matrix_is_what_its_module_does(subject):
    settle(subject.lm.model)
    found = matrices(decoder_layers(subject.lm)[1])
    linear = {name: matrix for name, matrix in found.items() if isinstance(matrix.source, nn.Module)}
    assert len(linear) >= 4
    generator = torch.Generator().manual_seed(0)
    for matrix in linear.values():
        x = torch.randn(3, matrix.shape[1], generator=generator)  # (B, in)
        with torch.no_grad():
            expected = matrix.source(x) - matrix.source(torch.zeros_like(x))  # (B, out)
        torch.testing.assert_close(x @ whole(matrix).T, expected, atol=2 * subject.atol, rtol=0)


def test_a_model_has_not_changed_from_itself(subject):
    errors, uncompared = weight_errors(subject.lm, subject.lm)
    assert [each.distance for each in errors] == [0] * len(errors)
    assert not uncompared
    reading = read_both(subject.lm, subject.lm, ROWS)
    assert reading.path == reading.own == (0.0, 0.0)
    assert (reading.kl.value, reading.same.value) == (0.0, 1.0)
    assert reading.dense_perplexity == reading.compressed_perplexity > 1


@pytest.mark.parametrize(("kernel", "rtol"), [("unpacked", 1e-6), ("packed", 2**-7)])  # bfloat16 has 8 bits
def test_a_gptq_checkpoint_gives_what_dequantising_gives(gptq, tiny_lm, kernel, rtol):
    model = AutoModelForCausalLM.from_pretrained(gptq, dtype=torch.float32)
    lm = LanguageModel(model, tiny_lm().tokenizer, "gptq")
    layer = decoder_layers(lm)[0]
    names = list(matrices(layer))
    assert len(names) == 7
    dequantised = {name: layer.get_submodule(name).dequantize_weight().T.float().clone() for name in names}
    if kernel == "unpacked":  # its first pass wants gradients
        lm.model(inputs_embeds=torch.zeros(1, 1, lm.hidden_size, requires_grad=True))
    else:
        settle(lm.model)
    for name, matrix in matrices(layer).items():
        torch.testing.assert_close(whole(matrix), dequantised[name], rtol=rtol, atol=1e-6)


def test_what_four_bits_cost(gptq, compressed_tensors, tiny_lm):
    dense = tiny_lm(hidden_size=64, intermediate_size=128, initializer_range=0.14)
    for folder in (gptq, compressed_tensors):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        errors, uncompared = weight_errors(dense, LanguageModel(model, dense.tokenizer, folder.name))
        assert len(errors) == 14 and not uncompared
        # Rounding to steps of s is off by s / sqrt(12), and 15 steps span some 4 deviations of 32 weights.
        assert all(0.04 < each.error < 0.15 for each in errors)
