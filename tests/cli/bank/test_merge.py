"""`idp bank merge`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idp.bank import PromptBank
from idp.cli.bank.merge import labels

Done = Callable[..., str]
TEXT = "- {name: brief, kind: instruction, text: 'Be brief. '}\n"


def test_a_bank_and_texts(idp_command: Callable[..., Any]) -> None:
    Path("mine.yaml").write_text(TEXT, encoding="utf-8")
    result = idp_command("bank", "merge", "out", "dense", "mine.yaml")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Bank of 3 prompts: out\n"
    assert "note: the fitted selectors of dense are left out: fit them again" in result.stderr
    merged = PromptBank.load("out")
    assert merged.names == ("static", "task", "brief")
    assert merged.fingerprint == PromptBank.load("dense").fingerprint
    assert not merged.selectors


def test_clashes_are_named_by_bank(done: Done) -> None:
    done("merge", "out", "dense", "sparse", "--allow-mismatch")
    assert PromptBank.load("out").names == ("dense/static", "task", "sparse/static")
    done("merge", "out", "dense", "sparse", "--allow-mismatch", "--prefix", "--overwrite")
    assert PromptBank.load("out").names == ("dense/static", "dense/task", "sparse/static")


def test_duplicates_are_left_out(idp_command: Callable[..., Any]) -> None:
    PromptBank.load("dense").save("copies/dense")
    result = idp_command("bank", "merge", "out", "dense", "copies/dense", "dense")
    assert result.exit_code == 0, result.output
    assert PromptBank.load("out").names == ("static", "task")
    assert "copies/dense:static (the same as dense:static)" in result.stderr


def test_another_model(idp_command: Callable[..., Any], refused: Done) -> None:
    assert "dense was made for" in refused("merge", "out", "dense", "sparse")
    assert not Path("out").exists()
    result = idp_command("bank", "merge", "out", "sparse", "dense", "--allow-mismatch")
    assert "note: sparse was made for" in result.stderr
    assert PromptBank.load("out").fingerprint == PromptBank.load("sparse").fingerprint


def test_nothing_is_overwritten_unasked(refused: Done, done: Done) -> None:
    before = PromptBank.load("sparse")
    assert "there is a bank in sparse already" in refused("merge", "sparse", "dense")
    assert PromptBank.load("sparse").fingerprint == before.fingerprint
    done("merge", "sparse", "dense", "--overwrite")
    assert PromptBank.load("sparse").fingerprint == PromptBank.load("dense").fingerprint


def test_no_bank(refused: Done) -> None:
    assert "no prompt bank at nowhere" in refused("merge", "out", "dense", "nowhere")


def test_without_banks_it_is_a_usage_error(idp_command: Callable[..., Any]) -> None:
    assert idp_command("bank", "merge", "out").exit_code == 2


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["tuned/sparse", "tuned/gptq", "text"], ["sparse", "gptq", "text"]),
        (["a/bank", "b/bank", "c"], ["a/bank", "b/bank", "c"]),
        (["dense/"], ["dense"]),
        (["mine.yaml"], ["mine"]),
    ],
)
def test_labels(paths: list[str], expected: list[str]) -> None:
    Path("mine.yaml").write_text(TEXT, encoding="utf-8")
    assert labels(paths) == expected


def test_the_current_folder_has_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("dense")
    assert labels(["."]) == ["dense"]
