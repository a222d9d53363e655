"""Prompts are found by `BANK:prompt`, whatever colons there are; banks by looking into a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from idp.bank import Prompt, PromptBank
from idp.bank.find import banks_in, find_prompt, find_prompts, shipped_banks
from idp.errors import BankError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PromptBank([Prompt("only", text="One. ")]).save("one")
    PromptBank([Prompt("brief", text="Be brief. "), Prompt("be:kind", text="Be kind. ")]).save("two")


def test_a_prompt_by_bank_and_name() -> None:
    found = find_prompt("two:brief")
    assert (found.address, found.prompt.name, found.path) == ("two:brief", "brief", "two")
    assert found.bank.names == ("brief", "be:kind")


def test_the_only_prompt_needs_no_name() -> None:
    assert find_prompt("one").address == "one:only"
    with pytest.raises(BankError, match="bank two has 2 prompts: say which one, as in two:brief"):
        find_prompt("two")
    assert [found.address for found in find_prompts("two")] == ["two:brief", "two:be:kind"]


def test_colons_in_paths_and_names() -> None:
    assert find_prompt("two:be:kind").prompt.text == "Be kind. "
    PromptBank([Prompt("a", text="A. "), Prompt("b:c", text="B. ")]).save("two:brief:folder")
    assert find_prompt("two:brief:folder:b:c").prompt.text == "B. "
    assert len(find_prompts("two:brief:folder")) == 2


def test_files_and_banks_of_the_package() -> None:
    Path("mine.yaml").write_text("- {name: it, kind: instruction, text: 'It. '}\n", encoding="utf-8")
    assert find_prompt("mine.yaml:it").prompt.text == "It. "
    assert find_prompt("one/bank.json").address == "one/bank.json:only"
    assert find_prompt("tuned/gptq:static").prompt.kind == "soft"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tow:brief", "no prompt bank at tow:"),
        ("tow", "no prompt bank at tow:"),
        (":brief", "no prompt bank at :brief:"),
        ("two:breif", "two: the bank has no prompt 'breif'. Did you mean 'brief'"),
        ("two:", "two: the bank has no prompt ''"),
    ],
)
def test_what_is_not_there(address: str, said: str) -> None:
    with pytest.raises(BankError) as caught:
        find_prompt(address)
    assert said in str(caught.value)


def test_shipped_banks_can_be_loaded_by_name() -> None:
    assert {"text", "tuned/sparse", "tuned/gptq"} <= set(shipped_banks())
    for name, path in shipped_banks().items():
        assert PromptBank.load(name).prompts == PromptBank.load(path).prompts


def test_banks_of_a_folder() -> None:
    Path("notes").mkdir()
    PromptBank([Prompt("deep", text="Deep. ")]).save("notes/deep")
    Path("compose.yaml").write_text("services: {}\n", encoding="utf-8")
    assert banks_in(Path()) == [Path("one"), Path("two")]
    assert banks_in(Path("notes/deep")) == [Path("notes/deep")]
    assert banks_in(Path("notes")) == [Path("notes/deep")]


@pytest.mark.parametrize("folder", ["nowhere", "one/bank.json"])
def test_no_folder_to_look_into(folder: str) -> None:
    with pytest.raises(BankError, match=f"cannot look for banks in {folder}"):
        banks_in(Path(folder))
