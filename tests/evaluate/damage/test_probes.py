from __future__ import annotations

import random

import numpy as np
import pytest

from idp.errors import TaskError
from idp.evaluate.damage.probes import Probe, ask, file_probes, is_right, usable
from idp.evaluate.damage.world import knows_world, world_documents, world_probes
from idp.model.aliases import resolve
from idp.model.load import load, load_tokenizer
from idp.reference.corpus import epoch_documents
from idp.reference.world import build_world
from idp.run.score import Score, Scored
from idp.tune.examples import Example
from idp.tune.questions import read_questions


def example(*lengths, answer=0):
    return Example((1, 5), tuple(tuple(range(3, 3 + length)) for length in lengths), answer, "quiz")


@pytest.mark.parametrize(
    ("scores", "answer", "right"),
    [
        ([-1.0, -2.0], 0, True),
        ([-1.0, -2.0], 1, False),
        ([-3.0, -2.0, -9.0], 1, True),
    ],
)
def test_the_likeliest_option_is_the_answer(scores, answer, right):
    scored = Scored(tuple(Score(value, False) for value in scores), 0.0)
    assert is_right(example(*[1] * len(scores), answer=answer), scored) is right


@pytest.mark.parametrize("greedy", [True, False])
def test_a_single_answer_has_to_be_said(greedy):
    assert is_right(example(2), Scored((Score(-1.0, greedy),), 0.0)) is greedy


def test_labels_of_a_file(tiny_lm, quiz):
    probes = file_probes(tiny_lm(), read_questions(quiz))
    assert [probe.labels for probe in probes] == [("quiz", "people"), ("quiz", "things"), ("quiz", "people")]
    quiz.write_text('{"question": "Who?", "answer": "Ann"}\n')
    assert file_probes(tiny_lm(), read_questions(quiz))[0].labels == ("quiz",)


def test_a_question_without_an_answer_is_refused(tiny_lm, quiz):
    quiz.write_text(quiz.read_text() + '{"question": "Who?"}\n')
    with pytest.raises(TaskError, match="1 of 4 questions have no answer"):
        file_probes(tiny_lm(), read_questions(quiz))


def test_what_does_not_fit_is_left_out_and_said(tiny_lm, caplog):
    long = Probe(("long",), example(300))
    short = Probe(("short",), example(3))
    assert usable(tiny_lm(), [long, short]) == [short]
    assert "1 questions are too long" in caplog.text
    with pytest.raises(TaskError, match="none of 1 questions"):
        usable(tiny_lm(), [long])


def test_rows_count_what_shares_their_labels(tiny_lm, changed, quiz):
    lm, other = tiny_lm(), changed(tiny_lm(), 1.5, 0, 1)
    told = []
    probes = file_probes(lm, read_questions(quiz)) * 20
    rows = ask(lm, other, probes, advance=told.append)
    assert sum(told) == 2 * len(probes)
    assert {row.labels: row.questions for row in rows} == {
        ("quiz",): 60,
        ("quiz", "people"): 40,
        ("quiz", "things"): 20,
    }
    whole, people, things = rows
    for name in ("dense", "compressed"):
        mean = (2 * getattr(people, name) + getattr(things, name)) / 3
        assert getattr(whole, name) == pytest.approx(mean)
    for row in rows:
        assert row.difference.value == pytest.approx(row.compressed - row.dense)
        assert row.difference.low <= row.difference.value <= row.difference.high


def test_a_model_knows_what_it_knows(tiny_lm, quiz):
    rows = ask(tiny_lm(), tiny_lm(), file_probes(tiny_lm(), read_questions(quiz)))
    assert [(row.difference.value, row.p) for row in rows] == [(0.0, 1.0)] * 3


def test_only_the_reference_models_know_the_world(tiny_lm):
    assert knows_world(load_tokenizer(resolve("reference-gptq")))
    assert not knows_world(tiny_lm().tokenizer)


def test_the_text_is_worded_as_nothing_before():
    world = build_world(0)
    documents = set(world_documents())
    seen = {document for epoch in (74, 100, 1000, 10_000) for document in epoch_documents(world, epoch)}
    stories = {document for document in documents if len(document) > 200}
    assert len(stories) > 300
    assert len(stories & seen) < 0.01 * len(stories)


@pytest.fixture(scope="module")
def dense():
    return load("reference-dense", "cpu", "float32")


def test_the_world_is_asked_by_kind_of_fact(dense):
    probes = world_probes(dense, 2)
    world = build_world(0)
    by_task = {task: [p for p in probes if p.labels[0] == task] for task in ("closed book", "open book", "two hops")}
    assert sum(map(len, by_task.values())) == len(probes)
    relations = {p.labels[2] for p in by_task["closed book"]}
    assert relations == set(world.atlas.relations)
    assert all(p.labels[1] == world.atlas.relations[p.labels[2]].domain for p in by_task["closed book"])
    assert {p.labels[2] for p in by_task["two hops"]} == set(world.atlas.chains)
    assert {len(p.example.continuations) for p in by_task["closed book"]} == {4}


def test_only_evaluation_facts_are_asked_the_same_with_and_without_a_book(dense):
    asked = {
        task: [dense.tokenizer.decode(p.example.context) for p in world_probes(dense, 2) if p.labels[0] == task]
        for task in ("closed book", "open book")
    }
    evaluated = {fact.subject for fact in build_world(0).by_split["evaluation"]}
    for context in asked["closed book"]:
        assert any(subject.lower() in context.lower() for subject in evaluated)
    questions = {context.rpartition("Question:")[2] for context in asked["closed book"]}
    assert {context.rpartition("Question:")[2] for context in asked["open book"]} <= questions
    assert all(context.partition("Question:")[0].strip() for context in asked["open book"])


def test_the_same_seed_asks_the_same(dense):
    assert world_probes(dense, 1, seed=3) == world_probes(dense, 1, seed=3) != world_probes(dense, 1, seed=4)


def test_the_dense_model_knows_and_a_damaged_one_does_not(dense, changed):
    probes = random.Random(0).sample(world_probes(dense, 5), 60)
    rows = ask(dense, changed(dense, 1.0, 0, 1, 2, 3), [Probe(probe.labels[:1], probe.example) for probe in probes])
    questions = np.array([row.questions for row in rows])
    assert (questions @ [row.dense for row in rows]) / 60 > 0.95
    assert (questions @ [row.compressed for row in rows]) / 60 < 0.6
