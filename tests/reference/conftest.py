"""What the tests of the little world share: a small world, some epochs of its text, and a reader of that text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from idp.reference.atlas import Relation
from idp.reference.corpus import epoch_documents
from idp.reference.world import World, build_world

EPOCHS = (0, 7, 62, 73, 74, 100, 1000, 10_000)  # of all three stages, those of tokenizer and calibration among them


@dataclass(frozen=True)
class Claim:
    """What a sentence says: subject and object of a relation, in wording `index` of a form."""

    relation: str
    subject: str
    object: str
    form: str
    index: int


class Pattern:
    """A template as a regular expression that is tried only where the template's longest fixed part occurs."""

    def __init__(self, template: str) -> None:
        first, *parts = re.split(r"\{.\}", template)
        self._fixed = max(first[1:], *parts, "", key=len)  # the first letter of a sentence may have been raised
        self._expression = re.compile(_expression(template))

    def match(self, text: str) -> re.Match[str] | None:
        return self._expression.fullmatch(text) if self._fixed in text else None


def _expression(template: str) -> str:
    """`{s}` may come twice."""
    text = re.escape(template[0].upper() + template[1:] if template[0] != "{" else template)
    text = text.replace(re.escape("{a}"), "an? (?P<o>.+)").replace(re.escape("{o}"), "(?P<o>.+)")
    first, found, rest = text.partition(re.escape("{s}"))
    return first + ("(?P<s>.+)" if found else "") + rest.replace(re.escape("{s}"), "(?P=s)")


class Reader:
    """Reads facts out of text by its own regular expressions: the opposite way to `idp.reference.wording`.

    Every relation is tried on every sentence, so nothing depends on which facts the world calls seen.
    """

    def __init__(self, world: World) -> None:
        chains = [chain.relation for chain in world.atlas.chains.values()]
        self.relations: list[Relation] = [*world.atlas.relations.values(), *chains]
        self.pools = {relation.name: set(world.pools[relation.pool]) for relation in self.relations}
        self.subjects = {kind: {self._plain(name): name for name in names} for kind, names in world.entities.items()}
        self.world = world
        self.statements = [
            (relation, index, Pattern(template))
            for relation in self.relations
            for index, template in enumerate(relation.statements)
        ]
        self.questions = [
            (relation, index, Pattern(template))
            for relation in self.relations
            for index, template in enumerate(relation.questions)
        ]
        self.scenes = [
            (relation, index, Pattern(setup), Pattern(ending))
            for relation in self.relations
            for index, (setup, ending) in enumerate(relation.scenes)
        ]
        self.goals = [
            (world.atlas.relations[name], Pattern(goal), Pattern(solution))
            for name, (goal, solution) in world.atlas.goals.items()
        ]

    @staticmethod
    def _plain(name: str) -> str:
        return name[0].lower() + name[1:]

    def subject(self, relation: Relation, text: str) -> str | None:
        """The entity of that name, which may stand at the beginning of a sentence."""
        return self.subjects[relation.kind].get(self._plain(text))

    def question(self, text: str) -> tuple[Relation, str, int] | None:
        """Relation, subject and wording of a question."""
        for relation, index, pattern in self.questions:
            match = pattern.match(text)
            if match and (subject := self.subject(relation, match["s"])):
                return relation, subject, index
        return None

    def goal(self, text: str) -> tuple[Relation, str] | None:
        """Relation and subject of a goal."""
        for relation, pattern, _ in self.goals:
            match = pattern.match(text)
            if match and (subject := self.subject(relation, match["s"])):
                return relation, subject
        return None

    def read(self, document: str) -> Iterator[Claim]:
        """Everything a document claims; pronouns stand for any entity it names before."""
        for block in re.split(r"\n(?=Question: )", document):
            if block.startswith("Question: "):
                yield from self._answered(*block.removeprefix("Question: ").split("\nAnswer: "))
            else:
                yield from self._told(re.split(r"(?<=[.?]) ", block))

    def _answered(self, question: str, answer: str) -> Iterator[Claim]:
        if asked := self.question(question):
            yield Claim(asked[0].name, asked[1], answer, "question", asked[2])
            return
        relation, subject = self.goal(question) or pytest.fail(f"cannot read {question!r}")
        solution = next(s for r, _, s in self.goals if r.name == relation.name)
        yield Claim(relation.name, subject, solution.match(answer)["o"], "goal", 0)

    def _told(self, sentences: list[str]) -> Iterator[Claim]:
        known: list[str] = []  # names so far, the last one first
        for place, sentence in enumerate(sentences):
            claims = list(self._stated(sentence, known))
            if place:
                claims += self._scene(sentences[place - 1], sentence)
            known = [claim.subject for claim in claims] + known
            yield from claims

    def _stated(self, sentence: str, known: list[str]) -> Iterator[Claim]:
        for relation, index, pattern in self.statements:
            match = pattern.match(sentence)
            if match is None or match["o"] not in self.pools[relation.name]:
                continue
            if subject := self.subject(relation, match["s"]):
                yield Claim(relation.name, subject, match["o"], "statement", index)
            elif match["s"] in ("She", "He", "It"):
                kind = self.subjects[relation.kind].values()
                meant = next((name for name in known if name in kind), None)
                if meant is not None:
                    yield Claim(relation.name, meant, match["o"], "statement", index)

    def _scene(self, setup: str, ending: str) -> Iterator[Claim]:
        for relation, index, first, second in self.scenes:
            begun, ended = first.match(setup), second.match(ending)
            if not (begun and ended and ended["o"] in self.pools[relation.name]):
                continue
            named = begun.groupdict().get("s") or ended["s"]
            if subject := self.subject(relation, named):
                yield Claim(relation.name, subject, ended["o"], "scene", index)


@pytest.fixture(scope="session")
def world() -> World:
    return build_world(0, 0.4)


@pytest.fixture(scope="session")
def reader(world: World) -> Reader:
    return Reader(world)


@pytest.fixture(scope="session")
def epochs(world: World) -> dict[int, list[str]]:
    return {epoch: epoch_documents(world, epoch) for epoch in EPOCHS}


@pytest.fixture(scope="session")
def claims(reader: Reader, epochs: dict[int, list[str]]) -> dict[int, list[Claim]]:
    """Everything that each epoch claims."""
    return {epoch: [c for document in documents for c in reader.read(document)] for epoch, documents in epochs.items()}
