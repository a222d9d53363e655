"""What selectors may learn from: items of the tasks' training splits, and their losses under every prompt."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from idp.errors import TaskError
from idp.evaluate.tasks import EvalTask
from idp.model.loaded import LanguageModel
from idp.run.store import PrefixStore
from idp.select.calibration import Calibration
from idp.tune.examples import Example, encode, fitting
from idp.tune.losses import example_losses

log = logging.getLogger(__name__)

TEXT_TOKENS = 256
"""How much of a running text is enough to tell good prompts from bad ones."""


def training_examples(lm: LanguageModel, tasks: Sequence[EvalTask], count: int, seed: int = 0) -> list[Example]:
    """About ``count`` seeded items of the tasks' training splits, equally many a task; never a test item.

    Raises:
        TaskError: no task has a training split that can be used.
    """
    teachers = usable(tasks)
    if not teachers:
        raise TaskError("none of the tasks has a training split that selectors could learn from; leave their arms out.")
    examples = [each for entry in teachers for each in task_examples(lm, entry, _share(count, teachers), seed)]
    if not examples:
        raise TaskError("no training item has a form that selectors could learn from; leave their arms out.")
    return examples


def training_hash(tasks: Sequence[EvalTask], count: int, seed: int = 0) -> str:
    """What identifies the items that `training_examples` takes, wherever they were read from."""
    teachers = usable(tasks)
    docs = [(entry.name, _drawn(entry, _share(count, teachers), seed)) for entry in teachers]
    return hashlib.sha256(json.dumps(docs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _share(count: int, teachers: Sequence[EvalTask]) -> int:
    return -(-count // len(teachers))


def usable(tasks: Sequence[EvalTask]) -> list[EvalTask]:
    """The tasks that have a training split, are no control, and have one context a question."""
    return [entry for entry in tasks if entry.task.has_training_docs() and not entry.control and not entry.own_contexts]


def task_examples(lm: LanguageModel, entry: EvalTask, count: int, seed: int) -> list[Example]:
    """At most ``count`` seeded items of a task's training split; those of an unusual form are left out."""
    found = [example_of(lm, entry, doc) for doc in _drawn(entry, count, seed)]
    kept = [example for example in found if example is not None]
    if len(kept) < len(found):
        log.warning("%s: %d training items cannot be used for fitting", entry.name, len(found) - len(kept))
    return kept


def _drawn(entry: EvalTask, count: int, seed: int) -> list[Any]:
    docs = entry.task.training_docs()
    rng = random.Random(f"{seed}-{entry.name}")
    chosen = rng.sample(range(len(docs)), min(count, len(docs)))
    return [docs[index] for index in sorted(chosen)]


def example_of(lm: LanguageModel, entry: EvalTask, doc: Any) -> Example | None:
    """A document as context and options, None where the task is of an unusual form."""
    task = entry.task
    text, target, space = task.doc_to_text(doc), task.doc_to_target(doc), task.config.target_delimiter
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return encode(lm, "", [target], 0, entry.name)
    if not isinstance(text, str):
        return None
    first = target[0] if isinstance(target, list) and target else target
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(first, int):
        return encode(lm, text, [f"{space}{choice}" for choice in task.doc_to_choice(doc)], first, entry.name)
    delimiter = "" if str(first).startswith(" ") else space
    return encode(lm, text, [f"{delimiter}{first}"], 0, entry.name) if str(first) else None


def calibrate(
    store: PrefixStore,
    examples: Sequence[Example],
    batch_size: int | None,
    advance: Callable[[int], None] | None = None,
) -> Calibration:
    """Measure the loss of every example under every prompt and under none.

    Long running texts are cut; other examples that do not fit into the context beside the longest prompt are left out.

    Raises:
        TaskError: no example fits.
    """
    longest = max(store.length(index) for index in range(len(store)))
    try:
        kept = fitting(store.lm, examples, longest, text_tokens=TEXT_TOKENS)
    except TaskError as error:
        raise TaskError(f"{error} Leave the arms out that learn from training items (--no-fit).") from error
    losses = example_losses(store, kept, batch_size, advance)  # (N, m + 1)
    return Calibration(
        [example.context for example in kept],
        losses,
        [example.group for example in kept],
        options=[options_of(example) for example in kept],
    )


def options_of(example: Example) -> tuple[tuple[int, ...], ...]:
    """The possible answers of an example; an only continuation is the right answer, and none of several."""
    return example.continuations if len(example.continuations) > 1 else ()
