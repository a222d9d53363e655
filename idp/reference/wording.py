"""Facts as English sentences, questions, scenes and goals, and which wording of a fact is kept for examinations."""

from __future__ import annotations

from idp.reference.atlas import Relation, stable_hash
from idp.reference.world import Fact, World


def indefinite(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def fill(template: str, subject: str, obj: str) -> str:
    """Put subject and object into a template and begin with a capital letter."""
    text = template.replace("{s}", subject).replace("{o}", obj).replace("{a}", indefinite(obj))
    return text[0].upper() + text[1:]


def held_out(fact: Fact, kind: str, count: int) -> int:
    """Index of the wording in which only examinations use this fact."""
    return stable_hash(kind, fact.relation, fact.subject) % count


def practised(fact: Fact, kind: str, templates: tuple[object, ...]) -> list[int]:
    """Indices of the wordings that training text may use for this fact."""
    kept = held_out(fact, kind, len(templates))
    return [index for index in range(len(templates)) if index != kept]


def pronoun(world: World, relation: Relation, subject: str) -> str:
    """``She``, ``He`` or ``It``, the same for a subject everywhere; the subject itself where no pronoun fits."""
    pronouns = world.atlas.kinds[relation.kind]["pronoun"]
    return str(pronouns[stable_hash(subject) % len(pronouns)]) if pronouns else subject


def question(fact: Fact, relation: Relation, index: int) -> str:
    """The fact asked in wording ``index``."""
    return fill(relation.questions[index], fact.subject, fact.object)


def ask(text: str) -> str:
    """The frame of every question."""
    return f"Question: {text}\nAnswer:"


def practises_goal(fact: Fact) -> bool:
    """Whether training text shows this fact as a goal; the others are examined so."""
    return stable_hash("goal", fact.relation, fact.subject) % 2 == 0


def scene(world: World, fact: Fact, index: int, *, named: bool) -> tuple[str, str]:
    """Setup and ending of scene ``index``; the ending says the name again or a pronoun."""
    relation = world.relation(fact)
    setup, ending = relation.scenes[index]
    again = fact.subject if named else pronoun(world, relation, fact.subject)
    return fill(setup, fact.subject, fact.object), fill(ending, again, fact.object)
