"""Prompts from several places make one bank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.exchange import import_bank, read_prompts
from idp.bank.fingerprint import Fingerprint
from idp.bank.peft import save_peft, save_peft_bank
from idp.bank.prompt import Prompt
from idp.bank.text import save_text_prompts
from idp.errors import BankError

FINGERPRINT = Fingerprint("LlamaForCausalLM", 8, 384, "0" * 16, "1" * 16)


def soft(name: str, width: int = 8) -> Prompt:
    return Prompt(name, embedding=torch.full((2, width), 0.5))


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    save_peft_bank([soft("b"), soft("a")], tmp_path / "adapters")
    return tmp_path / "adapters"


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return save_text_prompts([Prompt("brief", text="Be brief. ")], tmp_path / "texts" / "mine.yaml")


def test_one_bank_in_the_order_of_the_sources(adapters: Path, yaml_file: Path, tmp_path: Path) -> None:
    bank = import_bank([yaml_file, adapters], fingerprint=FINGERPRINT)
    assert bank.names == ("brief", "a", "b")
    assert bank.provenance == {"imported": ["mine.yaml", "adapters"]}
    saved = PromptBank.load(bank.save(tmp_path / "bank"))
    assert saved.prompts == bank.prompts
    assert saved.fingerprint == FINGERPRINT


def test_names_may_be_given(adapters: Path) -> None:
    bank = import_bank([adapters / "b", adapters / "a"], names=["one", "two"])
    assert bank.names == ("one", "two")
    assert bank["one"].provenance["source"] == "b"
    assert bank.fingerprint is None


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"]])
def test_names_for_some_prompts_only(adapters: Path, names: list[str]) -> None:
    with pytest.raises(BankError, match=rf"{len(names)} names for 2 prompts \(a, b\)"):
        import_bank([adapters], names=names)


def test_two_prompts_of_one_name(adapters: Path, tmp_path: Path) -> None:
    save_peft(soft("a"), tmp_path / "other")
    with pytest.raises(BankError, match="two prompts are called 'a': give all 3 names"):
        import_bank([adapters, tmp_path / "other"])
    assert import_bank([adapters, tmp_path / "other"], names=["a", "b", "c"]).names == ("a", "b", "c")
    with pytest.raises(BankError, match="two prompts are called 'x'"):
        import_bank([adapters], names=["x", "x"])


def test_a_prompt_for_another_width(adapters: Path, yaml_file: Path, tmp_path: Path) -> None:
    save_peft(soft("wide", 16), tmp_path / "wide")
    with pytest.raises(BankError, match=r"wide holds a prompt 16 wide.*width 8"):
        import_bank([adapters, tmp_path / "wide"], fingerprint=FINGERPRINT)
    with pytest.raises(BankError, match="different widths"):
        import_bank([adapters, tmp_path / "wide"])


def test_folders_of_yaml(yaml_file: Path) -> None:
    assert [prompt.text for prompt in read_prompts(yaml_file.parent)] == ["Be brief. "]


def test_what_is_no_source(tmp_path: Path, adapters: Path) -> None:
    PromptBank([soft("a")]).save(tmp_path / "bank")
    (tmp_path / "empty").mkdir()
    for path, message in {
        tmp_path / "missing": "there is nothing at",
        tmp_path / "bank": "is a bank already",
        tmp_path / "empty": "neither a PEFT adapter",
        adapters / "a" / "adapter_model.safetensors": "neither a PEFT adapter",
    }.items():
        with pytest.raises(BankError, match=message):
            read_prompts(path)


def test_nothing_at_all() -> None:
    with pytest.raises(BankError, match="at least one prompt"):
        import_bank([])
