from __future__ import annotations

import copy
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.select.scores import Scores

FLOATS = st.lists(st.floats(allow_nan=False), min_size=1, max_size=6)


@given(FLOATS, st.data())
def test_scores_are_a_tuple_for_all_that_one_does_with_one(values, data):
    wanted, scores = tuple(values), Scores(len(values), lambda: np.array(values))
    assert scores == wanted and wanted == scores and scores == Scores(len(values), lambda: np.array(values))
    assert hash(scores) == hash(wanted) and repr(scores) == repr(wanted)
    assert list(scores) == values and list(reversed(scores)) == values[::-1]
    assert max(scores) in scores and scores.index(max(scores)) == wanted.index(max(wanted))
    index = data.draw(st.integers(-len(values), len(values) - 1))
    assert scores[index] == wanted[index] and type(scores[index]) is float
    assert scores[:index] == wanted[:index]
    assert scores != (*wanted, 0.0) and scores != values


def test_nothing_is_made_before_somebody_looks_and_then_once():
    made = []

    def row():
        made.append(1)
        return np.zeros(3)

    scores = Scores(3, row)
    assert len(scores) == 3 and made == []
    assert scores[0] == scores[-1] == 0.0 and made == [1]
    with pytest.raises(IndexError):
        scores[3]


def test_another_process_and_a_copy_get_the_same_numbers():
    scores = Scores(2, lambda: np.array([0.25, -np.inf]))
    assert ForkingPickler.loads(ForkingPickler.dumps(scores)) == scores == copy.deepcopy(scores)
