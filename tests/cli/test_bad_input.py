"""Whatever is wrong with the input: one line on stderr, exit code 1, nothing on stdout, no traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from local_tasks import write_cases

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

Run = Callable[..., Any]


def error_line(result: Any) -> str:
    """The one error line of a command that failed as it should."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: "), result.stderr
    assert not any(line.startswith("error: ") for line in before)
    return str(last)


@pytest.fixture
def evaluate(idp_command: Run, model_folder: Path, bank_folder: Path, tmp_path: Path) -> Run:
    """`idp eval` on a tiny model; later options win over these."""

    def run(*arguments: object) -> Any:
        common = ("--model", model_folder, "--bank", bank_folder, "--output-dir", tmp_path / "out")
        return idp_command("eval", *common, "--tasks", "atlas_easy", "--limit", 2, "--arms", "compressed", *arguments)

    return run


@pytest.fixture
def foreign_bank(other_model_folder: Path, tmp_path: Path, lm: LanguageModel) -> Path:
    from idp.model.load import load

    fingerprint = load(other_model_folder, device="cpu", dtype="float32").fingerprint
    prompt = Prompt("soft", embedding=torch.zeros(2, lm.hidden_size))
    return PromptBank([prompt], fingerprint=fingerprint).save(tmp_path / "foreign")


@pytest.mark.parametrize("command", [("eval",), ("generate", "Once")])
class TestOfAnyCommand:
    def test_unknown_alias(self, idp_command: Run, command: tuple[str, ...]) -> None:
        line = error_line(idp_command(*command, "--model", "llama-7b-4bits"))
        assert "unknown model 'llama-7b-4bits'. Did you mean 'llama-7b-4bit'" in line

    def test_path_without_a_model(self, idp_command: Run, command: tuple[str, ...], tmp_path: Path) -> None:
        assert "no config.json" in error_line(idp_command(*command, "--model", tmp_path))

    def test_path_that_is_not_there(self, idp_command: Run, command: tuple[str, ...], tmp_path: Path) -> None:
        assert "there is no folder" in error_line(idp_command(*command, "--model", tmp_path / "missing"))

    def test_unknown_device(
        self, idp_command: Run, command: tuple[str, ...], model_folder: Path, tmp_path: Path
    ) -> None:
        where = (
            "--model",
            model_folder,
            *(("--output-dir", tmp_path, "--tasks", "atlas_easy") if command == ("eval",) else ()),
        )
        assert "toaster" in error_line(idp_command(*command, *where, "--device", "toaster"))


def test_unknown_arm(evaluate: Run) -> None:
    assert "unknown arm 'ruoter'. Did you mean 'router'" in error_line(evaluate("--arms", "compressed,ruoter"))


def test_unknown_task(evaluate: Run) -> None:
    assert "unknown task 'atlas_eazy'. Did you mean 'atlas_easy'" in error_line(evaluate("--tasks", "atlas_eazy"))


def test_unknown_suite(evaluate: Run) -> None:
    assert "unknown suite 'papper'. Did you mean 'paper'?" in error_line(evaluate("--suite", "papper"))


def test_data_that_are_missing(evaluate: Run, tmp_path: Path) -> None:
    assert "there is no folder" in error_line(evaluate("--suite", "paper", "--data-dir", tmp_path / "nowhere"))
    line = error_line(evaluate("--suite", "paper", "--data-dir", tmp_path))
    assert f"task 'arc_easy' has no data: looked for {tmp_path / 'arc_easy' / 'test.jsonl'}" in line


def test_data_with_a_broken_line(evaluate: Run, tmp_path: Path) -> None:
    file = write_cases(tmp_path, ["piqa"]) / "piqa" / "validation.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + '{"question": "cut o', encoding="utf-8")
    assert f"{file}, line 7 is not JSON" in error_line(evaluate("--tasks", "piqa", "--data-dir", tmp_path))


def test_unknown_selector(idp_command: Run, model_folder: Path) -> None:
    line = error_line(idp_command("generate", "Once", "--model", model_folder, "--selector", "atention"))
    assert "unknown selector 'atention'. Did you mean 'attention'" in line


