from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from idp.reference.atlas import stable_hash
from idp.reference.corpus import CURRICULUM, epoch_documents, share_of
from idp.reference.wording import fill, held_out, indefinite, practises_goal
from idp.reference.world import World


def facts(world):
    return {(fact.relation, fact.subject): fact for fact in (*world.facts, *world.derived)}


def wordings(world, fact, form):
    relation = world.relation(fact)
    return {"question": relation.questions, "scene": relation.scenes}[form]


def test_no_epoch_tells_an_unseen_fact_or_anything_that_follows_from_one(world, claims):
    known = facts(world)
    for epoch, said in claims.items():
        assert said
        for claim in said:
            fact = known.get((claim.relation, claim.subject))
            assert fact is not None, f"epoch {epoch}: {claim} follows from an unseen fact or from nothing"
            assert fact.split != "unseen", f"epoch {epoch}: {claim}"
            assert fact.object == claim.object, f"epoch {epoch}: {claim} is wrong"


def test_no_answer_is_the_object_of_an_unseen_fact(world, epochs):
    """The same for questions, without the reader."""
    stated = {(fact.subject, fact.object) for fact in (*world.seen, *world.derived)}
    unseen = {(f.subject, f.object) for f in world.facts if f.split == "unseen"} - stated
    assert len(unseen) > 100
    documents = [document for own in epochs.values() for document in own if document.startswith("Question: ")]
    for block in {block for document in documents for block in document.split("\nQuestion: ")}:
        asked, _, answer = block.partition("\nAnswer: ")
        assert not [pair for pair in unseen if pair[0] in asked and pair[1] == answer]


def test_the_reader_would_notice_a_leak(world, reader):
    leaking = World(
        world.atlas,
        world.pools,
        world.entities,
        tuple(dataclasses.replace(fact, split="tuning") for fact in world.facts),
    )
    unseen = {(fact.relation, fact.subject): fact for fact in world.facts if fact.split == "unseen"}
    said = [claim for document in epoch_documents(leaking, 1000) for claim in reader.read(document)]
    leaks = [claim for claim in said if (claim.relation, claim.subject) in unseen]
    assert {(claim.relation, claim.subject) for claim in leaks} == set(unseen)
    assert {claim.form for claim in leaks} == {"statement", "question", "goal", "scene"}
    true = {(fact.relation, fact.subject) for fact in world.derived}
    assert any(claim.relation in world.atlas.chains and (claim.relation, claim.subject) not in true for claim in said)


def test_a_whole_epoch_states_every_seen_fact_and_asks_most(world, claims):
    for epoch in (74, 100, 1000, 10_000):
        stated = {(claim.relation, claim.subject) for claim in claims[epoch] if claim.form == "statement"}
        assert stated >= {(fact.relation, fact.subject) for fact in world.seen}
        asked = {(claim.relation, claim.subject) for claim in claims[epoch] if claim.form == "question"}
        assert 0.5 < len(asked) / len(world.seen) < 1


def test_tuning_and_evaluation_facts_are_told_alike(world, claims):
    known = facts(world)
    forms = {"statement", "question", "goal", "scene"}
    for form in forms:
        counts = Counter(
            known[claim.relation, claim.subject].split
            for epoch in (74, 100, 1000, 10_000)
            for claim in claims[epoch]
            if claim.form == form
        )
        assert 0.8 < counts["tuning"] / counts["evaluation"] < 1.25, (form, counts)


@pytest.mark.parametrize("form", ["question", "scene"])
def test_the_examined_wording_of_a_fact_is_never_practised(world, claims, form):
    known = facts(world)
    practised: dict[tuple[str, str], set[int]] = {}
    for said in claims.values():
        for claim in said:
            if claim.form == form:
                practised.setdefault((claim.relation, claim.subject), set()).add(claim.index)
    assert len(practised) > 100
    for key, indices in practised.items():
        fact = known[key]
        assert held_out(fact, form, len(wordings(world, fact, form))) not in indices
    assert any(len(indices) > 1 for indices in practised.values())  # several wordings are practised


def test_every_wording_is_the_examined_one_of_some_facts(world):
    for name, relation in world.atlas.relations.items():
        own = [fact for fact in world.facts if fact.relation == name]
        kept = Counter(held_out(fact, "question", len(relation.questions)) for fact in own)
        if len(own) >= 100:
            assert set(kept) == set(range(len(relation.questions)))


def test_goals_are_shown_for_the_practised_half_only(world, claims):
    known = facts(world)
    shown = {known[c.relation, c.subject] for said in claims.values() for c in said if c.form == "goal"}
    assert shown and all(practises_goal(fact) for fact in shown)
    halves = Counter(practises_goal(fact) for fact in world.facts if fact.relation in world.atlas.goals)
    assert 0.75 < halves[True] / halves[False] < 1.33


def test_the_curriculum_begins_with_few_subjects():
    assert [share_of(epoch) for epoch in (0, 59, 60, 73, 74, 10**6)] == [0.2, 0.2, 0.6, 0.6, 1.0, 1.0]
    assert [share for _, share in CURRICULUM] == sorted(share for _, share in CURRICULUM)


def test_an_early_epoch_tells_of_its_subjects_only(world, claims):
    for epoch in (0, 7, 62, 73):
        for claim in claims[epoch]:
            assert stable_hash("part", claim.subject) % 1000 < 1000 * share_of(epoch)
    told = [len({claim.subject for claim in claims[epoch]}) for epoch in (0, 62, 74)]
    assert told == sorted(told) and told[0] < told[1] < told[2]


def test_an_epoch_depends_on_its_number_and_seed_only(world):
    first = epoch_documents(world, 74)
    assert first == epoch_documents(world, 74)
    assert first != epoch_documents(world, 75)
    assert first != epoch_documents(world, 74, seed=1)
    assert sorted(first) != first  # shuffled


def test_fill_begins_with_a_capital_and_sets_the_article():
    assert fill("{s} keeps {a}.", "the owl", "owl") == "The owl keeps an owl."
    assert fill("A {s} has {o}.", "x", "y") == "A x has y."
    assert [indefinite(noun) for noun in ("apple", "pear", "Eel")] == ["an apple", "a pear", "an Eel"]
