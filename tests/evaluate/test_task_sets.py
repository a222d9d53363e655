from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.evaluate.task_sets import FLOOR, floor_of, sets_of


def entry(name, chance=0.25, group=None):
    return SimpleNamespace(name=name, column=group or name, chance=chance)


def items(right, count=200):
    return np.array([1.0] * right + [0.0] * (count - right))


def arms(**counts):
    """Right answers of 200 by arm and task."""
    return {arm.replace("_", "-"): {task: items(right) for task, right in own.items()} for arm, own in counts.items()}


TASKS = [entry("easy"), entry("hard"), entry("open", chance=None), entry("cloze", chance=None)]
FOUND = arms(
    dense={"easy": 120, "hard": 52, "open": 2, "cloze": 80},
    dense_static={"easy": 130, "hard": 60, "open": 10, "cloze": 90},
    compressed={"easy": 100, "hard": 70, "open": 40, "cloze": 60},
    static={"easy": 110, "hard": 70, "open": 40, "cloze": 80},
)


def test_only_the_dense_model_decides_what_it_can_do():
    [able] = sets_of(FOUND, TASKS, [], seed=0)
    assert (able.name, able.tasks) == ("able", ["easy", "cloze"])  # others are at the floor, whatever other arms reach


def test_tasks_that_prompts_were_tuned_on_stand_apart():
    sets = {each.name: each.tasks for each in sets_of(FOUND, TASKS, {"easy": 800, "hard": 800}, seed=0)}
    assert sets == {"able": ["easy", "cloze"], "able, tuned on": ["easy"], "able, not tuned on": ["cloze"]}


def test_a_group_was_tuned_on_if_one_of_its_tasks_was():
    whole = {arm: {"group": own["easy"], "cloze": own["cloze"]} for arm, own in FOUND.items()}
    tasks = [entry("part", group="group"), entry("cloze", chance=None)]
    names = [each.tasks for each in sets_of(whole, tasks, ["group"], seed=0)]
    assert names == [["group", "cloze"], ["group"], ["cloze"]]


def test_a_task_that_comes_with_its_data_was_tuned_on_if_its_benchmark_was():
    whole = {arm: {"mini_arc_easy": own["easy"], "cloze": own["cloze"]} for arm, own in FOUND.items()}
    tasks = [entry("mini_arc_easy"), entry("cloze", chance=None)]
    names = [each.tasks for each in sets_of(whole, tasks, ["arc_easy"], seed=0)]
    assert names == [["mini_arc_easy", "cloze"], ["mini_arc_easy"], ["cloze"]]


def test_without_a_difference_from_all_tasks_there_are_no_sets():
    able = {arm: {"easy": own["easy"]} for arm, own in FOUND.items()}
    assert sets_of(able, TASKS, [], seed=0) == []


@pytest.mark.parametrize("missing", ["dense", "compressed"])
def test_without_a_dense_or_a_compressed_arm_there_are_no_sets(missing):
    assert sets_of({arm: own for arm, own in FOUND.items() if arm != missing}, TASKS, [], seed=0) == []


def test_the_floor_is_chance_or_a_twentieth():
    assert (floor_of(entry("a", 0.5)), floor_of(entry("b", None))) == (0.5, FLOOR)


def test_what_is_left_to_the_repaired_dense_model_is_a_share_of_what_compression_cost():
    [able] = sets_of(FOUND, TASKS, [], seed=0)
    # dense-static 0.55, static 0.475, compressed 0.4, dense 0.5
    assert able.left["static"].value == pytest.approx((0.55 - 0.475) / (0.5 - 0.4))
    assert able.left["compressed"].value == pytest.approx(1.5)
    assert able.left["static"].low < able.left["static"].value < able.left["static"].high
    assert not any(name.startswith("dense") for name in able.left)


def test_nothing_is_said_of_what_is_left_without_the_repaired_dense_model_or_without_a_gap():
    bare = {arm: own for arm, own in FOUND.items() if arm != "dense-static"}
    assert sets_of(bare, TASKS, [], seed=0)[0].left == {}
    equal = FOUND | {"compressed": FOUND["dense"]}
    assert all(np.isnan(share.value) for share in sets_of(equal, TASKS, [], seed=0)[0].left.values())


def test_pairs_of_arms_that_are_not_there_are_left_out():
    [able] = sets_of(FOUND, TASKS, [], seed=0)
    [pair] = able.compared([("static", "compressed"), ("router", "static")])
    assert (pair.a, pair.b, pair.difference.value) == ("static", "compressed", pytest.approx(0.075))


@given(st.lists(st.integers(0, 200), min_size=3, max_size=3), st.floats(0.1, 0.5))
def test_every_task_of_the_set_is_above_its_floor_by_more_than_chance_explains(rights, chance):
    names = ["a", "b", "c"]
    found = arms(dense=dict(zip(names, rights, strict=True)), compressed=dict.fromkeys(names, 100))
    able = next((each.tasks for each in sets_of(found, [entry(n, chance) for n in names], ["a", "b", "c"], 0)), [])
    for name, right in zip(names, rights, strict=True):
        share = right / 200
        above = share - 1.96 * (share * (1 - share) / 200) ** 0.5 > chance
        assert (name in able) == above
