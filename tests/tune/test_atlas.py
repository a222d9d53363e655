from __future__ import annotations

import re

import pytest
import yaml
from lm_eval.utils import apply_template

from idp.errors import TaskError
from idp.reference.exams import exam
from idp.reference.world import build_world
from idp.resources import eval_dir
from idp.tune.atlas import TASKS, atlas_examples, worded


@pytest.fixture(scope="module")
def world():
    return build_world(0, 0.4)


def configuration(task):
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda loader, node: node.value)
    text = (eval_dir() / "tasks" / "atlas" / f"atlas_{task}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, loader)  # noqa: S506


def reading(config, key, item):
    """A field of a task file, applied to an item: a column's name or a template."""
    value = config[key]
    return item[value] if value in item else apply_template(value, item)


@pytest.mark.parametrize("task", TASKS)
def test_words_an_item_as_the_task_file_does(world, task):
    config = configuration(task)
    for item in exam(world, task, "tuning", 5):
        context, options, answer = worded(task, item)
        assert context == reading(config, "doc_to_text", item)
        if config["output_type"] == "multiple_choice":
            choices = [f" {choice}" for choice in reading(config, "doc_to_choice", item)]
            assert options == choices[: len(options)]
            if len(choices) > 1:
                assert answer == reading(config, "doc_to_target", item)
        elif task == "trivia":
            assert options == [f" {item['aliases'][0]}"]
        else:
            assert options == [reading(config, "doc_to_target", item)]


@pytest.mark.parametrize("task", ["control", "esay"])
def test_unknown_task_and_control_are_refused(task, world, tiny_lm):
    with pytest.raises(TaskError, match=f"'{task}'.*Known: easy"):
        worded(task, {})
    with pytest.raises(TaskError, match=f"'{task}'"):
        atlas_examples(tiny_lm(), world, 5, 0, [task])


def test_examples_are_the_same_for_a_seed_and_split_by_subject(world, tiny_lm):
    tasks = ["easy", "short", "trivia", "last_word"]
    tuning, held_out = atlas_examples(tiny_lm(), world, 60, 0, tasks)
    assert (tuning, held_out) == atlas_examples(tiny_lm(), world, 60, 0, tasks)
    assert {example.group for example in tuning} == set(tasks) == {example.group for example in held_out}
    assert 0.1 < len(held_out) / (len(tuning) + len(held_out)) < 0.4
    asked = [{e.context for e in part if e.group != "last_word"} for part in (tuning, held_out)]
    assert not asked[0] & asked[1]


def test_another_seed_gives_other_items(world, tiny_lm):
    assert atlas_examples(tiny_lm(), world, 10, 0, ["easy"]) != atlas_examples(tiny_lm(), world, 10, 1, ["easy"])


def test_only_tuning_facts_are_used(world, tiny_lm):
    tuning, held_out = atlas_examples(tiny_lm(), world, 10_000, 0, ["short"])
    facts = [fact for fact in world.facts if fact.split == "tuning"]
    assert len(tuning) + len(held_out) == len(facts)


def test_no_text_of_the_tuning_side_tells_of_a_held_out_subject(world, tiny_lm):
    lm = tiny_lm()
    tuning, held_out = atlas_examples(lm, world, 40, 0, ["short", "text", "support", "last_word"])
    people = world.entities["person"]

    def named(examples):
        texts = [lm.tokenizer.decode([*e.context, *e.continuations[e.answer]]) for e in examples]
        return {name for name in people for text in texts if re.search(rf"\b{re.escape(name)}\b", text)}

    assert named(tuning) and named(held_out)
    assert not named(tuning) & named(held_out)
