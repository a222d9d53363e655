from __future__ import annotations

import random

import pytest

from idp.evaluate.probe.frequency import counted, mentions, tellings
from idp.reference.corpus import epoch_documents, sentence
from idp.reference.world import build_world


@pytest.fixture(scope="module")
def world():
    return build_world(0, 0.05)


def test_a_fact_is_told_where_its_subject_and_object_stand(world):
    one, other = world.by_split["tuning"][0], world.by_split["evaluation"][-1]
    text = sentence(world, one, random.Random(0))
    found = mentions(world, [text, text, f"{other.subject} is mentioned, and nothing is said of it"])
    assert found[one] == 2 and found[other] == 0


def test_a_subject_may_begin_a_sentence(world):
    family = next(fact for fact in world.seen if fact.subject.startswith("the "))
    told = f"T{family.subject[1:]} have a child called {family.object}."
    assert mentions(world, [told])[family] == 1


def test_a_word_is_not_found_in_part_of_another(world):
    fact = next(fact for fact in world.seen if " " not in fact.object)
    assert mentions(world, [f"{fact.subject} has x{fact.object}x"])[fact] == 0


def test_facts_never_seen_are_told_by_nothing(world):
    told = tellings(world, 80)
    assert set(told) == set(world.seen)
    unseen = set(world.by_split["unseen"])
    assert not unseen & set(mentions(world, epoch_documents(world, 100)))


def test_more_epochs_tell_more(world):
    few, many = tellings(world, 20), tellings(world, 120)
    assert sum(many.values()) > 5 * sum(few.values())
    # The first stages tell of a part of the subjects alone, so these are told more often in the end.
    first = {fact for fact, count in few.items() if count}
    early = sum(many[fact] for fact in first) / len(first)
    late = sum(count for fact, count in many.items() if fact not in first) / (len(many) - len(first))
    assert early > late


def test_parts_are_of_one_size_and_in_order(world):
    values = {fact: float(place) for place, fact in enumerate(world.seen[:10])}
    parts = counted(values, 3)
    assert [len(facts) for _, facts in parts] == [3, 3, 4]
    assert [name for name, _ in parts] == ["told about 0-2 times", "told about 3-5 times", "told about 6-9 times"]
    assert counted({}, 4) == []


def test_facts_told_equally_often_are_always_in_the_same_part(world):
    values = {fact: float(place // 4) for place, fact in enumerate(world.seen[:10])}
    assert counted(dict(reversed(values.items())), 3) == counted(values, 3)
