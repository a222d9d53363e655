from __future__ import annotations

import re

import pytest
from scipy.stats import chisquare

from idp.reference.exams import EXAMS, as_goals, exam, examined_question, one_word_scenes
from idp.reference.wording import ask, held_out, practises_goal
from idp.reference.world import build_world

CHOICE = ("easy", "hard", "support", "pair", "endings", "control")
QUIZ = ("easy", "hard", "support", "short", "trivia", "control")


def split_of(task, train=False):
    return "unseen" if task == "control" else "tuning" if train else "evaluation"


@pytest.fixture(scope="module")
def items(world):
    """A hundred items of each task, of both splits that have a data file."""
    return {
        (task, split): exam(world, task, split, 100)
        for task in EXAMS
        for split in {split_of(task), split_of(task, train=True)}
    }


def facts(world):
    return {(fact.relation, fact.subject): fact for fact in (*world.facts, *world.derived)}


def shown(item):
    """All running text of an item."""
    return [item[key] for key in ("support", "text") if key in item]


@pytest.mark.parametrize("task", QUIZ)
def test_questions_are_about_facts_of_their_own_set_in_the_unpractised_wording(world, reader, items, task):
    for (name, split), own in items.items():
        for item in own if name == task else []:
            relation, subject, index = reader.question(item["question"])
            fact = facts(world)[relation.name, subject]
            assert fact.split == split
            assert index == held_out(fact, "question", len(relation.questions))
            right = item.get("answers") or item.get("aliases") or [item["choices"][item["answer"]]]
            assert right[0] == fact.object


def test_no_examined_question_is_ever_asked_in_training(epochs, items):
    asked = {
        block for documents in epochs.values() for text in documents for block in re.findall(r"Question: .*", text)
    }
    examined = {
        ask(item.get("question") or item["goal"]).split("\n")[0]
        for (task, _), own in items.items()
        for item in own
        if task in (*QUIZ, "pair")
    }
    assert len(examined) > 500 and len(asked) > 1000
    assert not asked & examined


def names_somebody(world, text):
    return any(name in text or name.capitalize() in text for own in world.entities.values() for name in own)


def sentences(text):
    return re.split(r"(?<=[.?]) ", text)


def test_no_examined_scene_is_ever_told_in_training(world, epochs, items):
    told = {sentence for documents in epochs.values() for text in documents for sentence in sentences(text)}
    setups = [
        item["context"].split(". ", 1)[1] for (task, _), own in items.items() if task == "endings" for item in own
    ]
    named = {setup for setup in setups if names_somebody(world, setup)}
    assert len(named) > 100
    assert not told & named


@pytest.mark.parametrize("task", ["support", "last_word", "text"])
def test_passages_tell_facts_of_their_own_set_only(world, reader, items, task):
    known = facts(world)
    for (name, split), own in items.items():
        for item in own if name == task else []:
            text = shown(item)[0]
            said = list(reader.read(text if text.endswith(".") else text + "."))
            assert said
            assert {known[claim.relation, claim.subject].split for claim in said} == {split}
            assert all(known[claim.relation, claim.subject].object == claim.object for claim in said)


def test_tuning_and_evaluation_items_share_no_fact(world, reader, items):
    told = {"tuning": set(), "evaluation": set()}
    for (task, split), own in items.items():
        for item in own if split in told else []:
            if task in QUIZ:
                relation, subject, _ = reader.question(item["question"])
                told[split].add((relation.name, subject))
            if task == "pair":
                relation, subject = reader.goal(item["goal"])
                told[split].add((relation.name, subject))
            for text in shown(item):
                claims = reader.read(text if text.endswith(".") else text + ".")
                told[split] |= {(claim.relation, claim.subject) for claim in claims}
    assert min(map(len, told.values())) > 200
    assert not told["tuning"] & told["evaluation"]


