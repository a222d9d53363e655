"""Running a benchmark as its user does, with a tiny model."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner


@pytest.fixture
def run_script(tiny_lm, tmp_path):
    """Run the `main` of a benchmark quickly; returns the rows that it wrote."""
    tiny_lm().model.save_pretrained(tmp_path / "model")
    tiny_lm().tokenizer.save_pretrained(tmp_path / "model")

    def run(main):
        app = typer.Typer()
        app.command()(main)
        options = ["--quick", "--device", "cpu", "--dtype", "float32", "--json", str(tmp_path / "rows.json")]
        result = CliRunner().invoke(app, ["--models", str(tmp_path / "model"), *options])
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "rows.json").read_text())

    return run
