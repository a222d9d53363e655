from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def bench(script):
    return script("bench_load")


@pytest.mark.slow
def test_both_sides_are_measured_in_turn(bench, tmp_path):
    app = typer.Typer()
    app.command()(bench.main)
    options = ["--quick", "--kinds", "dense,gguf-q4", "--repeats", "1", "--folder", tmp_path / "made"]
    result = CliRunner().invoke(app, [*map(str, options), "--json", str(tmp_path / "rows.json")])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["work"]) for row in rows] == [
        (kind, work)
        for kind in ("dense", "gguf-q4")
        for work in ("load", "load, first token", "peak memory, first token")
    ]
    assert all(row["ratio"] == pytest.approx(row["against_seconds"] / row["seconds"]) for row in rows)


def test_what_cannot_be_loaded_is_one_line(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "CHILD", "import sys; sys.exit('no such model')")
    with pytest.raises(typer.BadParameter, match="idp cannot load .*: no such model"):
        bench.measure("idp", tmp_path)


def test_the_order_is_swapped_every_repeat(bench, monkeypatch, tmp_path):
    order = []
    monkeypatch.setattr(
        bench, "measure", lambda side, path: order.append(side) or {"seconds": 1.0, "first": 2.0, "peak": 3.0}
    )
    rows = bench.rows_of("dense", tmp_path, 2)
    assert order == ["idp", "transformers", "transformers", "idp", "idp", "transformers"]
    assert [row.ratio for row in rows] == [1.0, 1.0, 1.0]


def test_a_model_that_is_there_is_measured_as_it_is(bench, monkeypatch, tmp_path):
    file = tmp_path / "some.gguf"
    file.touch()
    monkeypatch.setattr(bench, "measure", lambda side, path: {"seconds": 1.0, "first": 2.0, "peak": 3.0})
    assert bench.checkpoint(str(file), tmp_path / "dense", tmp_path) == file
    assert {row.model for row in bench.rows_of(str(file), file, 1)} == {"some.gguf"}
