from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from idp.evaluate.damage.matrices import Matrix, kinds_of, matrices
from idp.model.view import decoder_layers

CPU = torch.device("cpu")


class Packed(nn.Module):
    """A linear module whose weight nobody can see."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.inside = [linear]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside[0](x)


def whole(matrix: Matrix, dim: int = 1) -> torch.Tensor:
    return torch.cat(list(matrix.pieces(CPU, torch.float32)), dim=dim)


def linear(width: int, height: int, bias: bool = True, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(width, height, bias=bias)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_what_is_packed_is_read_off_the_identity(width, height, bias, seed):
    plain = linear(width, height, bias, seed)
    torch.testing.assert_close(whole(matrices(Packed(plain))[""]), plain.weight.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [1023, 1024, 1025, 2049])
def test_wide_matrices_are_read_in_pieces(width):
    plain = linear(width, 3)
    for module in (plain, Packed(plain)):
        pieces = list(matrices(module)[""].pieces(CPU, torch.float32))
        assert [piece.shape[1] for piece in pieces] == [min(1024, width - start) for start in range(0, width, 1024)]
        torch.testing.assert_close(torch.cat(pieces, 1), plain.weight.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_plain_weights_are_read_as_they_are(dtype):
    plain = linear(5, 4).to(dtype)
    assert torch.equal(whole(matrices(plain)[""]), plain.weight.detach().float())


def test_an_8_bit_float_is_no_plain_weight():
    """Its scale stands beside it, so only the module knows the matrix."""

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.weight.float() * 4).T

    module = Scaled(6, 2, bias=False)
    module.weight = nn.Parameter(module.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    assert torch.equal(whole(matrices(module)[""]), module.weight.float() * 4)


def test_adapters_belong_to_the_matrix(tiny_lm):
    import copy

    import peft

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        model = peft.get_peft_model(copy.deepcopy(tiny_lm().model), config)
    layer = model.get_base_model().model.layers[0]
    names = list(matrices(layer))
    assert names == list(matrices(decoder_layers(tiny_lm())[0]))
    adapted = layer.self_attn.q_proj
    expected = adapted.base_layer.weight + adapted.get_delta_weight("default")
    torch.testing.assert_close(whole(matrices(layer)["self_attn.q_proj"]), expected.detach(), atol=1e-5, rtol=0)


def test_experts_that_are_no_modules_are_matrices_too():
    from transformers import AutoModelForCausalLM, MixtralConfig

    config = MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=3,
    )
    layer = AutoModelForCausalLM.from_config(config).model.layers[0]
    found = matrices(layer)
    covered = sum(torch.Size(matrix.shape).numel() for matrix in found.values())
    assert covered == sum(weight.numel() for weight in layer.parameters() if weight.ndim >= 2)
    stacked = [matrix for matrix in found.values() if len(matrix.shape) == 3]
    assert stacked
    for matrix in stacked:
        assert torch.equal(whole(matrix, dim=0), matrix.source)


def test_norms_and_biases_are_none():
    assert list(matrices(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)))) == ["1"]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["self_attn.q_proj", "mlp.up_proj"], ["q_proj", "up_proj"]),
        (["attn.c_attn", "attn.c_proj", "mlp.c_proj"], ["c_attn", "attn.c_proj", "mlp.c_proj"]),
        (["mlp.experts.0.up", "mlp.experts.11.up", "mlp.gate"], ["up", "up", "gate"]),
        (["mlp.0", "mlp.2"], ["mlp", "mlp"]),
        (["mlp.gate.weight", "mlp.experts.down_proj"], ["gate", "down_proj"]),
        (["fc1", "fc2"], ["fc1", "fc2"]),
        (["0"], ["0"]),
        ([], []),
    ],
)
def test_kinds(names, kinds):
    assert kinds_of(names) == dict(zip(names, kinds, strict=True))
