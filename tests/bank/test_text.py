"""Text prompts in YAML: read as they are, and a mistake is found by file and entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from idp.bank import Prompt, PromptBank, load_text_prompts, text_bank
from idp.bank.text import KINDS
from idp.errors import BankError

GOOD = '- {name: brief, kind: instruction, text: "Be brief. ", note: short}\n'


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(GOOD)
    (prompt,) = load_text_prompts(file)
    assert prompt.text == "Be brief. "
    assert dict(prompt.provenance) == {"kind": "instruction", "note": "short", "source": "some.yaml"}


def test_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "a.yaml").write_text(GOOD.replace("brief", "first"))
    (tmp_path / "notes.txt").write_text("not a prompt")
    assert [prompt.name for prompt in load_text_prompts(tmp_path)] == ["first", "brief"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a list"),
        ("name: brief", "not a list"),
        ("- [", "not YAML"),
        ("- hello", "entry 1: expected"),
        (GOOD + "- {name: b, kind: domain}", "entry 2: text missing"),
        ("- {name: b, kind: domain, text: x, tetx: y}", "entry 1: unknown field 'tetx'. Did you mean 'text'"),
        ("- {name: b, kind: domian, text: x}", "entry 1: unknown kind 'domian'. Did you mean 'domain'"),
        ("- {name: b, kind: domain, text: 3}", "entry 1: text is 3"),
        ('- {name: b, kind: domain, text: " "}', "entry 1: the text of prompt 'b' is empty"),
        ('- {name: "", kind: domain, text: x}', "entry 1: a prompt needs a name"),
        (GOOD + GOOD, "'brief' is already in"),
        ("- {name: b, kind: domain, text: x, 3: y}", "unknown field '3'"),
    ],
)
def test_mistakes_name_file_and_entry(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(BankError, match=message) as caught:
        load_text_prompts(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="neither"):
        load_text_prompts(tmp_path / "nowhere")
    with pytest.raises(BankError, match=r"no \.yaml"):
        load_text_prompts(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BankError, match="cannot read"):
        load_text_prompts(tmp_path)


def test_shipped_bank() -> None:
    bank = text_bank()
    assert len(bank) >= 24
    assert bank.fingerprint is None
    assert {prompt.provenance["kind"] for prompt in bank} == set(KINDS)


def test_a_folder_of_yaml_is_a_bank(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- {name: a, text: 'Be brief. ', kind: instruction}")
    bank = PromptBank.load(tmp_path)
    assert bank.names == ("a",)
    bank.save(tmp_path)  # from now on the folder is what was saved
    (tmp_path / "mine.yaml").write_text("- {name: b, text: 'Be long. ', kind: instruction}")
    assert PromptBank.load(tmp_path).names == ("a",)


def test_shipped_banks_are_found_by_name_unless_a_path_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert PromptBank.load("text").names == text_bank().names
    assert PromptBank.load("tuned/sparse").fingerprint is not None
    PromptBank([Prompt("mine", text="Be brief. ")]).save(tmp_path / "text")
    assert PromptBank.load("text").names == ("mine",)
    with pytest.raises(BankError, match="no prompt bank at tuned/sprase"):
        PromptBank.load("tuned/sprase")
