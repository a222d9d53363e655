"""What may be asked of models that know the reference world, and what they may be given to read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from idp.evaluate.damage.probes import Probe, usable
from idp.model.aliases import resolve
from idp.model.fingerprint import tokenizer_hash
from idp.model.load import load_tokenizer
from idp.reference.corpus import epoch_documents
from idp.reference.exams import EXAMS
from idp.reference.world import Fact, Split, World, build_world
from idp.tune.atlas import worded
from idp.tune.examples import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idp.model.loaded import LanguageModel

__all__ = ["EPOCH", "FACTS", "PER_RELATION", "knows_world", "world_documents", "world_probes"]

EPOCH = 20_000
"""Worded as no epoch of the training was (those below 1,000), and not as the calibration of the variants (10,000)."""

PER_RELATION = 30
"""Most questions about one relation in one task, unless told."""

FACTS: Split = "evaluation"
"""The set of facts that is asked: nothing was tuned, fitted or chosen on it."""

_TASKS = {"easy": "closed book", "support": "open book", "hard": "two hops"}


def knows_world(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is that of the reference models, which were trained on the reference world."""
    if len(tokenizer) != len(own := load_tokenizer(resolve("reference-dense"))):
        return False
    return tokenizer_hash(tokenizer) == tokenizer_hash(own)


def world_documents() -> list[str]:
    """The text of the reference world in a wording that no model was trained or compressed on."""
    return epoch_documents(build_world(0), EPOCH, 0)


def world_probes(lm: LanguageModel, per_relation: int = PER_RELATION, seed: int = 0) -> list[Probe]:
    """Make questions with four options about evaluation facts of the world, on which nothing was tuned or chosen.

    The same facts are asked with (`open book`) and without (`closed book`) four statements to read, one of which holds
    the answer; `two hops` asks what follows from two facts. All as in the tasks `support`, `easy` and `hard` of atlas.

    Args:
        lm: the model whose tokenizer is used.
        per_relation: most questions about one relation in one task.
        seed: which facts are asked, and the options.

    Returns:
        The questions, labelled by task, domain and relation.

    Example:
        >>> world_probes(lm, 1)[0].labels  # doctest: +SKIP
        ('closed book', 'people', 'person_town')
    """
    world = build_world(0)
    chosen = ((task, facts) for task in _TASKS for facts in _chosen(world, task, per_relation, seed).values())
    return usable(lm, [probe for task, facts in chosen for probe in _asked(lm, world, task, facts, seed)])


def _chosen(world: World, task: str, count: int, seed: int) -> dict[str, list[Fact]]:
    """Facts of each relation; which ones depends on the relation and not on the task."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in EXAMS[task][0](world, FACTS):
        by_relation.setdefault(fact.relation, []).append(fact)
    return {
        relation: random.Random(f"{seed}-{relation}").sample(facts, min(count, len(facts)))
        for relation, facts in by_relation.items()
    }


def _asked(lm: LanguageModel, world: World, task: str, facts: list[Fact], seed: int) -> list[Probe]:
    found = []
    for fact in facts:
        item = EXAMS[task][1](world, fact, random.Random(f"{seed}-{fact.relation}-{fact.subject}"))
        labels = (_TASKS[task], world.relation(fact).domain, fact.relation)
        found.append(Probe(labels, encode(lm, *worded(task, item), group=task)))
    return found
