"""The training text: profiles, questions, goals, stories and passages about the seen facts of a world.

One epoch tells every seen fact of its share of the world at least once. Unseen facts, and what follows from them, never
appear.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from idp.reference.wording import ask, fill, practised, practises_goal, pronoun, question, scene
from idp.reference.world import Fact, World

CHAIN_SHARE = 0.3
QUESTION_SHARE = 0.7
STORY_SHARE = 0.35
FACTS_A_PASSAGE = 15


def sentence(world: World, fact: Fact, rng: random.Random, *, named: bool = True) -> str:
    """The fact stated; a later sentence of a profile may begin with a pronoun."""
    relation = world.relation(fact)
    template = rng.choice(relation.statements)
    short = not named and template.startswith("{s}")
    return fill(template, pronoun(world, relation, fact.subject) if short else fact.subject, fact.object)


def profile(world: World, facts: Sequence[Fact], rng: random.Random) -> str:
    """All given facts of one subject in random order."""
    order = rng.sample(list(facts), len(facts))
    return " ".join(sentence(world, fact, rng, named=i == 0 or rng.random() < 0.4) for i, fact in enumerate(order))


def profiles(world: World, rng: random.Random) -> Iterator[str]:
    """One profile an entity, two-hop facts among the plain ones."""
    for subject, facts in world.by_subject.items():
        chains = [fact for fact in world.derived_by_subject.get(subject, []) if rng.random() < CHAIN_SHARE]
        yield profile(world, [*facts, *chains], rng)


def answered(world: World, fact: Fact, rng: random.Random) -> str:
    """A question about the fact in a practised wording, with its answer."""
    relation = world.relation(fact)
    index = rng.choice(practised(fact, "question", relation.questions))
    return f"{ask(question(fact, relation, index))} {fact.object}"


def quizzes(world: World, rng: random.Random) -> Iterator[str]:
    """Questions with answers, one to three a document."""
    facts = [fact for fact in world.seen if rng.random() < QUESTION_SHARE]
    facts += [fact for fact in world.derived if rng.random() < CHAIN_SHARE]
    rng.shuffle(facts)
    while facts:
        size = rng.choice((1, 1, 2, 3))
        yield "\n".join(answered(world, fact, rng) for fact in facts[:size])
        del facts[:size]


def goals(world: World, rng: random.Random) -> Iterator[str]:
    """Goals with their right solutions."""
    for fact in world.seen:
        if fact.relation in world.atlas.goals and practises_goal(fact) and rng.random() < QUESTION_SHARE:
            goal, solution = world.atlas.goals[fact.relation]
            yield f"{ask(fill(goal, fact.subject, fact.object))} {fill(solution, fact.subject, fact.object)}"


def story(world: World, facts: Sequence[Fact], rng: random.Random) -> str:
    """An opening, one scene a fact with an idle sentence here and there, and a closing."""
    lines = [rng.choice(world.atlas.story["openings"])]
    for fact in facts:
        index = rng.choice(practised(fact, "scene", world.relation(fact).scenes))
        lines += scene(world, fact, index, named=rng.random() < 0.4)
        lines += [rng.choice(world.atlas.story["fillers"])] if rng.random() < 0.3 else []
    return " ".join([*lines, rng.choice(world.atlas.story["closings"])])


def stories(world: World, rng: random.Random) -> Iterator[str]:
    """Stories of two to four scenes that together tell a share of the facts that have scenes."""
    facts = [fact for fact in world.seen if world.relation(fact).scenes and rng.random() < STORY_SHARE]
    rng.shuffle(facts)
    while facts:
        size = rng.randint(2, 4)
        yield story(world, facts[:size], rng)
        del facts[:size]


def passage(world: World, facts: Sequence[Fact], rng: random.Random) -> str:
    """Statements of several facts, in the given order."""
    return " ".join(sentence(world, fact, rng) for fact in facts)


def passages(world: World, rng: random.Random) -> Iterator[str]:
    """Four statements of one relation, then a question about one of them."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in world.seen:
        by_relation.setdefault(fact.relation, []).append(fact)
    for relation in rng.choices(list(by_relation), k=len(world.seen) // FACTS_A_PASSAGE):
        facts = rng.sample(by_relation[relation], min(4, len(by_relation[relation])))
        yield f"{passage(world, facts, rng)}\n{answered(world, rng.choice(facts), rng)}"


WRITERS: tuple[Callable[[World, random.Random], Iterator[str]], ...] = (profiles, quizzes, goals, stories, passages)


CURRICULUM = ((60, 0.2), (14, 0.6))
"""(epochs, share of the subjects) before the whole world is told. A model learns how to recall facts from few subjects
much sooner than from many, and keeps the skill: without this it spends its first thousands of steps on a plateau
(arXiv 2503.21676)."""


def share_of(epoch: int) -> float:
    """The share of the subjects that an epoch tells of."""
    for epochs, share in CURRICULUM:
        if epoch < epochs:
            return share
        epoch -= epochs
    return 1.0


def epoch_documents(world: World, epoch: int, seed: int = 0) -> list[str]:
    """The shuffled documents of one epoch; another epoch words the same facts differently."""
    rng = random.Random(f"{seed}-{epoch}")
    world = world.part(share_of(epoch))
    documents = [text for write in WRITERS for text in write(world, rng)]
    rng.shuffle(documents)
    return documents
