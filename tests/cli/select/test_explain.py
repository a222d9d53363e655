"""`idp select explain` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def explain(idp_command: Run, model_folder: Path, bank_folder: Path) -> Run:
    def run(*arguments: object, bank: object = bank_folder, stdin: str | None = None) -> Any:
        common = ("--model", model_folder, "--dtype", "float32", "--device", "cpu")
        return idp_command("select", "explain", *arguments, *common, *(("--bank", bank) if bank else ()), stdin=stdin)

    return run


def test_every_prompt_and_none_is_listed_the_best_first(explain: Run) -> None:
    result = explain("The river runs", "Once upon a time", "--selector", "random", "--json")
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)
    assert (first["text"], second["text"], first["selector"]) == ("The river runs", "Once upon a time", "random")
    for row in (first, second):
        assert set(row["scores"]) == {"river", "town", "no prompt"}
        assert list(row["scores"].values()) == sorted(row["scores"].values(), reverse=True)
        assert row["chosen"] == next(iter(row["scores"]))
        assert row["tokens"] > 1


def test_a_table_for_people(explain: Run) -> None:
    result = explain("The river runs", "--selector", "attention")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "The river runs"
    assert lines[1].startswith("└ ") and lines[1].endswith("chosen by attention")
    assert any(line.split() == ["no", "prompt", "never"] for line in lines)  # the rule never abstains


def test_stdin_and_what_the_model_does_under_each_prompt(explain: Run) -> None:
    result = explain("-", "--selector", "likelihood:score=ppl", "--json", stdin="A town by the river\n")
    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)
    assert row["text"] == "A town by the river"
    assert all(score < 0 for score in row["scores"].values())


def test_bad_input(explain: Run) -> None:
    for arguments, message in [
        (("",), "a text is empty"),
        (("text", "--selector", "ruoter"), "unknown selector 'ruoter'"),
        (("text", "--selector", "oracle"), "learns from calibration losses"),
    ]:
        result = explain(*arguments)
        assert result.exit_code != 0
        assert message in result.stderr


def test_of_very_many_scores_the_best_are_told(explain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from idp.select import base

    [whole] = json.loads(explain("The river runs", "--selector", "random", "--json").stdout)
    monkeypatch.setattr(base, "MOST_SCORES", 2)
    [row] = json.loads(explain("The river runs", "--selector", "random", "--json").stdout)
    assert list(row["scores"].items()) == list(whole["scores"].items())[:2]
    assert row["chosen"] == whole["chosen"]
