from __future__ import annotations

import copy
import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import ModelError, OutputError
from idp.files import sha256_of
from idp.model import variants
from idp.model.aliases import resolve
from idp.model.fetch import fetch, is_here, obtain
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


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.floats(0, 0.99))
def test_of_equals_in_one_matrix_those_that_come_first_go(sizes, sparsity):
    weight = torch.tensor([sizes], dtype=torch.float32)
    order = weight.flatten().argsort(stable=True)[: int(sparsity * len(sizes))]
    expected = torch.ones(len(sizes), dtype=torch.bool)
    expected[order] = False
    assert torch.equal(largest(weight, sparsity).flatten(), expected)


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


@pytest.fixture
def alias(dense, tmp_path, monkeypatch):
    """A user's alias of a variant of a model in a folder, with a cache of its own."""
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path / "config"))
    (tmp_path / "dense").mkdir()
    dense.model.save_pretrained(tmp_path / "dense")
    dense.tokenizer.save_pretrained(tmp_path / "dense")
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "models.yaml"
    file.write_text(f"mine: {{variant: 'rtn:bits=3,group=16', dense: {tmp_path / 'dense'}, suite: mini}}")
    return file


def test_a_variant_is_made_once_and_found_from_then_on(alias, watcher, monkeypatch):
    spec, first, second = resolve("mine"), watcher(), watcher()
    assert not is_here(spec) and spec.suite == "mini"
    lm = load(spec, "cpu", observer=first)
    assert is_here(spec) and "3 bits" in model_info(spec).describe()
    assert [stage[0] for stage in first.stages] == ["making mine from dense (rtn:bits=3,group=16)"]
    monkeypatch.setattr(variants, "save_variant", lambda *args: pytest.fail("made again"))
    assert load("mine", "cpu", observer=second).fingerprint == lm.fingerprint
    assert second.stages == []
    assert fetch(spec).path == Path(spec.source)


def test_without_an_observer_it_is_logged(alias, caplog):
    obtain(resolve("mine"))
    assert "making mine from dense" in caplog.text


@pytest.mark.parametrize("change", ["group=32", "another version", "no mark"])
def test_what_another_version_made_is_made_again(alias, monkeypatch, change):
    spec = resolve("mine")
    obtain(spec)
    if change == "group=32":
        alias.write_text(alias.read_text().replace("group=16", "group=32"))
    elif change == "another version":
        monkeypatch.setattr(variants, "_VERSION", 0)
    else:
        (Path(spec.source) / "variant.json").write_text("{")
    assert not is_here(resolve("mine"))
    group = 32 if change == "group=32" else 16
    assert f"groups of {group}" in model_info(resolve("mine")).describe()


def test_an_interruption_leaves_nothing_that_is_taken_for_a_model(alias, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(variants, "json_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            obtain(resolve("mine"))
    assert not is_here(resolve("mine"))
    assert [file.name for file in Path(resolve("mine").source).parent.iterdir()] == [".mine.lock"]
    obtain(resolve("mine"))
    assert is_here(resolve("mine"))


def test_a_full_disk_is_told_in_one_line(alias, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(variants, "save_variant", full)
    with pytest.raises(OutputError, match="No space left on device"):
        obtain(resolve("mine"))
    assert not is_here(resolve("mine"))


def test_two_processes_make_it_once(alias):
    code = "from idp.model.aliases import resolve; from idp.model.fetch import obtain; obtain(resolve('mine'))"
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum("making mine" in each for each in told) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{variant: 'rtn:bits=3,group=16'}", "no dense model to start from"),
        ("{variant: 'rtn:bits=3,group=16', source: /a, dense: /b}", "either a source, or a recipe or variant"),
        ("{variant: 3, dense: /b}", "variant has to be a text"),
    ],
)
def test_aliases_of_variants_that_make_no_sense_are_refused(alias, entry, message):
    alias.write_text(f"mine: {entry}")
    with pytest.raises(ModelError, match=message):
        resolve("mine")


def test_a_variant_that_makes_no_sense_is_refused_when_it_is_needed(alias):
    alias.write_text(alias.read_text().replace("bits=3", "bits=33"))
    with pytest.raises(ModelError, match="variant"):
        load("mine", "cpu")
