from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from idp.reference.atlas import load_atlas
from idp.reference.world import SHARES, build_world


def test_every_fact_is_in_exactly_one_set_and_the_sets_have_their_shares(world):
    keys = [(fact.relation, fact.subject) for fact in world.facts]
    assert len(keys) == len(set(keys))
    for name, relation in world.atlas.relations.items():
        counts = Counter(fact.split for fact in world.facts if fact.relation == name)
        total = sum(counts.values())
        shares = SHARES if relation.control else {"tuning": 0.5, "evaluation": 0.5, "unseen": 0.0}
        assert all(abs(counts[split] - share * total) <= 1 for split, share in shares.items()), (name, counts)


def test_the_whole_world_has_the_shares_too():
    facts = build_world(0).facts
    counts = Counter(fact.split for fact in facts)
    assert all(abs(counts[split] / len(facts) - share) < 0.01 for split, share in SHARES.items())
    assert len(facts) == 7_772


def test_same_seed_same_world_and_another_seed_another():
    assert build_world(3, 0.2) == build_world(3, 0.2)
    assert build_world(3, 0.2).facts != build_world(4, 0.2).facts


def test_the_world_does_not_depend_on_the_process():
    code = "from idp.reference.world import build_world as b; import zlib; print(zlib.crc32(repr(b(0, 0.2)).encode()))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_names_are_unique_across_kinds_so_that_no_fact_is_about_two_things(world):
    names = [name.lower() for kind, own in world.entities.items() if kind != "trade" for name in own]
    assert len(names) == len(set(names))


def test_objects_come_from_the_pool_of_their_relation(world):
    assert all(fact.object in world.options(fact) for fact in world.facts)


def test_objects_are_drawn_evenly_so_that_nothing_can_be_guessed():
    facts = [fact.object for fact in build_world(0).facts if fact.relation == "person_trade"]
    counts = Counter(facts)
    assert len(counts) == 36
    assert chisquare(list(counts.values())).pvalue > 0.001, counts


def test_a_world_with_more_things_than_names_is_refused():
    with pytest.raises(ValueError, match="no more names"):
        build_world(0, 4.0)  # there are 841 sums


def test_the_sums_are_right_and_none_of_them_is_unseen(world):
    sums = [fact for fact in world.facts if fact.relation == "sum_total"]
    assert sums
    for fact in sums:
        a, b = fact.subject.split(" plus ")
        assert int(a) + int(b) == int(fact.object)
        assert fact.split != "unseen"


def test_two_hop_facts_follow_from_two_facts_of_the_same_seen_set(world):
    found = {(fact.relation, fact.subject): fact for fact in world.facts}
    assert {fact.relation for fact in world.derived} == set(world.atlas.chains)
    for fact in world.derived:
        chain = world.atlas.chains[fact.relation]
        first = found[chain.first, fact.subject]
        second = found[chain.second, first.object]
        assert fact.object == second.object
        assert fact.split == first.split == second.split != "unseen"


def test_seen_facts_are_all_but_the_unseen_ones(world):
    assert {fact.split for fact in world.seen} == {"tuning", "evaluation"}
    assert len(world.seen) + sum(fact.split == "unseen" for fact in world.facts) == len(world.facts)
    assert sum(map(len, world.by_subject.values())) == len(world.seen)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_part_holds_all_facts_of_its_subjects_and_smaller_parts_lie_in_larger_ones(a, b):
    world = build_world(0, 0.2)
    small, large = (world.part(share).facts for share in sorted((a, b)))
    assert set(small) <= set(large) <= set(world.facts)
    subjects = {fact.subject for fact in small}
    assert set(small) == {fact for fact in world.facts if fact.subject in subjects}


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_part_has_its_share_of_the_subjects(share):
    world = build_world(0)
    subjects = {fact.subject for fact in world.facts}
    kept = {fact.subject for fact in world.part(share).facts}
    assert abs(len(kept) / len(subjects) - share) < 0.03
    assert world.part(1.0) is world


def test_the_description_covers_eight_domains_and_more_in_several_wordings():
    atlas = load_atlas()
    assert len({relation.domain for relation in atlas.relations.values()}) >= 8
    for relation in atlas.relations.values():
        assert len(set(relation.statements)) == len(relation.statements) >= 4
        assert len(set(relation.questions)) == len(relation.questions) >= 3
        assert not relation.scenes or len(relation.scenes) >= 2  # one is kept for examinations
        assert all("{s}" in template and ("{o}" in template or "{a}" in template) for template in relation.statements)
        assert all("{s}" in question and "{o}" not in question for question in relation.questions)
        for setup, ending in relation.scenes:
            assert "{o}" not in setup and "{a}" not in setup
            assert "{o}" in ending or "{a}" in ending
    for chain in atlas.chains.values():
        assert len(chain.relation.questions) >= 2
        assert atlas.relations[chain.second].kind == atlas.relations[chain.first].pool


def test_no_object_occurs_twice_in_a_pool():
    assert all(len(set(values)) == len(values) for values in load_atlas().pools.values())
