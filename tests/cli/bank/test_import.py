"""`idp bank import`: adapters and YAML become a bank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.peft import save_peft
from idp.bank.prompt import Prompt

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

Run = Callable[..., Any]
FP32 = ("--dtype", "float32", "--device", "cpu")


@pytest.fixture
def trained(trained_by_peft: Any, lm: LanguageModel, tmp_path: Path) -> Path:
    """An adapter as PEFT saves it."""
    trained_by_peft(lm).save_pretrained(tmp_path / "task")
    return tmp_path / "task"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text("- {name: brief, kind: instruction, text: 'Be brief. '}\n", encoding="utf-8")
    return file


def test_adapters_and_text_become_a_bank_of_the_model(
    read_json: Run, trained: Path, texts: Path, model_folder: Path, lm: LanguageModel, tmp_path: Path
) -> None:
    said = read_json("import", tmp_path / "bank", trained, texts, "--model", model_folder, *FP32)
    assert said["bank"] == str(tmp_path / "bank")
    assert [(row["name"], row["kind"]) for row in said["prompts"]] == [("task", "soft"), ("brief", "text")]
    assert said["prompts"][0]["provenance"]["peft_type"] == "PROMPT_TUNING"
    assert said["fingerprint"] == lm.fingerprint.to_dict()
    bank = PromptBank.load(tmp_path / "bank")
    assert bank.fingerprint == lm.fingerprint
    assert bank.names == ("task", "brief")


def test_an_imported_bank_generates(idp_command: Run, trained: Path, model_folder: Path, tmp_path: Path) -> None:
    assert idp_command("bank", "import", tmp_path / "bank", trained, "-m", model_folder, *FP32).exit_code == 0
    where = ("--model", model_folder, "--bank", tmp_path / "bank", "--selector", "attention", *FP32)
    result = idp_command("generate", "The river runs", *where, "--max-new-tokens", 3)
    assert result.exit_code == 0, result.output
    assert "└ prompt task" in result.stdout


def test_without_a_model_it_says_what_is_missing(idp_command: Run, trained: Path, tmp_path: Path) -> None:
    result = idp_command("bank", "import", tmp_path / "bank", trained, "--name", "mine", columns=400)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"mine: 5 vectors of width 32\nBank: {tmp_path / 'bank'}\n"
    assert "without --model the bank does not say which model" in result.stderr
    assert PromptBank.load(tmp_path / "bank").fingerprint is None


def test_text_alone_needs_no_model(idp_command: Run, texts: Path, tmp_path: Path) -> None:
    result = idp_command("bank", "import", tmp_path / "bank", texts, columns=400)
    assert result.stdout == f"brief: text\nBank: {tmp_path / 'bank'}\n"
    assert result.stderr == ""


def test_an_adapter_for_another_width(refused: Run, model_folder: Path, tmp_path: Path) -> None:
    wide = save_peft(Prompt("wide", embedding=torch.zeros(2, 48)), tmp_path / "wide", base_model="org/wide")
    line = refused("import", tmp_path / "bank", wide, "--model", model_folder, *FP32)
    assert "48 wide, trained on org/wide; it does not fit LlamaForCausalLM of width 32" in line
    assert not (tmp_path / "bank").exists()


def test_mistakes_are_found_before_a_model_is_looked_for(
    refused: Run, trained: Path, texts: Path, tmp_path: Path
) -> None:
    out = ("import", tmp_path / "bank")
    model = ("--model", "no-such-model")
    assert "there is nothing at" in refused(*out, tmp_path / "nowhere", *model)
    assert "3 names for 2 prompts" in refused(*out, trained, texts, *model, *("-n", "a", "-n", "b", "-n", "c"))
    assert "two prompts are called 'brief'" in refused(*out, texts, texts, *model)
    (trained / "adapter_model.safetensors").rename(trained / "adapter_model.bin")
    assert "is a pickle" in refused(*out, trained, *model)
    assert "unknown model 'no-such-model'" in refused(*out, texts, *model)
    assert not (tmp_path / "bank").exists()


def test_a_bank_that_is_there_is_replaced_only_when_asked(
    refused: Run, read_json: Run, texts: Path, mixed_folder: Path, tmp_path: Path
) -> None:
    out = PromptBank.load(mixed_folder).save(tmp_path / "bank")
    assert "there is a bank in" in refused("import", out, texts)
    assert len(PromptBank.load(out)) == 3
    read_json("import", out, texts, "--overwrite")
    assert PromptBank.load(out).names == ("brief",)


def test_no_source_is_a_usage_error(idp_command: Run, tmp_path: Path) -> None:
    assert idp_command("bank", "import", tmp_path / "bank").exit_code == 2