def test_selector_that_is_not_fitted(idp_command: Run, model_folder: Path, bank_folder: Path) -> None:
    where = ("--model", model_folder, "--bank", bank_folder)
    assert "'router'" in error_line(idp_command("generate", "Once", *where, "--selector", "router"))


def test_no_bank(evaluate: Run, tmp_path: Path) -> None:
    assert "no prompt bank at" in error_line(evaluate("--bank", tmp_path / "nowhere", "--arms", "random"))


def test_broken_bank(evaluate: Run, tmp_path: Path) -> None:
    bank = PromptBank([Prompt("one", text="One. ")]).save(tmp_path / "bank")
    (bank / "bank.json").write_text('{"format":', encoding="utf-8")
    assert "bank.json" in error_line(evaluate("--bank", bank, "--arms", "random"))


def test_foreign_bank(evaluate: Run, foreign_bank: Path) -> None:
    line = error_line(evaluate("--bank", foreign_bank, "--arms", "random"))
    assert "this bank was made for" in line
    assert "but the model is" in line
    assert "weights" in line


def test_foreign_bank_in_generate(idp_command: Run, foreign_bank: Path, model_folder: Path) -> None:
    where = ("generate", "Once", "--model", model_folder, "--bank", foreign_bank, "-s", "random", "-n", 2)
    assert "this bank was made for" in error_line(idp_command(*where))
    allowed = idp_command(*where, "--allow-mismatch")
    assert allowed.exit_code == 0
    assert "note: this bank was made for" in allowed.stderr


def test_empty_prompt_in_a_yaml_file(evaluate: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "- {name: brief, kind: instruction, text: Be brief.}\n- {name: nil, kind: instruction, text: ' '}\n"
    )
    line = error_line(evaluate("--bank", file, "--arms", "random"))
    assert f"{file}, entry 2" in line
    assert "empty" in line


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text(idp_command: Run, text: str) -> None:
    assert "a text is empty" in error_line(idp_command("generate", text))
    assert "a text is empty" in error_line(idp_command("generate", "-", stdin=text))


def test_text_that_is_not_utf8(idp_command: Run) -> None:
    assert "not UTF-8" in error_line(idp_command("generate", "-", stdin=b"na\xefve"))  # Latin-1
    assert "not UTF-8" in error_line(idp_command("generate", "na\udcefve"))  # how Python hands such an argument over


@pytest.mark.parametrize("selector", ["none", "random"])
def test_too_long_a_text(idp_command: Run, model_folder: Path, bank_folder: Path, selector: str) -> None:
    where = ("--model", model_folder, "--bank", bank_folder, "--selector", selector)
    line = error_line(idp_command("generate", "the river " * 400, *where))
    assert "does not fit" in line
    assert "512" in line


def test_text_that_is_too_long_with_its_prompt_only(
    idp_command: Run, lm: LanguageModel, model_folder: Path, tmp_path: Path
) -> None:
    bank = PromptBank([Prompt("long", text="the river runs past the mill " * 30)]).save(tmp_path / "bank")
    text = "the river " * 100
    room = lm.max_length - len(lm.tokenizer(text)["input_ids"])
    where = ("generate", text, "--model", model_folder, "-n", room)
    assert idp_command(*where, "-s", "none").exit_code == 0
    chosen = ("--bank", bank, "-s", "attention")  # attention always chooses a prompt
    assert "prompt 'long'" in error_line(idp_command(*where, *chosen))


def test_output_folder_that_is_a_file(evaluate: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = error_line(evaluate("--output-dir", tmp_path / "file" / "results"))
    assert "cannot write to" in line
    assert "--output-dir" in line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_output_folder_that_is_read_only(evaluate: Run, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "cannot write to" in error_line(evaluate("--output-dir", folder))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--limit", 0),
        ("--batch-size", 0),
        ("--fit-items", 0),
        ("--seed", -1),
        ("--limit", "many"),
        ("--tasks", ","),
        ("--arms", ""),
    ],
)
def test_wrong_values_are_usage_errors(evaluate: Run, arguments: tuple[object, ...]) -> None:
    result = evaluate(*arguments)
    assert result.exit_code == 2
    assert str(arguments[0]) in result.stderr


def test_unknown_option_is_a_usage_error(idp_command: Run) -> None:
    result = idp_command("eval", "--limits", 3)
    assert result.exit_code == 2
    assert "--limits" in result.stderr
