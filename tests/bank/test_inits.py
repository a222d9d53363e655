"""What a prompt was started from is kept beside the bank, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from idp.bank import Fingerprint, Prompt, PromptBank
from idp.bank.find import find_prompt
from idp.bank.inits import init_of, save_with_inits
from idp.errors import BankError

MODEL = Fingerprint("LlamaForCausalLM", 2, 384, "a" * 16, "b" * 16)


def soft(name: str, value: float, **provenance: Any) -> Prompt:
    return Prompt(name, embedding=torch.full((3, 2), float(value)), provenance=provenance)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prompts = [
        soft("static", 1, init="rows"),
        soft("part", 2, init="static"),
        Prompt("brief", text="Be brief. "),
    ]
    return save_with_inits(PromptBank(prompts, MODEL), [soft("rows", 0)], tmp_path / "bank")


def test_an_init_of_its_own(folder: Path) -> None:
    found = init_of(find_prompt(f"{folder}:static"))
    assert found.prompt == soft("rows", 0)
    assert found.address == f"{folder}/init:rows"
    assert found.bank.fingerprint == MODEL


def test_an_init_among_the_prompts(folder: Path) -> None:
    found = init_of(find_prompt(f"{folder}:part"))
    assert found.prompt.name == "static"
    assert found.address == f"{folder}:static"


def test_inits_are_no_prompts_of_the_bank(folder: Path) -> None:
    assert PromptBank.load(folder).names == ("static", "part", "brief")


def test_the_bank_may_be_named_by_its_file(folder: Path) -> None:
    assert init_of(find_prompt(f"{folder}/bank.json:static")).prompt.name == "rows"


def test_a_shipped_part_started_from_the_static_prompt() -> None:
    assert init_of(find_prompt("tuned/sparse:part-3")).address == "tuned/sparse:static"


def test_the_start_of_a_shipped_static_prompt_was_kept() -> None:
    assert init_of(find_prompt("tuned/sparse:static")).prompt.embedding.shape == (16, 160)  # type: ignore[union-attr]


def test_an_init_that_was_not_kept(folder: Path) -> None:
    shutil.rmtree(folder / "init")
    with pytest.raises(BankError, match="static was started from 'rows', which"):
        init_of(find_prompt(f"{folder}:static"))


@pytest.mark.parametrize("provenance", [{}, {"init": 3}])
def test_an_init_that_is_not_named(tmp_path: Path, provenance: dict[str, Any]) -> None:
    PromptBank([soft("static", 1, **provenance)]).save(tmp_path)
    with pytest.raises(BankError, match="does not say what it was started from"):
        init_of(find_prompt(str(tmp_path)))


@pytest.mark.parametrize("init", ["rows", "static", None])
def test_a_bank_is_not_saved_without_its_inits(tmp_path: Path, init: str | None) -> None:
    bank = PromptBank([soft("static", 1, init=init)])
    with pytest.raises(BankError, match="the init of prompt 'static'"):
        save_with_inits(bank, [soft("other", 0)], tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


def test_texts_have_no_init(tmp_path: Path) -> None:
    save_with_inits(PromptBank([Prompt("brief", text="Be brief. ")]), [], tmp_path)
    assert PromptBank.load(tmp_path).names == ("brief",)
    assert not (tmp_path / "init").exists()
