from __future__ import annotations

import pytest
from lm_eval import utils

from idp.errors import TaskError
from idp.evaluate.tasks import _judged, columns, expand, load_tasks, suite_tasks, suites, templates_compiled_once


def test_suites_are_replaced_by_their_tasks_in_order_and_once():
    atlas = suites()["suites"]["atlas"]["tasks"]
    assert expand(["atlas"]) == atlas
    assert expand(["atlas_text", "atlas", "atlas_easy", "piqa"]) == [
        "atlas_text",
        *[task for task in atlas if task != "atlas_text"],
        "piqa",
    ]
    assert expand([]) == []


def test_suites_by_name_are_their_tasks_once():
    known = suites()["suites"]
    assert suite_tasks(["wide", "paper", "wide"]) == [*known["wide"]["tasks"], *known["paper"]["tasks"]]
    assert suite_tasks([]) == []


@pytest.mark.parametrize("name, meant", [("papper", "paper"), ("wid", "wide"), ("atlas_easy", "atlas")])
def test_an_unknown_suite_is_refused_and_its_near_misses_are_named(name, meant):
    with pytest.raises(
        TaskError, match=rf"unknown suite '{name}'\. Did you mean '{meant}'.*Known: atlas, mini, paper, wide"
    ):
        suite_tasks(["paper", name])


def test_tasks_without_groups_are_columns_of_their_own():
    entries = load_tasks(["atlas"])
    assert columns(entries) == entries


def test_tasks_come_in_the_order_in_which_they_were_named():
    assert [entry.name for entry in load_tasks(["atlas_pair", "atlas_easy"])] == ["atlas_pair", "atlas_easy"]
    assert [entry.name for entry in load_tasks(["atlas"])] == suites()["suites"]["atlas"]["tasks"]


@pytest.mark.parametrize(
    "name, meant", [("atlas_esay", "atlas_easy"), ("atlass", "atlas"), ("piqua", "piqa"), ("hellaswg", "hellaswag")]
)
def test_an_unknown_task_is_refused_and_its_near_misses_are_named(name, meant):
    with pytest.raises(TaskError, match=rf"unknown task '{name}'.*Did you mean .*'{meant}'"):
        load_tasks(["atlas_easy", name])


def test_no_task_at_all_is_an_error():
    with pytest.raises(TaskError, match="no task"):
        load_tasks([])


def test_data_that_cannot_be_loaded_are_one_clear_line(monkeypatch):
    """The tests have no network."""
    with pytest.raises(TaskError, match="data of arc_easy cannot be loaded"):
        load_tasks(["arc_easy"])


def test_each_task_is_judged_by_its_metric_and_counts_as_it_should():
    loaded = {entry.name.removeprefix("atlas_"): entry for entry in load_tasks(["atlas"])}
    assert {name for name, entry in loaded.items() if not entry.in_mean} == {"text", "control"}
    assert {name for name, entry in loaded.items() if entry.control} == {"control"}
    metrics = {name: entry.metric for name, entry in loaded.items()}
    assert metrics == {
        **dict.fromkeys(("easy", "hard", "support", "pair", "endings", "last_word", "control"), "acc"),
        **dict.fromkeys(("short", "trivia"), "exact_match"),
        "text": "word_perplexity",
    }
    chances = {name: entry.chance for name, entry in loaded.items()}
    assert chances == {
        **dict.fromkeys(("easy", "hard", "support", "endings", "control"), 0.25),
        "pair": 0.5,
        **dict.fromkeys(("short", "trivia", "last_word", "text")),
    }


def test_options_asked_for_without_their_context_are_refused(tasks):
    task = tasks("easy")[0].task
    task.higher_is_better = lambda: {"acc_mutual_info": True}
    with pytest.raises(TaskError, match="'mine' is not supported"):
        _judged("mine", task)


def test_a_template_is_compiled_once_and_rendered_for_every_item():
    plain = utils.env.from_string
    with templates_compiled_once():
        assert [utils.apply_template("{{n}} + 1", {"n": n}) for n in (1, 2)] == ["1 + 1", "2 + 1"]
        with templates_compiled_once():
            kept = utils.env.from_string("{{n}} + 1")
        assert utils.env.from_string("{{n}} + 1") is kept
    assert utils.env.from_string == plain
    assert utils.env.from_string("{{n}}") is not utils.env.from_string("{{n}}")
