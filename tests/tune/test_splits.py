from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.tune.examples import Example
from idp.tune.splits import split


def question(number, group="a", option=3):
    return Example((1, number), ((option,), (4,)), 0, group)


def row(number, group="text"):
    return Example((1,), ((5, number),), 0, group)


EXAMPLES = st.lists(
    st.builds(question, st.integers(2, 30), st.sampled_from("abc"), st.integers(2, 4))
    | st.builds(row, st.integers(2, 9)),
    max_size=60,
)


def reading(example):
    return (*example.context, *example.right) if example.is_text else example.context


@given(examples=EXAMPLES, held_out=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_both_sides_hold_everything_once_and_share_no_context(examples, held_out, seed):
    if len(set(map(reading, examples))) < 2:
        with pytest.raises(TaskError, match="too small"):
            split(examples, held_out, seed)
        return
    sides = split(examples, held_out, seed)
    assert all(sides)
    assert Counter(sides[0]) + Counter(sides[1]) == Counter(examples)
    assert not {reading(example) for example in sides[0]} & {reading(example) for example in sides[1]}
    places = {id(example): place for place, example in enumerate(examples)}
    for side in sides:
        order = [places[id(example)] for example in side]
        assert order == sorted(order)
    assert split(examples, held_out, seed) == sides


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6), held_out=st.floats(0.1, 0.9), seed=st.integers(0, 5))
def test_every_group_gives_its_share(sizes, held_out, seed):
    examples = [question(100 * group + n, str(group)) for group, size in enumerate(sizes) for n in range(2, 2 + size)]
    counts = Counter(example.group for example in split(examples, held_out, seed)[1])
    for group, size in enumerate(sizes):
        assert abs(counts[str(group)] - held_out * size) <= 1.01


def test_many_groups_of_one_are_held_out_as_often_as_asked():
    examples = [question(n, f"group {n}") for n in range(2, 42)]
    assert len(split(examples, 0.25)[1]) == 10


def test_a_context_too_large_to_hold_out_is_not_made_up_for_elsewhere():
    story = [question(2, "story") for _ in range(100)]
    others = [question(n, "other") for n in range(3, 23)]
    _, held_out = split([*story, *others], 0.25)
    assert {example.group for example in held_out} == {"other"}
    assert 5 <= len(held_out) <= 6


def test_the_seed_decides_and_nothing_else():
    examples = [question(n, group) for n, group in zip(range(2, 22), "abcd" * 5, strict=True)]
    assert [[x.context[1] for x in split(examples, 0.2, seed)[1]] for seed in (0, 1)] == PINNED


PINNED = [[5, 10, 19, 20], [3, 10, 13, 16]]  # whatever the order of sets and dictionaries of this process


@pytest.mark.parametrize("held_out", [0.01, 0.99])
def test_neither_side_is_ever_empty(held_out):
    sides = split([question(n) for n in range(2, 6)], held_out)
    assert min(map(len, sides)) == 1


@pytest.mark.parametrize("held_out", [0, 1, -0.5, float("nan")])
def test_a_part_that_is_none_is_refused(held_out):
    with pytest.raises(TaskError, match=r"between 0 and 1, such as 0\.25"):
        split([question(2), question(3)], held_out)


@pytest.mark.parametrize("examples", [[], [question(2)], [question(2), question(2, "b", 5)], [row(2), row(2)]])
def test_data_too_small_to_divide_is_refused(examples):
    with pytest.raises(TaskError, match=f"too small.*{len(examples)} examples"):
        split(examples)
