"""Training items that do not fit into the context are cut or left out before they are measured."""

from __future__ import annotations

import pytest

from idp.errors import TaskError
from idp.evaluate.calibration import TEXT_TOKENS, fitting
from idp.tune.examples import Example

QUESTION = Example(tuple(range(1, 9)), ((1, 2), (3,)), answer=0, group="easy")
TEXT = Example((1,), (tuple(range(2, 1000)),), answer=0, group="text")


def test_what_fits_stays_as_it_is() -> None:
    assert fitting([QUESTION], room=10) == [QUESTION]


def test_questions_that_are_too_long_are_left_out() -> None:
    short = Example((1,), ((1,), (2,)), answer=0, group="easy")
    assert fitting([QUESTION, short], room=9) == [short]


@pytest.mark.parametrize(("room", "length"), [(20, 19), (5000, TEXT_TOKENS)])
def test_running_text_is_cut_to_its_beginning(room: int, length: int) -> None:
    (cut,) = fitting([TEXT], room)
    assert cut.right == TEXT.right[:length]
    assert (cut.context, cut.group) == (TEXT.context, TEXT.group)


def test_nothing_that_fits() -> None:
    with pytest.raises(TaskError, match="--no-fit"):
        fitting([QUESTION], room=4)
