"""Tasks as material for a bank: their training splits to tune on, their evaluation items to keep out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from idp.errors import TaskError
from idp.evaluate.calibration import task_examples, usable
from idp.evaluate.tasks import EvalTask, load_tasks, templates_compiled_once
from idp.model.loaded import LanguageModel
from idp.tune.sources import Gathered

__all__ = ["evaluation_texts", "training_items"]

_ALL = 10**9


def training_items(
    lm: LanguageModel, names: Sequence[str], limit: int = 0, seed: int = 0, data_dir: Path | None = None
) -> Gathered:
    """Items of the training splits of tasks.

    Args:
        lm: the model whose tokenizer is used.
        names: tasks, tags or suites.
        limit: most items of a task; 0 for all.
        seed: which ones.
        data_dir: folder whose files take the place of the hub's data.

    Raises:
        TaskError: an unknown task, data that cannot be loaded, or a task without a training split.
    """
    tasks = load_tasks(names, data_dir)
    if lacking := [entry.name for entry in tasks if entry not in usable(tasks)]:
        raise TaskError(
            f"nothing can be tuned on {', '.join(lacking)}: a control, without a training split, or with a context for "
            "each option."
        )
    with templates_compiled_once():
        found = {entry.name: task_examples(lm, entry, limit or _ALL, seed) for entry in tasks}
    counts = {name: len(examples) for name, examples in found.items()}
    return Gathered([example for examples in found.values() for example in examples], counts)


def evaluation_texts(names: Sequence[str], data_dir: Path | None = None) -> Iterator[str]:
    """Evaluation items of tasks as words: what is read, and the right answer.

    Raises:
        TaskError: an unknown task, or data that cannot be loaded.
    """
    if not names:
        return
    with templates_compiled_once():
        for entry in load_tasks(names, data_dir):
            for doc in entry.task.eval_docs:
                yield _text(entry, doc)


def _text(entry: EvalTask, doc: Any) -> str:
    task = entry.task
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if isinstance(text, int):  # options have contexts of their own: the right one's
        text = task.doc_to_choice(doc)[text]
    first = target[0] if isinstance(target, list) and target else target
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(first, int):
        first = task.doc_to_choice(doc)[first]
    return f"{text} {first}"
