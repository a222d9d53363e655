"""`idp select compare` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idp.cli.select.compare import _most, short

Run = Callable[..., Any]
SOME = ("--tasks", "atlas_easy,atlas_text", "--limit", 4, "--fit-items", 8)


@pytest.fixture
def compare(idp_command: Run, model_folder: Path, bank_folder: Path, tmp_path: Path, monkeypatch: Any) -> Run:
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    common = ("--model", model_folder, "--bank", bank_folder, "--dtype", "float32", "--device", "cpu")

    def run(*arguments: object) -> Any:
        return idp_command("select", "compare", *arguments, *common)

    return run


def test_tables_and_the_same_as_a_file(compare: Run) -> None:
    result = compare(*SOME, "--selectors", "none,random,likelihood,oracle", "--json", "found.json")
    assert result.exit_code == 0, result.output
    for word in ("static", "random", "likelihood", "oracle", "covered", "What was chosen", "Results: found.json"):
        assert word in result.stdout
    found = json.loads(Path("found.json").read_text())
    assert [row["selector"] for row in found["rows"]] == ["static", "none", "random", "likelihood", "oracle"]
    assert found["items"] == {"atlas_easy": 4, "atlas_text": 4}
    assert {row["selector"]: row["forwards"] for row in found["rows"]} == {
        "static": 0,
        "none": 0,
        "random": 0,
        "likelihood": 3,
        "oracle": 0,
    }
    printed = compare(*SOME, "--selectors", "random", "--json", "-")
    assert [row["selector"] for row in json.loads(printed.stdout)["rows"]] == ["static", "random"]


def test_mixtures_are_rows_and_those_that_cannot_be_made_are_left_out(compare: Run) -> None:
    mixtures = "mix:how=sum,mix:how=concat,of=random,mix:how=ensemble,of=random,k=2"
    result = compare(*SOME, "--selectors", mixtures, "--json", "found.json")
    assert result.exit_code == 0, result.output
    assert "'mix:how=sum' is left out: prompts of words cannot be added up" in result.stderr
    found = json.loads(Path("found.json").read_text())
    rows = {row["selector"]: row for row in found["rows"]}
    assert [*rows] == ["static", "mix:how=concat,of=random", "mix:how=ensemble,of=random,k=2"]
    for row in list(rows.values())[1:]:
        assert row["agreement"] is None and row["choices"] == {} and row["mean"] is not None
    assert rows["mix:how=ensemble,of=random,k=2"]["forwards"] == 1
    chosen = result.stdout[result.stdout.index("What was chosen") :]
    assert "static" in chosen and "mix:" not in chosen


def test_choices_can_be_left_out(compare: Run) -> None:
    result = compare(*SOME, "--selectors", "random", "--no-choices")
    assert result.exit_code == 0, result.output
    assert "What was chosen" not in result.stdout


def test_bad_input(compare: Run) -> None:
    for arguments, message in [
        ((*SOME, "--selectors", "ruoter"), "unknown selector 'ruoter'"),
        (("--tasks", "atlas_esay"), "unknown task 'atlas_esay'"),
        ((*SOME, "--selectors", "likelihood:score=pmi"), "has no score 'pmi'"),
        ((*SOME, "--selectors", "mix:how=summ"), "no how 'summ'"),
        (("--tasks", "piqa", "--data-dir", "nowhere"), "there is no folder"),
    ]:
        result = compare(*arguments)
        assert result.exit_code != 0
        assert message in result.stderr


def test_the_arms_chosen_most_often_are_named() -> None:
    assert _most({"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.04, "e": 0.01}) == "a 50, b 30, c 15, other 5"
    assert _most({"a": 1.0}) == "a 100"


def test_folders_in_names_do_not_fill_the_table() -> None:
    assert short("cascade:first=[embedding:model=/some/where/model,k=1],then=[x:model=./a/b]") == (
        "cascade:first=[embedding:model=…/model,k=1],then=[x:model=…/b]"
    )
    for plain in ("router", "embedding:model=org/model", "likelihood:score=mi-l"):
        assert short(plain) == plain
