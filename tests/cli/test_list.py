"""What can be named is listed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def listed(run: Run, *arguments: object) -> list[dict[str, Any]]:
    result = run("list", *arguments, "--json")
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["name"] for row in rows}


def test_models(idp_command: Run) -> None:
    rows = listed(idp_command, "models")
    assert {"reference", "reference-dense", "llama-7b-4bit", "llama-7b-3bit", "opt-6.7b-4bit"} <= names(rows)
    reference = next(row for row in rows if row["name"] == "reference")
    assert reference["bank"] is True
    assert reference["tested"] is True


def test_selectors(idp_command: Run) -> None:
    rows = listed(idp_command, "selectors")
    assert {"attention", "none", "random", "router", "smop", "static"} <= names(rows)
    assert {row["name"]: row["learns from"] for row in rows}["router"] == "losses"
    assert all(row["about"] for row in rows)


def test_suites(idp_command: Run) -> None:
    rows = {row["name"]: row for row in listed(idp_command, "suites")}
    assert rows.keys() == {"atlas", "mini", "paper", "wide"}
    assert rows["wide"]["tasks"].startswith("boolq, winogrande, ")
    assert all(row["about"] for row in rows.values())


def test_tasks(idp_command: Run) -> None:
    rows = listed(idp_command, "tasks")
    assert {"atlas", "paper", "atlas_easy", "atlas_control"} <= names(rows)
    assert {row["kind"] for row in rows} == {"suite", "task"}
    assert {"name": "mini_boolq", "kind": "task", "about": "lm-eval's boolq"} in rows


def test_arms(idp_command: Run) -> None:
    rows = listed(idp_command, "arms")
    assert {"dense", "compressed", "static", "random", "attention", "router", "oracle"} <= names(rows)
    assert {"mix:how=sum", "mix:how=concat", "mix:how=ensemble"} <= names(rows)
    assert "bound" in next(row for row in rows if row["name"] == "oracle")["about"]


def test_prompts_of_the_text_bank(idp_command: Run) -> None:
    rows = listed(idp_command, "prompts")
    assert len(rows) >= 24
    assert "repair-weights-compressed" in names(rows)


def test_prompts_of_a_bank(idp_command: Run, bank_folder: Path) -> None:
    rows = listed(idp_command, "prompts", "--bank", bank_folder)
    assert [(row["name"], row["kind"]) for row in rows] == [("river", "text"), ("town", "text")]


def test_prompts_of_a_yaml_file(idp_command: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("- {name: brief, kind: instruction, text: 'Be brief. '}\n", encoding="utf-8")
    assert names(listed(idp_command, "prompts", "--bank", file)) == {"brief"}


@pytest.mark.parametrize("kind", ["models", "selectors", "suites", "tasks", "arms", "prompts"])
def test_tables_name_everything_that_json_does(idp_command: Run, kind: str) -> None:
    result = idp_command("list", kind)
    assert result.exit_code == 0
    first_words = {line.split(" ")[0] for line in result.stdout.splitlines()}
    assert names(listed(idp_command, kind)) <= first_words


def test_bank_belongs_to_prompts(idp_command: Run, bank_folder: Path) -> None:
    result = idp_command("list", "models", "--bank", bank_folder)
    assert result.exit_code == 2
    assert "--bank" in result.stderr


def test_unknown_kind_is_a_usage_error(idp_command: Run) -> None:
    result = idp_command("list", "modles")
    assert result.exit_code == 2
    assert "models" in result.stderr
