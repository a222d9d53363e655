"""`idp probe` as a user gives it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idp.errors import OutputError

Run = Callable[..., Any]


@pytest.mark.slow
def test_the_reference_model_is_probed(idp_command: Run, tmp_path: Path) -> None:
    result = idp_command("probe", "--facts", 20, "--arms", "static", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for words in ("Right again, closed book", "closed, evaluation", "Inside the model", "static has right again"):
        assert words in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["probe.json", "probe.md", "probe.png"]
    found = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert found["arms"] == ["dense", "compressed", "static"]


@pytest.mark.slow
def test_a_quantised_model_goes_without_lora_and_says_so(idp_command: Run) -> None:
    result = idp_command("probe", "reference-gptq", "--facts", 5, "--arms", "static", "--lora", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["arms"] == ["dense", "compressed", "static"]
    assert any("without LoRA" in note and "is quantised" in note for note in found["notes"])


@pytest.mark.slow
def test_what_cannot_be_written_in_the_end_is_seen(idp_command: Run, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr("idp.evaluate.probe.report.atomic_write_text", full)
    result = idp_command("probe", "--facts", 5, "--arms", "static", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "the disk is full" in result.stderr
    assert "Right again, closed book" in result.stdout


def test_where_nothing_can_be_written_nothing_is_measured(idp_command: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("idp.cli.probe._loaded", lambda *_: pytest.fail("loaded"))
    (tmp_path / "file").write_text("")
    result = idp_command("probe", "--output", tmp_path / "file")
    assert result.exit_code == 1 and "Choose another --output" in " ".join(result.stderr.split())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = idp_command("probe", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "pip install 'idp[plot]'" in " ".join(result.stderr.split())


def test_a_model_without_a_dense_one_cannot_be_probed(idp_command: Run, model_folder: Path) -> None:
    result = idp_command("probe", model_folder)
    assert result.exit_code == 1
    assert "it has no dense model or no bank" in " ".join(result.stderr.split())
