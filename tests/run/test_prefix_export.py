from __future__ import annotations

import pytest
import torch

from idp.bank.prompt import Prompt
from idp.dynamic.wrap import prepare
from idp.errors import BankError, OutputError
from idp.run import prefix_export
from idp.run.prefix import compile_prefix
from idp.run.prefix_export import save_prefixes
from idp.run.prefix_files import PrefixFiles


def _never(*_: object) -> None:
    pytest.fail("compiled again")


def test_every_prompt_gets_a_file_that_wrap_reads(tiny_lm, mixed_bank, tmp_path, monkeypatch):
    lm, told = tiny_lm(), []
    bank = mixed_bank(lm)
    paths = save_prefixes(lm, bank, tmp_path, done=lambda: told.append(1))
    assert sorted(paths) == sorted(tmp_path.rglob("*.safetensors"))
    assert len(told) == len(paths) == len(bank)
    expected = [compile_prefix(lm, prompt) for prompt in bank]
    monkeypatch.setattr("idp.run.store.compile_prefix", _never)
    store = prepare(lm, bank, "random", keep_prefixes=tmp_path).store
    for index, prefix in enumerate(expected):
        for kept, made in zip(store[index].layers, prefix.layers, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(kept, made, strict=True))


def test_what_is_there_and_fits_is_kept_unless_asked(tiny_lm, mixed_bank, tmp_path, monkeypatch):
    lm = tiny_lm()
    first = save_prefixes(lm, mixed_bank(lm), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first}
    compile_once, made = prefix_export.compile_prefix, []
    monkeypatch.setattr(prefix_export, "compile_prefix", _never)
    assert save_prefixes(lm, mixed_bank(lm), tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in first} == before
    monkeypatch.setattr(
        prefix_export, "compile_prefix", lambda lm, prompt: made.append(prompt.name) or compile_once(lm, prompt)
    )
    assert save_prefixes(lm, mixed_bank(lm), tmp_path, overwrite=True) == first
    assert made == list(mixed_bank(lm).names)


def test_another_model_may_share_the_folder(tiny_lm, mixed_bank, tmp_path):
    one, other = tiny_lm(), tiny_lm(seed=1)
    bank = mixed_bank(one)
    files = {*save_prefixes(one, bank, tmp_path), *save_prefixes(other, bank, tmp_path)}
    assert len(files) == 2 * len(bank)
    assert all(PrefixFiles(tmp_path, lm).load(prompt) is not None for lm in (one, other) for prompt in bank)


def test_a_prompt_of_another_width_stops_it_and_what_was_made_stays(tiny_lm, mixed_bank, tmp_path):
    lm = tiny_lm()
    with pytest.raises(BankError, match="'wide' is 33 wide"):
        save_prefixes(lm, [*mixed_bank(lm), Prompt("wide", embedding=torch.zeros(2, 33))], tmp_path)
    assert len(list(tmp_path.rglob("*"))) == len(mixed_bank(lm)) + 1  # the folder of the model, and no half file


def test_a_folder_that_cannot_be_written_to(tiny_lm, mixed_bank, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        save_prefixes(tiny_lm(), mixed_bank(tiny_lm()), tmp_path / "file")
