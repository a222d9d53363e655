from __future__ import annotations

import json
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def bench(script):
    return script("bench_select")


def test_inputs_are_of_their_prompts_words_where_they_have_any(bench):
    parts = bench.inputs_of("parts", [0, 1, 0, 150], 32_000, seed=0)
    words = [set(bench.words_of(owner, 32_000).tolist()) for owner in (0, 1, 0, 150)]
    for ids, own in zip(parts, words, strict=True):
        assert len(ids) == bench.LENGTH
        assert sum(token in own for token in ids) > bench.LENGTH / 2
    assert words[0] == words[2] and words[0] & words[1] and not words[0] & words[3]
    assert parts == bench.inputs_of("parts", [0, 1, 0, 150], 32_000, seed=0)
    assert parts[0] != parts[2]
    texts = bench.inputs_of("texts", [0], 32_000, seed=0)
    assert sum(token in words[0] for token in texts[0]) < bench.LENGTH / 2


@pytest.fixture
def small(bench, monkeypatch):
    """The script with little to time."""
    monkeypatch.setattr(bench, "ALONE", 2)
    monkeypatch.setattr(bench, "BATCH", 4)
    return bench


class Here:
    """An executor that runs in this process."""

    def __init__(self, *_):
        self.submit = lambda call, *arguments: SimpleNamespace(result=lambda: call(*arguments))

    __enter__ = __exit__ = lambda self, *_: self


def test_banks_are_made_opened_measured_and_told_of(small, tiny_lm, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(small, "model", lambda *_: tiny_lm())
    monkeypatch.setattr(small, "ProcessPoolExecutor", Here)
    options = {"repeats": 2, "threads": 0, "seed": 0, "quick": True, "json": tmp_path / "rows.json"}
    small.main(sizes="", kinds="parts", width=32, tokens=2, **options)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["prompts"] for row in rows] == [10, 100]
    for row in rows:
        assert set(row) == {*small.COLUMNS, "environment"}
        assert row["recall"] > 0.9
        assert all(value > 0 for name, value in row.items() if name.endswith(("_ms", "_s", "ratio", "process_mb")))
    assert "parts" in capsys.readouterr().out


@pytest.mark.slow
def test_more_prompts_than_are_compared_one_by_one(small, tmp_path):
    """Narrow ones, so that the bank is made soon; the script itself makes 100,000."""
    lm = small.model(32, seed=0)
    small.save_bank(tmp_path, lm, "parts", 12_000, 6, seed=0)
    row = small.measured(tmp_path, "parts", 32, repeats=2, seed=0, threads=0)
    assert row["recall"] >= 0.98
    assert row["added_mb"] < 600