@pytest.mark.parametrize("task", CHOICE)
def test_options_differ_and_the_right_one_is_among_them(items, task):
    for (name, _), own in items.items():
        for item in own if name == task else []:
            assert len(set(item["choices"])) == len(item["choices"]) == (2 if task == "pair" else 4)
            assert 0 <= item["answer"] < len(item["choices"])


@pytest.mark.parametrize("task", CHOICE)
def test_the_right_option_is_at_every_place_equally_often(task):
    own = exam(build_world(1, 2.0), task, split_of(task), 400, seed=5)
    counts = [sum(item["answer"] == place for item in own) for place in range(len(own[0]["choices"]))]
    assert chisquare(counts).pvalue > 0.001, counts


def test_wrong_options_are_what_other_facts_of_the_relation_have(world, reader, items):
    for item in items["easy", "evaluation"]:
        relation, subject, _ = reader.question(item["question"])
        assert set(item["choices"]) <= set(world.options(facts(world)[relation.name, subject]))


def test_the_support_holds_the_answer_and_the_wrong_options(reader, items):
    for item in items["support", "evaluation"]:
        relation, subject, _ = reader.question(item["question"])
        said = {
            claim.subject: claim.object for claim in reader.read(item["support"]) if claim.relation == relation.name
        }
        assert said[subject] == item["choices"][item["answer"]]
        assert set(said.values()) == set(item["choices"])


def test_the_control_is_about_unseen_facts_and_nothing_else_is(world, reader, items):
    known = facts(world)
    for item in items["control", "unseen"]:
        relation, subject, _ = reader.question(item["question"])
        assert known[relation.name, subject].split == "unseen"
        assert relation.control
    assert {split for task, split in items if task != "control"} == {"tuning", "evaluation"}


def test_goals_are_examined_only_where_training_never_shows_them(world, reader, items):
    known = facts(world)
    for item in items["pair", "evaluation"]:
        relation, subject = reader.goal(item["goal"])
        fact = known[relation.name, subject]
        assert not practises_goal(fact)
        solution = next(pattern for own, _, pattern in reader.goals if own.name == relation.name)
        assert solution.match(item["choices"][item["answer"]])["o"] == fact.object
    assert all(not practises_goal(fact) for fact in as_goals(world, "evaluation"))


def test_the_last_word_is_the_object_of_a_known_scene(world, reader, items):
    objects = {fact.object for fact in one_word_scenes(world, "evaluation")}
    for item in items["last_word", "evaluation"]:
        text = item["text"]
        assert not text.endswith(".") and text.split(" ")[-1] in objects
        if names_somebody(world, " ".join(sentences(text)[-2:])):
            last = list(reader.read(text + "."))[-1]
            assert last.form == "scene" and last.object == text.split(" ")[-1]


def test_aliases_are_the_answer_with_and_without_articles(items):
    for item in items["trivia", "evaluation"]:
        answer, indefinite, definite, some = item["aliases"]
        assert indefinite in (f"a {answer}", f"an {answer}")
        assert (definite, some) == (f"the {answer}", f"some {answer}")


@pytest.mark.parametrize("task", ["endings", "last_word"])
def test_an_examined_scene_says_whom_it_is_about(world, items, task):
    for item in items[task, "evaluation"]:
        choices = item.get("choices", [])
        told = " ".join([item.get("context") or " ".join(sentences(item["text"])[-2:]), *choices[:1]])
        assert names_somebody(world, told), told


def test_each_item_is_about_another_fact_and_the_same_seed_gives_the_same_items(world):
    for task in ("easy", "trivia", "endings"):
        own = exam(world, task, "evaluation", 50, seed=2)
        assert own == exam(world, task, "evaluation", 50, seed=2) != exam(world, task, "evaluation", 50, seed=3)
    questions = [item["question"] for item in exam(world, "easy", "evaluation", 10**6)]
    evaluation = [fact for fact in world.facts if fact.split == "evaluation"]
    assert sorted(questions) == sorted(examined_question(world, fact) for fact in evaluation)
