from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.model import TemplateLM
from lm_eval.models.huggingface import HFLM

from idp.errors import TaskError
from idp.tune.examples import Example, encode, fitting, reading


def lm_eval_tokens(lm, text):
    """`HFLM.tok_encode` itself, on a stand-in that has what it reads."""
    model = SimpleNamespace(
        tokenizer=lm.tokenizer, add_bos_token=None, prefix_token_id=lm.prefix_token_id, backend="causal"
    )
    return HFLM.tok_encode(model, text)


def lm_eval_pair(lm, context, continuation):
    model = SimpleNamespace(backend="causal", tok_encode=lambda text: lm_eval_tokens(lm, text))
    return TemplateLM._encode_pair(model, context, continuation)


@pytest.mark.parametrize(
    ("context", "options"),
    [
        ("Question: Is a whale a fish?\nAnswer:", [" yes", " no, a mammal"]),
        ("The river runs ", ["past", "under the mill"]),
        ("<s>Already begun:", [" Paris"]),
        ("   ", [" a", "b"]),
    ],
)
def test_tokenizes_as_lm_eval_does(tiny_lm, context, options):
    lm = tiny_lm()
    example = encode(lm, context, options, 0, "task")
    for option, ids in zip(options, example.continuations, strict=True):
        assert (list(example.context), list(ids)) == lm_eval_pair(lm, context, option)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(context=st.text(min_size=1, max_size=20).filter(str.strip), option=st.text("ab é", min_size=1, max_size=8))
def test_tokenizes_as_lm_eval_does_for_any_text(tiny_lm, context, option):
    lm = tiny_lm()
    read, own = lm_eval_pair(lm, context, f" x{option}")
    example = encode(lm, context, [f" x{option}"], 0, "task")
    assert (list(example.context), list(example.right)) == (read, own)


def test_running_text_has_the_prefix_token_as_context(tiny_lm):
    lm = tiny_lm()
    example = encode(lm, "", ["The river runs."], 0, "text")
    assert example.context == (1,)
    assert list(example.right) == lm_eval_tokens(lm, "The river runs.")
    assert example.is_text


def test_an_answered_question_is_no_running_text(tiny_lm):
    assert not encode(tiny_lm(), "Question:", [" yes"], 0, "short").is_text


def test_option_without_tokens_is_named(tiny_lm):
    with pytest.raises(TaskError, match=r"'easy' has an option without tokens"):
        encode(tiny_lm(), "Question:", [" yes", ""], 0, "easy")


@pytest.mark.parametrize("answer", [-1, 2])
def test_answer_outside_the_options_is_refused(answer):
    with pytest.raises(TaskError, match="only 2 options"):
        Example((1,), ((2,), (3,)), answer, "easy")


def test_empty_context_is_refused():
    with pytest.raises(TaskError, match="no context"):
        Example((), ((2,),), 0, "easy")


def test_no_options_are_refused():
    with pytest.raises(TaskError, match="without tokens"):
        Example((1,), (), 0, "easy")


QUESTION = Example(tuple(range(1, 9)), ((1, 2), (3,)), answer=0, group="easy")
TEXT = Example((1,), (tuple(range(2, 1000)),), answer=0, group="text")


def test_what_fits_stays_as_it_is(tiny_lm):
    assert fitting(tiny_lm(), [QUESTION], 246) == [QUESTION]


def test_questions_that_are_too_long_are_left_out_and_counted(tiny_lm, caplog):
    short = Example((1,), ((1,), (2,)), answer=0, group="easy")
    with caplog.at_level(logging.WARNING):
        assert fitting(tiny_lm(), [QUESTION, short, QUESTION], 247) == [short]
    assert "2 examples are too long" in caplog.text


@pytest.mark.parametrize(
    ("prompt", "kept", "length"), [(236, None, 19), (0, None, 255), (236, 10, 10), (0, 256, 255), (254, 10, 1)]
)
def test_running_text_is_cut_to_its_beginning(tiny_lm, prompt, kept, length):
    (cut,) = fitting(tiny_lm(), [TEXT], prompt, text_tokens=kept)
    assert cut.right == TEXT.right[:length]
    assert (cut.context, cut.group) == (TEXT.context, TEXT.group)


@pytest.mark.parametrize(("examples", "prompt"), [([QUESTION], 252), ([TEXT], 255), ([TEXT, QUESTION], 300), ([], 0)])
def test_nothing_that_fits_is_an_error(tiny_lm, examples, prompt):
    with pytest.raises(TaskError, match=f"none of {len(examples)} examples fits into the 256 tokens"):
        fitting(tiny_lm(), examples, prompt)


def test_what_a_prompt_is_chosen_by(tiny_lm):
    lm = tiny_lm()
    question = Example((1, 7, 8), ((4,),), 0, "easy")
    text = Example((lm.prefix_token_id,), ((8, 9, 4),), 0, "text")
    row = Example((7,), ((8, 9, 4),), 0, "text")
    assert [reading(lm, each) for each in (question, text, row)] == [(1, 7, 8), (lm.prefix_token_id,), (7, 8)]
    assert reading(lm, Example((7,), ((8,),), 0, "text")) == (7,)
