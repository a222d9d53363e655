from __future__ import annotations

import time

import pytest

from idp.evaluate.timing import timed


def test_gives_the_result_and_the_seconds():
    result, seconds = timed(lambda: time.sleep(0.02) or "done")
    assert result == "done"
    assert 0.02 <= seconds < 1


def test_an_error_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        timed(lambda: 1 / 0)
