from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import ModelError
from idp.files import sha256_of
from idp.model.aliases import resolve
from idp.model.info import model_info
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.model.variants import check_variant, largest, save_variant


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 0.99), st.integers(0, 1000))
def test_the_smallest_go_and_as_many_as_asked_for(rows, width, sparsity, seed):
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    mask = largest(weight, sparsity)
    assert int((~mask).sum()) == int(sparsity * weight.numel())
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


@given(st.integers(1, 5), st.sampled_from(["2:4", "1:4", "4:8"]), st.integers(0, 1000))
def test_of_every_few_in_a_row_the_smallest_go(rows, structure, seed):
    zeros, of = map(int, structure.split(":"))
    weight = torch.randn(rows, 2 * of, generator=torch.Generator().manual_seed(seed))
    parts = largest(weight, 0.0, structure).reshape(-1, of)
    assert ((~parts).sum(dim=1) == zeros).all()


def test_of_equals_those_that_come_first_go():
    assert largest(torch.ones(1, 4), 0.5).tolist() == [[False, False, True, True]]


@pytest.fixture(params=[False, True], ids=["own head", "tied head"])
def dense(request, tiny_lm):
    lm = tiny_lm(tie_word_embeddings=request.param)
    return LanguageModel(copy.deepcopy(lm.model), lm.tokenizer, "dense")


def made(lm, variant, folder):
    """A copy of a model is compressed and loaded again."""
    folder.mkdir()
    save_variant(LanguageModel(copy.deepcopy(lm.model), lm.tokenizer, "copy"), variant, folder)
    return load(folder, "cpu", "float32")


def matrices(lm):
    return {name: module.weight for name, module in lm.model.named_modules() if name.endswith("_proj")}


@pytest.mark.parametrize(("bits", "group"), [(2, 8), (3, 16), (4, 32), (8, 8)])
def test_rounding_takes_the_nearest_of_the_values_of_each_group(dense, tmp_path, bits, group):
    rounded = matrices(made(dense, f"rtn:bits={bits},group={group}", tmp_path / "made"))
    assert len(rounded) == 14
    for name, weight in matrices(dense).items():
        parts = weight.unflatten(1, (-1, group)).double()  # (out, groups, group)
        low, high = parts.amin(-1, keepdim=True).clamp(max=0), parts.amax(-1, keepdim=True).clamp(min=0)
        scale = (high - low) / (2**bits - 1)
        zero = (-low / scale).round()
        expected = scale * (((parts / scale).round() + zero).clamp(0, 2**bits - 1) - zero)
        apart = (rounded[name].unflatten(1, (-1, group)).double() - expected).abs()
        # A weight half-way between two values may go to either in another precision.
        assert float((apart > 1e-6).double().mean()) < 1e-3
        assert bool((apart <= scale * 1.001).all())


def test_pruning_keeps_the_others_bit_for_bit_and_leaves_embeddings_and_head_alone(dense, tmp_path):
    lm = made(dense, "magnitude:sparsity=0.4", tmp_path / "made")
    for name, weight in lm.model.state_dict().items():
        before = dense.model.state_dict()[name]
        kept = weight != 0
        assert torch.equal(weight[kept], before[kept])
        pruned = name.endswith("_proj.weight")
        assert int((~kept).sum()) == (int(0.4 * weight.numel()) if pruned else int((before == 0).sum()))


@pytest.mark.parametrize("variant", ["rtn:bits=3,group=16", "magnitude:sparsity=0.3"])
def test_the_same_model_gives_the_same_bytes(dense, tmp_path, variant):
    for name in ("one", "two"):
        made(dense, variant, tmp_path / name)
    one, two = (sha256_of(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one == two


def test_what_is_stored_says_how_it_was_compressed(dense, tmp_path):
    made(dense, "rtn:bits=3,group=16", tmp_path / "rounded")
    made(dense, "magnitude:sparsity=0.3", tmp_path / "pruned")
    assert "3 bits, groups of 16" in model_info(resolve(tmp_path / "rounded")).describe()
    assert "30% of the weights are zero" in model_info(resolve(tmp_path / "pruned")).describe()


@pytest.mark.parametrize(
    "variant",
    [
        "rtn",
        "rtn:bits=3",
        "rtn:bits=9,group=32",
        "rtn:bits=1,group=32",
        "rtn:bits=4,group=0",
        "rtn:bits=4.5,group=32",
        "rtn:bits=4,group=32,sparsity=0.5",
        "magnitude:sparsity=1.0",
        "magnitude:sparsity=0",
        "magnitude:sparsity=most",
        "rtn:bits",
        "rnt:bits=4,group=64",
    ],
)
def test_variants_that_make_no_sense_are_refused(variant):
    with pytest.raises(ModelError, match="variant"):
        check_variant(variant)


def test_groups_have_to_divide_the_widths(dense, tmp_path):
    with pytest.raises(ModelError, match="groups of 24 do not divide the 32 inputs"):
        save_variant(dense, "rtn:bits=4,group=24", tmp_path)
