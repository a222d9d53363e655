from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance

from idp.evaluate.contexts import seen_contexts, stem


@pytest.mark.parametrize(
    ("contexts", "seen"),
    [
        (["Ann told Sam that Ann", "Ann told Sam that Sam"], "Ann told Sam that"),
        (["Ann told Sam that Sam", "Ann told Sam that Sally"], "Ann told Sam that"),
        (["so the sea", "so the river"], "so the"),
        (["It was Sam", "It was Samantha"], "It was"),
        (["Ann", "Sam"], ""),
        (["Anna", "Anne"], ""),
        (["A first one.\n\nAnna", "A first one.\n\nAnne"], "A first one."),
        (["the same", "the same"], None),
        (["only one"], None),
    ],
)
def test_a_stem_is_what_contexts_share_in_whole_words(contexts, seen):
    assert stem(contexts) == seen


def request(context, task=None, doc=None):
    return Instance("loglikelihood", {}, (context, " end"), 0, (task, doc, 1))


def test_contexts_belong_to_the_question_of_their_task():
    requests = [request("so Ann", "a", 0), request("so Sam", "a", 0), request("so Bea", "b", 0), request("my", "a", 1)]
    assert seen_contexts(requests) == ["so", "so", None, None]


def test_requests_of_no_task_stand_for_themselves():
    assert seen_contexts([request("so Ann"), request("so Sam")]) == [None, None]


def test_an_option_asked_for_by_itself_takes_nothing_from_the_context():
    assert seen_contexts([request("so Ann", "a", 0), request("", "a", 0)]) == [None, None]
