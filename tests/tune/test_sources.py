from __future__ import annotations

import json

import pytest

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.observer import Silent
from idp.tune.config import BuildConfig
from idp.tune.questions import Question, encode_questions, read_questions
from idp.tune.sources import Gathered, gather, prepare, reported, text_of


@pytest.fixture
def folder(tmp_path):
    """Running text, and questions with answers and without."""
    (tmp_path / "river.txt").write_text("The river runs past the old mill every evening. " * 40)
    rows = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(12)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"question": f"What is {n} and {n}?"} for n in range(4)]
    (tmp_path / "open.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_text_and_questions_are_put_together(tiny_lm, folder):
    config = BuildConfig(text=(str(folder / "river.txt"),), questions=(str(folder / "sums.jsonl"),), row_tokens=20)
    found = gather(tiny_lm(), config, lambda: None, folder, Silent())
    assert found.counts["sums.jsonl"] == 12
    assert found.counts["river.txt"] == sum(example.is_text for example in found.examples) > 3


def test_a_limit_holds_for_each_source(tiny_lm, folder):
    names = (str(folder / "river.txt"),), (str(folder / "sums.jsonl"),)
    found = gather(
        tiny_lm(),
        BuildConfig(text=names[0], questions=names[1], row_tokens=20, limit=3),
        lambda: None,
        folder,
        Silent(),
    )
    assert found.counts == {"river.txt": 3, "sums.jsonl": 3}


def test_the_teacher_answers_what_is_unlabelled(tiny_lm, folder, watcher):
    config = BuildConfig(questions=(str(folder / "open.jsonl"),))
    with pytest.raises(TaskError, match="without answers"):
        gather(tiny_lm(), config, lambda: None, folder, Silent())
    told = watcher()
    found = gather(tiny_lm(), config, lambda: tiny_lm(seed=1), folder / "work", told)
    assert all(example.right for example in found.examples)
    assert [stage[1:] for stage in told.stages] == [[4, 4]]
    again = watcher()
    assert gather(tiny_lm(), config, lambda: tiny_lm(seed=1), folder / "work", again) == found  # it is asked once
    assert [stage[1:] for stage in again.stages] == [[4, 4]]


def test_a_part_is_held_out_and_everything_counted(tiny_lm, folder):
    config = BuildConfig(questions=(str(folder / "sums.jsonl"),))
    data = prepare(tiny_lm(), gather(tiny_lm(), config, lambda: None, folder, Silent()), config)
    assert (len(data.tuning), len(data.held_out)) == (9, 3)
    assert not {e.context for e in data.tuning} & {e.context for e in data.held_out}
    assert data.about == {"sources": {"sums.jsonl": 12}, "tuning": 9, "held_out": 3}


def test_what_is_evaluated_on_is_left_out_and_reported(tiny_lm, folder):
    config = BuildConfig(questions=(str(folder / "sums.jsonl"),))
    found = gather(tiny_lm(), config, lambda: None, folder, Silent())
    items = ["question what is 3 and 3 answer 6", "Question: What is 4 and 4?\nAnswer: 9"]
    notes = []
    data = prepare(tiny_lm(), found, config, items, notes.append)
    assert data.about["overlap"]["found"] == 1
    assert data.about["overlap"]["examples"] == ["Question: What is 3 and 3? Answer: 6"]
    assert notes == ["1 of 12 tuning items overlap with evaluation items and are left out"]
    assert not any("3 and 3" in text_of(tiny_lm(), e) for e in [*data.tuning, *data.held_out])


def test_data_that_is_apart_by_construction_is_reported_on_and_kept(tiny_lm, folder):
    config = BuildConfig(questions=(str(folder / "sums.jsonl"),))
    data = prepare(tiny_lm(), gather(tiny_lm(), config, lambda: None, folder, Silent()), config)
    known = [text_of(tiny_lm(), data.tuning[2]), text_of(tiny_lm(), data.held_out[0])]
    same = reported(tiny_lm(), data, known, "by chance")
    assert (same.tuning, same.held_out) == (data.tuning, data.held_out)
    assert (same.about["overlap"]["found"], same.about["overlap"]["checked"]) == (2, 12)
    assert same.about["overlap"]["kept"] == "by chance"


def test_the_field_of_text_can_be_named(tiny_lm, folder):
    rows = [{"body": "The river runs past the old mill. " * 9}]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = BuildConfig(text=(str(folder / "rows.jsonl"),), row_tokens=20)
    with pytest.raises(TaskError, match="no text in a field 'text'"):
        gather(tiny_lm(), config, lambda: None, folder, Silent())
    found = gather(tiny_lm(), config.changed({"text_field": "body"}), lambda: None, folder, Silent())
    assert found.counts["rows.jsonl"] > 3


def test_room_is_left_for_the_longest_text_of_a_pool(tiny_lm, folder):
    lm = tiny_lm()
    PromptBank([Prompt("long", text="Think of what you knew before. " * 12)]).save(folder / "pool")
    sums = read_questions(folder / "sums.jsonl")
    long = Question(sums[0].context + " really" * 40, sums[0].options, 0, "long")
    found = Gathered(encode_questions(lm, [*sums, long]), {})
    config = BuildConfig(method="texts", pool=str(folder / "pool"))
    kept = [prepare(lm, found, each) for each in (BuildConfig(), config)]
    assert [len(data.tuning) + len(data.held_out) for data in kept] == [13, 12]


def test_nothing_left_is_an_error(tiny_lm, folder):
    config = BuildConfig(questions=(str(folder / "sums.jsonl"),))
    found = gather(tiny_lm(), config, lambda: None, folder, Silent())
    with pytest.raises(TaskError, match="every tuning item"):
        prepare(tiny_lm(), found, config, [text_of(tiny_lm(), example) for example in found.examples])
    with pytest.raises(TaskError, match="nothing to tune on"):
        prepare(tiny_lm(), Gathered([], {}), config)
    with pytest.raises(TaskError, match="too small"):
        prepare(tiny_lm(), Gathered(found.examples[:1], {}), config)


def test_questions_are_read_as_running_text_too_on_the_side_they_are_on(tiny_lm, folder):
    config = BuildConfig(questions=(str(folder / "sums.jsonl"),), as_text=0.67)
    lm = tiny_lm()
    data = prepare(lm, gather(lm, config, lambda: None, folder, Silent()), config)
    for side, count in ((data.tuning, 6), (data.held_out, 2)):
        asked = {text_of(lm, example) for example in side if not example.is_text}
        read = [text_of(lm, example) for example in side if example.is_text]
        assert len(read) == count and set(read) <= asked
    assert (data.about["tuning"], data.about["held_out"]) == (9 + 6, 3 + 2)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_no_more_questions_than_there_are_can_be_read_as_text(share):
    with pytest.raises(TaskError, match="as text"):
        BuildConfig(as_text=share)
