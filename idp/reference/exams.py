"""Examination items about the facts of one set, in the nine task formats of the IDP paper and a control.

Every item asks a fact in a wording in which the training text never uses that fact. Wrong options are drawn uniformly
from the same pool as the right one, so on unseen facts nothing but luck can beat chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from idp.reference.corpus import passage, profile, story
from idp.reference.wording import fill, held_out, indefinite, practises_goal, question, scene
from idp.reference.world import Fact, Split, World

Item = dict[str, Any]


def facts_of(world: World, split: Split) -> list[Fact]:
    """The plain facts of one set."""
    return list(world.by_split[split])


def examined_question(world: World, fact: Fact) -> str:
    """The question in the wording kept for examinations."""
    relation = world.relation(fact)
    return question(fact, relation, held_out(fact, "question", len(relation.questions)))


def options(world: World, fact: Fact, count: int, rng: random.Random) -> tuple[list[str], int]:
    """``count`` different objects in random order, and the place of the right one."""
    wrong = [value for value in world.options(fact) if value != fact.object]
    choices = [*rng.sample(wrong, count - 1), fact.object]
    rng.shuffle(choices)
    return choices, choices.index(fact.object)


def multiple_choice(world: World, fact: Fact, rng: random.Random) -> Item:
    """A question with four options."""
    choices, answer = options(world, fact, 4, rng)
    return {"question": examined_question(world, fact), "choices": choices, "answer": answer}


def supported(world: World, fact: Fact, rng: random.Random) -> Item:
    """Four statements of one relation, one of which answers the question; the others give the wrong options."""
    others = [f for f in facts_of(world, fact.split) if f.relation == fact.relation and f.object != fact.object]
    by_object = {f.object: f for f in rng.sample(others, len(others))}
    told = [fact, *list(by_object.values())[:3]]
    choices = rng.sample([f.object for f in told], len(told))
    support = passage(world, rng.sample(told, len(told)), rng)
    return {
        "support": support,
        "question": examined_question(world, fact),
        "choices": choices,
        "answer": choices.index(fact.object),
    }


def short_answer(world: World, fact: Fact, rng: random.Random) -> Item:
    """A question with its one answer."""
    return {"question": examined_question(world, fact), "answers": [fact.object]}


def trivia(world: World, fact: Fact, rng: random.Random) -> Item:
    """A question whose answer may come with an article."""
    forms = ("{a}", "the {o}", "some {o}")
    with_articles = [form.replace("{o}", fact.object).replace("{a}", indefinite(fact.object)) for form in forms]
    return {"question": examined_question(world, fact), "aliases": [fact.object, *with_articles]}


def two_ways(world: World, fact: Fact, rng: random.Random) -> Item:
    """A goal with a right and a wrong solution."""
    goal, solution = world.atlas.goals[fact.relation]
    choices, answer = options(world, fact, 2, rng)
    return {
        "goal": fill(goal, fact.subject, fact.object),
        "choices": [fill(solution, fact.subject, choice) for choice in choices],
        "answer": answer,
    }


def _examined_scene(world: World, fact: Fact, obj: str) -> tuple[str, str]:
    scenes = world.relation(fact).scenes
    index = held_out(fact, "scene", len(scenes))
    named = "{s}" not in scenes[index][0]  # somebody must say who it is about
    return scene(world, Fact(fact.relation, fact.subject, obj, fact.split), index, named=named)


def endings(world: World, fact: Fact, rng: random.Random) -> Item:
    """The beginning of a story and four ways it could go on."""
    choices, answer = options(world, fact, 4, rng)
    opening = rng.choice(world.atlas.story["openings"])
    setup, _ = _examined_scene(world, fact, fact.object)
    return {
        "context": f"{opening} {setup}",
        "choices": [_examined_scene(world, fact, choice)[1] for choice in choices],
        "answer": answer,
    }


def last_word(world: World, fact: Fact, rng: random.Random) -> Item:
    """A passage of two scenes whose last word is a known fact."""
    before = rng.choice([f for f in with_scenes(world, fact.split) if f.subject != fact.subject])
    setup, ending = _examined_scene(world, fact, fact.object)
    told = " ".join(scene(world, before, held_out(before, "scene", len(world.relation(before).scenes)), named=True))
    return {"text": f"{rng.choice(world.atlas.story['openings'])} {told} {setup} {ending.removesuffix('.')}"}


def running_text(world: World, fact: Fact, rng: random.Random) -> Item:
    """A page: the profile of the fact's subject, two stories and a few other statements, all of one set."""
    own = [f for f in world.by_subject[fact.subject] if f.split == fact.split]
    telling = rng.sample(with_scenes(world, fact.split), 6)
    others = rng.sample(facts_of(world, fact.split), 3)
    parts = [profile(world, own, rng), story(world, telling[:3], rng), passage(world, others, rng)]
    return {"text": " ".join([*parts, story(world, telling[3:], rng)])}


def with_scenes(world: World, split: Split) -> list[Fact]:
    """The facts of a set that stories can tell."""
    return [fact for fact in facts_of(world, split) if world.relation(fact).scenes]


def chained(world: World, split: Split) -> list[Fact]:
    """The two-hop facts of a set."""
    return [fact for fact in world.derived if fact.split == split]


def one_word_scenes(world: World, split: Split) -> list[Fact]:
    """Facts whose examined scene ends with the object, a single word."""
    return [
        fact
        for fact in with_scenes(world, split)
        if " " not in fact.object and _examined_scene(world, fact, fact.object)[1].endswith(f" {fact.object}.")
    ]


def as_goals(world: World, split: Split) -> list[Fact]:
    """Facts with a goal that the training text never shows as one."""
    return [f for f in facts_of(world, split) if f.relation in world.atlas.goals and not practises_goal(f)]


def known_kinds(world: World, split: Split) -> list[Fact]:
    """Facts with nothing to be worked out: all but the sums."""
    return [fact for fact in facts_of(world, split) if world.relation(fact).control]


EXAMS: dict[str, tuple[Callable[[World, Split], Sequence[Fact]], Callable[[World, Fact, random.Random], Item]]] = {
    "easy": (facts_of, multiple_choice),
    "hard": (chained, multiple_choice),
    "support": (known_kinds, supported),
    "short": (facts_of, short_answer),
    "trivia": (facts_of, trivia),
    "pair": (as_goals, two_ways),
    "endings": (with_scenes, endings),
    "last_word": (one_word_scenes, last_word),
    "text": (with_scenes, running_text),
    "control": (known_kinds, multiple_choice),
}


def exam(world: World, task: str, split: Split, count: int, seed: int = 0) -> list[Item]:
    """``count`` items (fewer if the set is small) of one task, each about another fact, the same for the same seed.

    Example:
        >>> from idp.reference.world import build_world
        >>> items = exam(build_world(0, 0.1), "easy", "evaluation", 2)
        >>> len(items[0]["choices"])
        4
    """
    choose, make = EXAMS[task]
    rng = random.Random(f"{seed}-{task}-{split}")
    pool = list(choose(world, split))
    return [make(world, fact, rng) for fact in rng.sample(pool, min(count, len(pool)))]
