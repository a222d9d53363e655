"""`idp models` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def rows(run: Run, *command: str) -> dict[str, dict[str, Any]]:
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.stdout)}


def test_it_lists_what_idp_list_models_does_and_where_it_comes_from(idp_command: Run) -> None:
    plain, places = rows(idp_command, "list", "models"), rows(idp_command, "models")
    assert {name: {key: row[key] for key in row if key != "from"} for name, row in places.items()} == plain
    assert places["llama-7b-4bit"]["from"] == "TheBloke/LLaMa-7B-GPTQ"
    assert places["llama-7b-sparsegpt"]["from"] == "huggyllama/llama-7b by recipe sparsegpt:sparsity=0.5"
    assert Path(places["reference"]["from"]).is_dir()


def test_ones_own_are_listed_too(idp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    (tmp_path / "models.yaml").write_text("mine: {source: org/model/m.Q4_0.gguf, note: Small.}")
    row = {"name": "mine", "compression": "", "bank": False, "tested": False, "note": "Small."}
    assert rows(idp_command, "models")["mine"] == row | {"from": "org/model/m.Q4_0.gguf"}
    assert "mine" in idp_command("models").stdout


def test_a_broken_file_is_named(idp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    (tmp_path / "models.yaml").write_text("mine: [")
    result = idp_command("models")
    assert result.exit_code == 1
    assert str(tmp_path / "models.yaml") in result.stderr.replace("\n", "")
