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


def test_a_bank_of_another_width_is_refused(refused: Run) -> None:
    assert "another width" in refused("transfer", "dense", "reference", *SOME)


def test_an_unknown_model_and_an_unknown_bank_are_named(refused: Run) -> None:
    assert "referense" in refused("transfer", "tuned/gptq", "referense", *SOME)
    assert "nowhere" in refused("transfer", "nowhere", "reference", *SOME)
