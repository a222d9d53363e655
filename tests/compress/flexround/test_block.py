from __future__ import annotations

import copy

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import nn

from idp.compress.flexround.block import BlockInput, Learning, block_output, learn_block
from idp.compress.flexround.rounding import round_to_nearest
from idp.compress.flexround.start import min_max
from idp.model.view import decoder_layers


@pytest.fixture
def case(tiny_lm):
    """A decoder layer, its matrices' grids, what it is given for six rows of text, and the same from another path."""

    def make(architecture="llama", bits=3):
        lm = tiny_lm(architecture)
        block, seen = decoder_layers(lm)[0], []
        hook = block.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(BlockInput(args[0], kwargs)), with_kwargs=True
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _ in range(6):
                lm.model(torch.randint(3, lm.vocab_size, (1, 24), generator=generator), use_cache=False)
        hook.remove()
        args = QuantizationArgs(num_bits=bits, symmetric=False, strategy="channel")
        grids = {name: min_max(m.weight, args) for name, m in block.named_modules() if isinstance(m, nn.Linear)}
        noisy = [
            each._replace(hidden=each.hidden + 0.02 * torch.randn(each.hidden.shape, generator=generator))
            for each in seen
        ]
        return block, grids, noisy, [each.hidden for each in seen]

    return make


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox"])
def test_learning_brings_the_output_nearer(case, architecture):
    block, grids, inputs, dense = case(architecture)
    _, targets, errors = learn_block(block, grids, inputs, dense, Learning(iterations=60))
    assert errors.learned < 0.95 * errors.nearest
    assert errors.scale == pytest.approx(sum(float(target.square().mean()) for target in targets) / 6)


def test_the_block_is_left_as_it_was(case):
    block, grids, inputs, dense = case()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    learn_block(block, grids, inputs, dense, Learning(iterations=5))
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert not any(value.requires_grad for value in block.parameters())


def test_targets_are_what_the_block_says_in_the_uncompressed_model(case):
    block, grids, inputs, dense = case()
    _, targets, _ = learn_block(block, grids, inputs, dense, Learning(iterations=1))
    for target, hidden, given in zip(targets, dense, inputs, strict=True):
        assert torch.equal(target, block_output(block, given._replace(hidden=hidden)))


def test_what_made_it_worse_is_not_kept(case):
    block, grids, inputs, dense = case()
    settled, _, errors = learn_block(block, grids, inputs, dense, Learning(iterations=3, learning_rate=30.0))
    assert errors.learned == errors.nearest
    for name, (weight, grid) in settled.items():
        assert torch.equal(weight, round_to_nearest(block.get_submodule(name).weight, grids[name]))
        assert torch.equal(grid.scale, grids[name].scale)


def test_learned_matrices_lie_on_their_grids(case):
    block, grids, inputs, dense = case()
    settled, _, _ = learn_block(block, grids, inputs, dense, Learning(iterations=20))
    for weight, grid in settled.values():
        steps = weight / grid.scale + grid.zero  # (out, in)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert steps.round().min() >= grid.low and steps.round().max() <= grid.high


def test_the_same_seed_gives_the_same_and_another_another(case):
    def learned(seed):
        block, grids, inputs, dense = case()
        settled, _, _ = learn_block(block, grids, inputs, dense, Learning(iterations=20, seed=seed))
        return torch.cat([weight.flatten() for weight, _ in settled.values()])

    assert torch.equal(learned(0), learned(0))
    assert not torch.equal(learned(0), learned(1))


def test_iterations_are_told(case):
    done = []
    learn_block(*case(), Learning(iterations=7), done.append)
    assert done == [1] * 7


def test_a_model_in_half_precision_is_learned_in_full(case):
    block, grids, inputs, dense = case()
    halved = copy.deepcopy(block).bfloat16()
    given = [
        BlockInput(each.hidden.bfloat16(), {name: in_half(value) for name, value in each.arguments.items()})
        for each in inputs
    ]
    _, targets, errors = learn_block(halved, grids, given, [each.bfloat16() for each in dense], Learning(iterations=30))
    assert targets[0].dtype == torch.bfloat16
    assert errors.learned < errors.nearest


def in_half(value):
    if isinstance(value, tuple):
        return tuple(map(in_half, value))
    return value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class Half(nn.Module):
    """A block one matrix of which is never used."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, hidden):
        return self.used(hidden)


def test_a_matrix_that_no_text_goes_through_is_rounded_to_nearest():
    torch.manual_seed(0)
    block = Half().requires_grad_(False)
    args = QuantizationArgs(num_bits=2, symmetric=False, strategy="channel")
    grids = {name: min_max(block.get_submodule(name).weight, args) for name in ("used", "unused")}
    hidden = torch.randn(4, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    inputs = [BlockInput(each, {}) for each in hidden]
    settled, _, errors = learn_block(block, grids, inputs, list(hidden), Learning(iterations=40))
    assert errors.learned < errors.nearest
    assert torch.equal(settled["unused"][0], round_to_nearest(block.unused.weight, grids["unused"]))
