from __future__ import annotations

from idp.report.words import interval, p_text, percent, points
from idp.stats.resampling import Interval


def test_the_words_for_numbers():
    assert [percent(None), percent(float("nan")), percent(0.123), percent(0.12345, 2)] == ["-", "-", "12.3", "12.35"]
    assert interval(None) == "no dense"
    assert [p_text(0.0001), p_text(0.0123)] == ["<0.001", "0.012"]

    assert p_text(None) == "-"
    assert points(Interval(0.012, -0.003, 0.0271)) == "+1.20 [-0.30, +2.71]"
