from __future__ import annotations

import pytest

from idp.tune.examples import Example


def test_only_answers_are_labelled(script):
    study = script("study_ceiling")
    examples = [Example((1, 5), ((6,), (7, 8)), 1, "a"), Example((1,), ((9,),), 0, "b")]
    ids, mask, labels = study.padded(examples, pad=0)
    assert ids.tolist() == [[1, 5, 7, 8], [1, 9, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert labels.tolist() == [[-100, -100, 7, 8], [-100, 9, -100, -100]]


@pytest.mark.slow
def test_dense_and_compressed_are_the_ends_of_the_gap(script, capsys):
    script("study_ceiling").main("reference", rank=2, steps=30, lr=1e-2, atlas=60, seed=0, debug=False)
    printed = capsys.readouterr().out
    shares = [float(line.split("│")[3].strip(" %")) for line in printed.splitlines() if line.count("│") > 3]
    assert shares[:2] == [100.0, 0.0]
    assert -50.0 < shares[2] < 100.0
