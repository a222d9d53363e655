from __future__ import annotations

from idp.report.words import arm_title, interval, measure, p_text, percent, points
from idp.stats.resampling import Interval


def test_the_words_for_numbers():
    assert [percent(None), percent(float("nan")), percent(0.123), percent(0.12345, 2)] == ["-", "-", "12.3", "12.35"]
    assert interval(None) == "-"
    assert [p_text(0.0001), p_text(0.0123)] == ["<0.001", "0.012"]

    assert p_text(None) == "-"
    assert points(Interval(0.012, -0.003, 0.0271)) == "+1.20 [-0.30, +2.71]"


def test_the_metric_of_a_task_that_may_be_anything():
    assert [measure(value, True) for value in (0.5, -0.25, 1.5, None)] == ["50.0", "-25.0", "1.50", "-"]
    assert [measure(value, False) for value in (0.5, 3.1729, 9999.0, 1.5e9)] == ["0.50", "3.17", "9999.00", "1.50e+09"]
    assert measure(float("inf"), False) == "-"


def test_a_bound_is_called_one():
    assert [arm_title(name) for name in ("router", "oracle")] == ["router", "oracle (bound)"]
