from __future__ import annotations

import json

import pytest


@pytest.fixture
def study(script, monkeypatch):
    module = script("study_tuning")
    monkeypatch.setattr(module, "LENGTHS", (1, 16))
    monkeypatch.setattr(module, "OBJECTIVES", ("answer",))
    monkeypatch.setattr(module, "STARTS", ("frequent", "labels"))
    return module


def test_every_length_and_start_once_a_seed(study):
    found = list(study.runs(2))
    assert [(run.length, run.start, run.seed) for run in found[:3]] == [
        (1, "frequent", 0),
        (16, "frequent", 0),
        (16, "labels", 0),
    ]
    assert len(found) == len(set(found)) == 6
    assert len({run.name for run in found}) == 6


def test_tables_by_hand(study):
    found = dict(zip(study.runs(2), [0.55, 0.6, 0.65, 0.57, 0.7, 0.65], strict=True))
    by_length, by_start = study.tables(found, {"dense": 0.9, "compressed": 0.5})
    cells = [list(column.cells) for column in by_length.columns]
    assert cells == [["1", "16"], ["15.0 % [12.5, 17.5]", "37.5 % [25.0, 50.0]"]]
    assert list(by_start.columns[1].cells) == ["37.5 % [25.0, 50.0]", "37.5 % [37.5, 37.5]"]


@pytest.mark.slow
def test_runs_once_and_then_only_prints(study, tmp_path, monkeypatch, capsys):
    arguments = {"model": "reference", "steps": 1, "atlas": 40, "limit": 2, "seeds": 1, "out": tmp_path, "debug": False}
    study.main(**arguments)
    first = capsys.readouterr().out
    results = [json.loads(path.read_text()) for path in tmp_path.glob("reference/*/result.json")]
    assert len(results) == 3
    assert "labels" in first
    monkeypatch.setattr(study, "tune", lambda *_, **__: pytest.fail("tuned again"))
    study.main(**arguments)
    assert capsys.readouterr().out == first
