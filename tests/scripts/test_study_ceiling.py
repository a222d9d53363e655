from __future__ import annotations

import pytest


@pytest.mark.slow
def test_dense_and_compressed_are_the_ends_of_the_gap(script, capsys):
    script("study_ceiling").main("reference", rank=2, steps=30, lr=1e-2, atlas=60, seed=0, debug=False)
    printed = capsys.readouterr().out
    shares = [float(line.split("│")[3].strip(" %")) for line in printed.splitlines() if line.count("│") > 3]
    assert shares[:2] == [100.0, 0.0]
    assert -50.0 < shares[2] < 100.0
