"""`idp bank transfer` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
SOME = ("--tasks", "atlas_easy", "--limit", 4, "--arms", "compressed,static", "-o", "study")


def test_a_table_of_models_and_arms(done: Run) -> None:
    printed = done("transfer", "tuned/gptq", "reference-gptq", "reference", *SOME)
    assert "reference-gptq *" in printed
    assert "reference " in printed
    rows = json.loads(Path("study/transfer.json").read_text())
    assert json.loads(done("transfer", "tuned/gptq", "reference-gptq", "reference", *SOME, "--json")) == rows


def test_dense_is_one_model_for_all(
    done: Run, mixed_folder: Path, model_folder: Path, other_model_folder: Path
) -> None:
    models = [mixed_folder, model_folder, other_model_folder]
    what = ["--tasks", "atlas_easy", "--limit", 4, "--arms", "dense,compressed", "-o", "study", "--json"]
    rows = json.loads(done("transfer", *models, "--dense", other_model_folder, *what))
    assert [row["arm"] for row in rows] == ["dense", "compressed"] * 2
    assert rows[0]["mean"] == rows[2]["mean"] == rows[3]["mean"]
    for without in ([], ["--dense", "none"]):
        assert [row["arm"] for row in json.loads(done("transfer", *models, *without, *what))] == ["compressed"] * 2


def test_an_unknown_dense_model_is_named(refused: Run) -> None:
    what = ("--tasks", "atlas_easy", "--limit", 4, "--arms", "dense,compressed", "-o", "study")
    for name in ("referense-dense", "nowhere/at/all"):
        assert name in refused("transfer", "tuned/gptq", "reference-gptq", "--dense", name, *what)


def test_a_bank_of_another_width_is_refused(refused: Run) -> None:
    assert "another width" in refused("transfer", "dense", "reference", *SOME)


def test_an_unknown_model_and_an_unknown_bank_are_named(refused: Run) -> None:
    assert "referense" in refused("transfer", "tuned/gptq", "referense", *SOME)
    assert "nowhere" in refused("transfer", "nowhere", "reference", *SOME)
