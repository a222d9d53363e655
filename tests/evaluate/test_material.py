from __future__ import annotations

import pytest
from local_tasks import CASES, write_cases

import idp
from idp.errors import TaskError
from idp.evaluate.material import evaluation_texts, training_items
from idp.tune.overlap import overlaps
from idp.tune.sources import text_of


@pytest.fixture(scope="module")
def lm():
    return idp.load("reference", dtype="float32")


def test_training_items_of_tasks(lm):
    found = training_items(lm, ["atlas_easy", "atlas_short"], limit=5)
    assert found.counts == {"atlas_easy": 5, "atlas_short": 5}
    assert [example.group for example in found.examples] == ["atlas_easy"] * 5 + ["atlas_short"] * 5


def test_no_training_item_is_an_evaluation_item_and_one_that_is_would_be_found(lm):
    texts = list(evaluation_texts(["atlas_easy"]))
    items = [text_of(lm, example) for example in training_items(lm, ["atlas_easy"], limit=200).examples]
    assert len(texts) >= 400
    assert overlaps(items, texts) == []
    assert overlaps([items[0], texts[7]], texts) == [1]


def test_tasks_are_read_from_a_folder(lm, tmp_path):
    folder = write_cases(tmp_path, ["piqa"])
    assert training_items(lm, ["piqa"], data_dir=folder).counts == {"piqa": 6}
    assert CASES["piqa"].row["question"] in next(evaluation_texts(["piqa"], folder))


def test_no_tasks_have_no_texts():
    assert list(evaluation_texts([])) == []


@pytest.mark.parametrize("name", ["atlas_control", "atlas_eazy"])
def test_tasks_that_cannot_be_tuned_on_are_refused(lm, name):
    with pytest.raises(TaskError, match=name):
        training_items(lm, [name])
