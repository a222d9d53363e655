"""`idp report` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_run

Run = Callable[..., Any]

RIGHT = {
    "dense": {"easy": [1] * 30},
    "compressed": {"easy": [1] * 10 + [0] * 20},
    "router": {"easy": [1] * 20 + [0] * 10},
}


def test_a_run_is_reported_in_its_folder(idp_command: Run, tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run", RIGHT)
    result = idp_command("report", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("tiny: router has a mean accuracy of 66.7 %")
    assert str(folder / "report.html") in result.stdout.replace("\n", "")
    assert (folder / "report.html").stat().st_size < 2_000_000


def test_several_runs_are_reported_into_a_folder_that_is_named(idp_command: Run, tmp_path: Path) -> None:
    folders = [made_run(tmp_path / "runs" / str(seed), RIGHT, seed=seed) for seed in (0, 1)]
    result = idp_command("report", *folders)
    assert result.exit_code == 2 and "name one" in " ".join(result.stderr.split())
    result = idp_command("report", *folders, "--output", folders[1])
    assert result.exit_code == 2 and "replace this run's own report" in " ".join(result.stderr.split())
    result = idp_command("report", *folders, "--output", tmp_path / "both", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["html"] == str(tmp_path / "both" / "report.html") and Path(told["html"]).exists()
    assert [row["run"] for row in told["arms"]] == ["tiny, seed 0"] * 3 + ["tiny, seed 1"] * 3
    assert len(told["headline"]) == 2


@pytest.mark.slow
def test_what_eval_writes_is_reported(
    idp_command: Run, model_folder: Path, other_model_folder: Path, bank_folder: Path, tmp_path: Path
) -> None:
    models = ["--model", model_folder, "--dense", other_model_folder, "--bank", bank_folder, "--dtype", "float32"]
    what = ["--limit", 4, "--tasks", "atlas_easy,atlas_trivia,atlas_text", "--arms", "dense,compressed,random,oracle"]
    assert idp_command("eval", *models, *what, "--output-dir", tmp_path / "out").exit_code == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    result = idp_command("report", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8") == text
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "atlas_trivia" in page and "results of single items are not known" not in page.lower()


def test_what_cannot_be_reported_is_one_line(idp_command: Run, tmp_path: Path) -> None:
    result = idp_command("report", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "it holds no results.json" in " ".join(result.stderr.split())
    one, other = made_run(tmp_path / "a", RIGHT), made_run(tmp_path / "b", RIGHT, items=" of another split")
    result = idp_command("report", one, other, "--output", tmp_path / "both")
    assert result.exit_code == 1 and "has other items of easy" in " ".join(result.stderr.split())
    assert not (tmp_path / "both").exists()
