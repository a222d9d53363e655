from __future__ import annotations

import json

import pytest

from idp.compress.calibration import Calibration

ROW = {"recipe": "rtn", "unquantised": [], "bytes_after": 2_000_000, "zeros": 0.25, "perplexity_after": 3.0}


def test_the_table_by_hand(script):
    study = script("study_compression")
    dense = {**ROW, "recipe": "none (dense)", "bytes_after": 4_000_000, "zeros": 0.0, "accuracy": 99.5, "seconds": 0.0}
    left = {**ROW, "unquantised": ["a", "b"], "accuracy": 90.0, "seconds": 1.25}
    lines = study.table(dense, [left]).splitlines()
    assert lines[2] == "| `none (dense)` | 4.00 | 0% | 3.000 | 99.50 | 0.0 |"
    assert lines[3] == "| `rtn` (2 layers left out) | 2.00 | 25% | 3.000 | 90.00 | 1.2 |"


@pytest.mark.slow
def test_what_was_measured_is_kept(script, tmp_path, watcher, monkeypatch):
    study = script("study_compression")
    monkeypatch.setattr(study, "accuracy", lambda model, folder, observer: 12.5)
    text = Calibration(rows=2, row_tokens=64, held_out=1)
    row = study.measure("reference-dense", "autoround:bits=3,iterations=1", tmp_path, text, 0, watcher())
    assert row["accuracy"] == 12.5
    assert not row["unquantised"]  # although 32 does not divide its widths
    monkeypatch.setattr(study, "compress", pytest.fail)
    again = study.measure("reference-dense", "autoround:bits=3,iterations=1", tmp_path, text, 0, watcher())
    assert again == json.loads(json.dumps(row))
