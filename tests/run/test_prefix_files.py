from __future__ import annotations

import copy

import pytest
import torch

from idp.bank.prompt import Prompt
from idp.errors import OutputError
from idp.model.loaded import LanguageModel
from idp.run.prefix import compile_prefix
from idp.run.prefix_files import PrefixFiles
from idp.run.store import PrefixStore


def _equal(one, other):
    return all(
        torch.equal(a, b) for x, y in zip(one.layers, other.layers, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("architecture", ["llama", "opt", "bloom"])
def test_what_is_read_is_what_was_written(tiny_lm, mixed_bank, architecture, tmp_path):
    lm = tiny_lm(architecture)
    files = PrefixFiles(tmp_path, lm)
    for prompt in mixed_bank(lm):
        assert files.load(prompt) is None
        prefix = compile_prefix(lm, prompt)
        files.save(prompt, prefix)
        assert _equal(PrefixFiles(tmp_path, lm).load(prompt), prefix)


def test_a_store_reads_instead_of_compiling(tiny_lm, mixed_bank, tmp_path, monkeypatch):
    lm = tiny_lm()
    first = PrefixStore(lm, mixed_bank(lm), folder=tmp_path)
    made = [first[index] for index in range(4)]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    monkeypatch.setattr("idp.run.store.compile_prefix", lambda *_: pytest.fail("compiled again"))
    second = PrefixStore(lm, mixed_bank(lm), folder=tmp_path)
    assert all(_equal(second[index], made[index]) for index in range(4))


def test_other_weights_are_noticed_even_where_the_fingerprint_is_the_same(tiny_lm, mixed_bank, tmp_path, caplog):
    lm = tiny_lm()
    prompt = mixed_bank(lm)[2]
    PrefixFiles(tmp_path, lm).save(prompt, compile_prefix(lm, prompt))
    scaled = LanguageModel(copy.deepcopy(lm.model), lm.tokenizer, "scaled")
    with torch.no_grad():
        scaled.model.model.layers[1].self_attn.k_proj.weight.mul_(1.01)
    assert scaled.fingerprint == lm.fingerprint  # it hashes signs
    assert PrefixFiles(tmp_path, scaled).load(prompt) is None
    assert "is of other weights" in caplog.text
    store = PrefixStore(scaled, mixed_bank(lm), folder=tmp_path)
    assert _equal(store[2], compile_prefix(scaled, prompt))
    assert _equal(PrefixFiles(tmp_path, scaled).load(prompt), store[2])  # written anew


def test_another_model_has_files_of_its_own(tiny_lm, mixed_bank, tmp_path):
    one, other = tiny_lm(), tiny_lm(seed=1)
    prompt = mixed_bank(one)[2]
    PrefixFiles(tmp_path, one).save(prompt, compile_prefix(one, prompt))
    assert PrefixFiles(tmp_path, other).load(prompt) is None
    assert PrefixFiles(tmp_path, one).load(Prompt("other", text="Answer. ")) is None


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"{}" * 50])
def test_a_damaged_file_is_written_anew(tiny_lm, mixed_bank, tmp_path, caplog, damage):
    lm = tiny_lm()
    store = PrefixStore(lm, mixed_bank(lm), folder=tmp_path)
    expected = store[3]
    [file] = tmp_path.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    assert _equal(PrefixStore(lm, mixed_bank(lm), folder=tmp_path)[3], expected)
    assert "cannot be read" in caplog.text
    assert _equal(PrefixFiles(tmp_path, lm).load(mixed_bank(lm)[3]), expected)


def test_a_folder_that_cannot_be_written_to_is_named(tiny_lm, mixed_bank, tmp_path):
    blocked = tmp_path / "a-file"
    blocked.write_text("x")
    with pytest.raises(OutputError, match="a-file"):
        PrefixStore(tiny_lm(), mixed_bank(tiny_lm()), folder=blocked)[1]
