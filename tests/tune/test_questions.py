from __future__ import annotations

import gzip
import json
import logging

import pytest

from idp.errors import TaskError
from idp.tune.examples import encode
from idp.tune.questions import Question, encode_questions, read_questions

QUESTION = "Question: Who?\nAnswer:"


@pytest.fixture
def read(tmp_path):
    """Read questions from rows that are written to a file before."""

    def run(*rows, **options):
        path = tmp_path / "quiz.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return read_questions(path, **options)

    return run


@pytest.mark.parametrize(
    ("row", "context", "options", "answer"),
    [
        ({"question": "Who?", "answers": ["Ann", "Anna"]}, QUESTION, (" Ann",), 0),
        ({"question": "Who?", "answer": "Ann"}, QUESTION, (" Ann",), 0),
        ({"question": "Who?", "answer": "\tAnn"}, QUESTION, ("\tAnn",), 0),
        ({"question": "Who?", "choices": ["Ann", " Bo"], "answer": 1}, QUESTION, (" Ann", " Bo"), 1),
        ({"question": "Who?", "choices": ["Ann", "Bo"]}, QUESTION, (" Ann", " Bo"), None),
        ({"question": "Who?", "choices": ["Ann", "Bo"], "answer": None}, QUESTION, (" Ann", " Bo"), None),
        ({"question": "Who?"}, QUESTION, (), None),
        ({"question": "Who?", "context": "Ann came."}, f"Ann came.\n{QUESTION}", (), None),
        ({"question": "Who?", "context": "Ann came.", "answer": "Ann"}, f"Ann came.\n{QUESTION}", (" Ann",), 0),
        ({"context": "Ann", "continuations": ["came", " left"], "answer": 1}, "Ann", ("came", " left"), 1),
        ({"context": "Ann", "continuations": ["came", " left"]}, "Ann", ("came", " left"), None),
    ],
)
def test_every_form_of_a_row(read, row, context, options, answer):
    assert read(row) == [Question(context, options, answer, "quiz")]


def test_groups_come_from_the_row_the_call_or_the_file(read, tmp_path):
    rows = {"question": "Who?", "group": "people"}, {"question": "Where?"}
    assert [question.group for question in read(*rows)] == ["people", "quiz"]
    assert [question.group for question in read(*rows, group="all")] == ["people", "all"]
    path = tmp_path / "packed.v2.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(rows[1]).encode()))
    assert read_questions(path)[0].group == "packed"


def test_a_kind_may_stand_beside_any_form(read):
    rows = {"question": "Who?", "kind": "people"}, {"context": "Ann", "continuations": ["came"], "kind": "deeds"}
    assert [question.kind for question in read(*rows, {"question": "Who?", "kind": None})] == ["people", "deeds", ""]
    with pytest.raises(TaskError, match="'kind' has to be a text"):
        read({"question": "Who?", "kind": 3})


def test_the_template_is_the_callers_braces_and_all(read):
    assert read({"question": "{who}?"}, template="{Q} {question} {}")[0].context == "{Q} {who}? {}"
    with pytest.raises(TaskError, match="no {question}"):
        read({"question": "Who?"}, template="Question:")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "Who?"', "not JSON"),
        ({}, r"the fields \(none\) make no question"),
        ({"answer": "Ann"}, "the fields answer make no question"),
        ({"context": "Ann came."}, "the fields context make no question"),
        ({"question": None}, r"the fields \(none\) make no question"),
        ({"continuations": ["a"], "answer": 0}, "the fields answer, continuations make"),
        ({"question": "Who?", "continuations": ["a"], "answer": 0}, "make no question"),
        ({"question": "Who?", "answer": "Ann", "answers": ["Ann"]}, "make no question"),
        ({"question": "Who?", "choices": ["a"], "answers": ["a"]}, "make no question"),
        ({"question": "Who?", "anwser": "Ann"}, "unknown field 'anwser'. Did you mean 'answer'"),
        ({"question": "Who?", "choices": ["Ann"], "answer": 1}, "answer 1 is none of the 1 options"),
        ({"question": "Who?", "choices": ["Ann"], "answer": -1}, "answer -1 is none"),
        ({"question": "Who?", "choices": ["Ann"], "answer": "Ann"}, "number of an option"),
        ({"question": "Who?", "choices": ["Ann", "Bo"], "answer": True}, "number of an option"),
        ({"question": "Who?", "answer": 3}, "'answer' has to be a text"),
        ({"question": " "}, "'question' has to be a text that is not empty"),
        ({"question": "Who?", "answer": ""}, "'answer' has to be a text that is not empty"),
        ({"question": "Who?", "answers": []}, "'answers' has to be a list"),
        ({"question": "Who?", "answers": "Ann"}, "'answers' has to be a list"),
        ({"question": "Who?", "choices": ["Ann", ""], "answer": 0}, "'choices' .* none of them empty"),
        ({"question": "Who?", "context": ""}, "'context' has to be a text"),
        ({"context": "", "continuations": ["a"], "answer": 0}, "'context' has to be a text"),
        ({"question": "Who?", "group": 3}, "'group' has to be a text"),
    ],
)
def test_a_bad_row_is_named_with_its_line(read, row, message):
    with pytest.raises(TaskError, match=rf"quiz\.jsonl, line 3: .*{message}"):
        read({"question": "Who?"}, "", row)


def test_a_file_without_questions_and_no_file(read, tmp_path):
    with pytest.raises(TaskError, match=r"quiz\.jsonl holds no questions"):
        read("")
    with pytest.raises(TaskError, match="cannot read"):
        read_questions(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("", (" a",), 0, "g"), "context is empty"),
        (("c", (" ",), 0, "g"), "option is empty"),
        (("c", (), 0, "g"), "none of the 0 options"),
        (("c", (), None, ""), "group is empty"),
    ],
)
def test_a_question_is_checked_wherever_it_is_made(fields, message):
    with pytest.raises(TaskError, match=message):
        Question(*fields)


def test_questions_are_tokenized_as_lm_eval_does(tiny_lm):
    lm = tiny_lm()
    questions = [Question(QUESTION, (" Anna", " Paris"), 1, "people"), Question("Yes,", (" two",), 0, "sums")]
    expected = [encode(lm, q.context, q.options, q.answer, q.group) for q in questions]
    assert encode_questions(lm, questions) == expected


def test_options_without_tokens_are_counted(tiny_lm, caplog, monkeypatch):
    lm = tiny_lm()
    good, bad = Question(QUESTION, (" Anna",), 0, "people"), Question(QUESTION, (" Anna", " nothing"), 0, "people")

    def lossy(lm, context, options, answer, group):
        return encode(lm, context, ["" if option == " nothing" else option for option in options], answer, group)

    monkeypatch.setattr("idp.tune.questions.encode", lossy)
    with caplog.at_level(logging.WARNING):
        assert encode_questions(lm, [bad, good, bad]) == encode_questions(lm, [good])
    assert "2 questions have an option without tokens" in caplog.text
    with pytest.raises(TaskError, match="no question whose options give tokens"):
        encode_questions(lm, [bad])


def test_questions_without_answers_are_not_made_up(tiny_lm):
    with pytest.raises(TaskError, match="1 questions have no answer"):
        encode_questions(tiny_lm(), [Question(QUESTION, (" Anna",), 0, "g"), Question(QUESTION, (" Anna",), None, "g")])
