"""Arms share what they compute: every prompt meets every item once."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from idp.evaluate import Settings


@pytest.fixture(scope="module")
def bench(script):
    return script("bench_eval")


@pytest.mark.slow
def test_all_arms_cost_little_more_than_every_prompt_on_every_item(bench, tmp_path):
    """Beyond those: every prompt's own prefill, and the half passes of selectors that look at hidden states.

    What is written takes a pass for each token more, for every prompt and item once.
    """
    tasks = ("atlas_easy", "atlas_pair", "atlas_last_word", "atlas_control", "atlas_trivia")
    asked = Settings(tasks=tasks, limit=40, device="cpu", dtype="float32", output_dir=tmp_path / "out")
    found = bench.cost(asked)
    assert found.arms == 9 and found.pairs == 5 * 40 * (16 + 2)  # every prompt, none, and the dense model
    assert found.pairs <= found.read <= 1.3 * found.pairs
    # As many as an answer of atlas_trivia may have tokens; beside a bank there is less room to write in, so without a
    # prompt it is written twice.
    assert 0 < found.written <= 16 * 40 * (16 + 3)


@pytest.mark.slow
def test_figures_are_shown_and_kept(bench, tmp_path):
    app = typer.Typer()
    app.command()(bench.main)
    result = CliRunner().invoke(app, ["--limit", "1", "--json", str(tmp_path / "out.json")])
    assert result.exit_code == 0, result.output
    assert "Evaluating reference" in result.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["pairs"] == 10 * 18 and found["seconds"] is None
    assert found["ratio"] == pytest.approx(found["read"] / found["pairs"])
