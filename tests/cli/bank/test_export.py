"""`idp bank export` from the command line to the files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.peft import load_peft
from idp.bank.prompt import Prompt
from idp.bank.text import load_text_prompts
from idp.run.prefix_files import PrefixFiles

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

Run = Callable[..., Any]
FP32 = ("--dtype", "float32", "--device", "cpu")


@pytest.mark.parametrize(("form", "kind"), [("peft", "PROMPT_TUNING"), ("p-tuning", "P_TUNING")])
def test_soft_prompts_become_adapters(
    idp_command: Run, mixed_folder: Path, tmp_path: Path, form: str, kind: str
) -> None:
    result = idp_command("bank", "export", mixed_folder, tmp_path / "out", "--format", form, columns=400)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"one: {tmp_path / 'out' / 'one'}\ntwo: {tmp_path / 'out' / 'two'}\n"
    assert "note: left out brief: text becomes an adapter of vectors only with --model." in result.stderr
    bank = PromptBank.load(mixed_folder)
    for name in ("one", "two"):
        read = load_peft(tmp_path / "out" / name)
        assert read.digest == bank[name].digest
        assert read.provenance["peft_type"] == kind


def test_with_the_model_text_becomes_an_adapter_too(
    read_json: Run, mixed_folder: Path, model_folder: Path, lm: LanguageModel, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows = read_json("export", mixed_folder, out, "-f", "peft", "-m", model_folder, "-p", "brief", *FP32)
    assert rows == [{"prompt": "brief", "path": str(out / "brief")}]
    read = load_peft(out / "brief")
    assert read.embedding is not None
    assert torch.equal(read.embedding, lm.embed_prompt(Prompt("brief", text="Be brief. ")))
    assert read.provenance["base_model_name_or_path"] == str(model_folder)


def test_text_becomes_yaml(idp_command: Run, mixed_folder: Path, tmp_path: Path) -> None:
    result = idp_command("bank", "export", mixed_folder, tmp_path / "texts.yaml", "-f", "yaml", columns=400)
    assert result.exit_code == 0, result.output
    assert "note: left out one, two: soft prompts have no text to write." in result.stderr
    [prompt] = load_text_prompts(tmp_path / "texts.yaml")
    assert (prompt.name, prompt.text) == ("brief", "Be brief. ")


def test_prompts_are_compiled(
    read_json: Run, mixed_folder: Path, model_folder: Path, lm: LanguageModel, tmp_path: Path
) -> None:
    where = ("export", mixed_folder, tmp_path / "out", "-f", "prefixes", "-m", model_folder, *FP32)
    rows = read_json(*where)
    assert [row["prompt"] for row in rows] == ["brief", "one", "two"]
    assert all(Path(row["path"]).is_file() for row in rows)
    files = PrefixFiles(tmp_path / "out", lm)
    assert all(files.load(prompt) is not None for prompt in PromptBank.load(mixed_folder))
    assert read_json(*where) == rows  # what is there is in nobody's way


@pytest.mark.slow
def test_as_a_user_starts_it(
    start_idp: Run, mixed_folder: Path, model_folder: Path, lm: LanguageModel, tmp_path: Path
) -> None:
    """From a bank to adapters and back, each step a process of its own."""
    model = ("--model", model_folder, *FP32)
    for arguments in (
        ("export", mixed_folder, tmp_path / "adapters", "--format", "p-tuning", *model, "--json"),
        ("import", tmp_path / "again", tmp_path / "adapters", *model, "--json"),
    ):
        process = start_idp("bank", *arguments)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert json.loads(stdout)
        assert "loading" in stderr
        assert "Traceback" not in stderr
    again = PromptBank.load(tmp_path / "again")
    assert again.fingerprint == lm.fingerprint
    assert again.names == ("brief", "one", "two")
    assert [again[name].digest for name in ("one", "two")] == [
        PromptBank.load(mixed_folder)[name].digest for name in ("one", "two")
    ]


def test_a_prompt_that_the_format_cannot_hold_is_refused_where_it_was_named(
    refused: Run, mixed_folder: Path, bank_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    named = ("-p", "one", "-p", "brief")
    assert "error: one: soft prompts have no text" in refused("export", mixed_folder, out, "-f", "yaml", *named)
    assert "error: brief: text becomes" in refused("export", mixed_folder, out, "-f", "peft", *named)
    assert "error: river, town: text becomes" in refused("export", bank_folder, out, "-f", "peft")
    assert not out.exists()


def test_mistakes(refused: Run, mixed_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no prompt bank at" in refused("export", tmp_path / "nowhere", out, "-f", "peft")
    line = refused("export", mixed_folder, out, "-f", "peft", "-p", "tow")
    assert "no prompt 'tow'. Did you mean 'two'" in line
    assert "unknown model 'refrence'" in refused("export", mixed_folder, out, "-f", "prefixes", "-m", "refrence")


def test_what_is_there_is_replaced_only_when_asked(
    refused: Run, read_json: Run, mixed_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter").write_text("kept")
    for form in ("peft", "yaml"):
        assert "exists already" in refused("export", mixed_folder, out, "-f", form)
    assert "holds letter, which is no adapter" in refused("export", mixed_folder, out, "-f", "peft", "--overwrite")
    assert (out / "letter").read_text() == "kept"
    (out / "letter").unlink()
    for name in ("one", "two"):
        read_json("export", mixed_folder, out, "-f", "peft", "--overwrite", "-p", name)
    assert [path.name for path in out.iterdir()] == ["two"]


def test_another_model_needs_leave(
    refused: Run, idp_command: Run, mixed_folder: Path, other_model_folder: Path, tmp_path: Path
) -> None:
    where = ("export", mixed_folder, tmp_path / "out", "-f", "prefixes", "-m", other_model_folder, *FP32)
    assert "this bank was made for" in refused(*where)
    assert not (tmp_path / "out").exists()
    allowed = idp_command("bank", *where, "--allow-mismatch")
    assert allowed.exit_code == 0, allowed.output
    assert "note: this bank was made for" in allowed.stderr


def test_without_peft_it_says_what_to_install(
    refused: Run, mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    # Before the model is looked for, let alone loaded.
    line = refused("export", mixed_folder, tmp_path / "out", "-f", "peft", "-m", "no-such-model")
    assert "pip install 'idp[peft]'" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--format"),
        (("-f", "pickle"), "pickle"),
        (("-f", "prefixes"), "--model"),
        (("-f", "yaml", "-m", "reference"), "--model"),
    ],
)
def test_wrong_command_lines(
    idp_command: Run, mixed_folder: Path, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    result = idp_command("bank", "export", mixed_folder, tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert named in result.stderr
    assert not (tmp_path / "out").exists()
