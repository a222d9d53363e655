from __future__ import annotations

import random
from collections import Counter

import pytest

import idp
from idp.errors import TaskError
from idp.reference.exams import EXAMS
from idp.reference.world import build_world
from idp.select.features import mean_embeddings
from idp.select.states import context_states
from idp.tune.atlas import worded
from idp.tune.examples import Example, encode
from idp.tune.partition import clusters


def topic(token, count):
    return [Example((1, 5 + i, *(token,) * 12), ((7,),), 0, "t") for i in range(count)]


def parts_of(lm, examples, k, seed):
    return clusters(context_states(lm, [example.context for example in examples]), k, seed).tolist()


def test_finds_topics_without_labels_and_numbers_them_by_size(tiny_lm):
    found = parts_of(tiny_lm(), [*topic(20, 4), *topic(90, 9), *topic(200, 6)], 3, seed=0)
    assert found == [2] * 4 + [0] * 9 + [1] * 6


def test_same_seed_same_parts_of(tiny_lm, some_examples):
    examples = some_examples(30, kinds="ca")
    assert parts_of(tiny_lm(), examples, 4, 0) == parts_of(tiny_lm(), examples, 4, 0)


def test_equal_contexts_share_a_part(tiny_lm, some_examples):
    examples = [*some_examples(10, kinds="a"), *[Example((1,), ((9, 8),), 0, "text")] * 3]
    assert len(set(parts_of(tiny_lm(), examples, 3, 0)[-3:])) == 1


@pytest.mark.parametrize("k", [0, 5])
def test_an_impossible_number_of_parts_is_refused(tiny_lm, k):
    with pytest.raises(TaskError, match="ask for 1 to 4"):
        parts_of(tiny_lm(), topic(20, 4), k, 0)


def kinds_of_facts(lm, count):
    """Questions, goals, stories and passages of the reference world, and what kind of fact each is about."""
    world = build_world(0)
    for task in ("easy", "pair", "endings", "last_word"):
        choose, make = EXAMS[task]
        rng = random.Random(task)
        for fact in rng.sample(list(choose(world, "tuning")), count):
            yield encode(lm, *worded(task, make(world, fact, rng)), group=task), fact.relation


def purity(parts, kinds):
    """The share of examples that are of the commonest kind in their part."""
    by_part = {part: Counter(kind for own, kind in zip(parts, kinds, strict=True) if own == part) for part in parts}
    return sum(max(found.values()) for found in by_part.values()) / len(kinds)


def test_parts_agree_with_the_kind_of_fact_better_than_clusters_of_embeddings():
    lm = idp.load("reference")
    examples, kinds = zip(*kinds_of_facts(lm, 300), strict=True)
    contexts = [example.context for example in examples]
    states, embeddings = (clusters(each(lm, contexts), 20, seed=0) for each in (context_states, mean_embeddings))
    assert purity(states.tolist(), kinds) > purity(embeddings.tolist(), kinds) + 0.1
