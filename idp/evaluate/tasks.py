"""Tasks by name: the project's own, lm-eval's, and suites of both."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import yaml
from lm_eval import utils
from lm_eval.tasks import TaskManager

from idp.errors import TaskError, suggest
from idp.resources import eval_dir

PREFERRED = ("acc", "exact_match", "acc_norm", "f1", "word_perplexity", "perplexity")


@dataclass(frozen=True)
class EvalTask:
    """One task and how it is judged.

    Attributes:
        name: lm-eval's name.
        task: lm-eval's task object.
        metric: the metric by which the task is judged.
        higher_is_better: which way that metric points.
        control: reported beside the mean, at chance for an honest arm.
    """

    name: str
    task: Any
    metric: str
    higher_is_better: bool
    control: bool

    @property
    def in_mean(self) -> bool:
        """Whether the task counts into the mean over accuracy-type tasks."""
        return self.higher_is_better and not self.control

    def items_hash(self, limit: int | None) -> str:
        """What identifies the task's items, within a limit: 16 hexadecimal digits of a SHA-256."""
        docs = [doc for _, doc in self.task.doc_iterator(rank=0, limit=limit, world_size=1)]
        content = json.dumps(docs, sort_keys=True, default=str, ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:16]

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing, where the number of options is fixed."""
        if self.task.OUTPUT_TYPE != "multiple_choice" or self.metric == "exact_match":
            return None
        counts = {len(self.task.doc_to_choice(doc)) for doc in self.task.eval_docs}
        return 1 / counts.pop() if len(counts) == 1 else None


@cache
def suites() -> dict[str, Any]:
    """The contents of ``eval/suites.yaml``."""
    data: dict[str, Any] = yaml.safe_load((eval_dir() / "suites.yaml").read_text(encoding="utf-8"))
    return data


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's advice about settings that are as they should be."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Let lm-eval's global environment keep its templates: it compiles them anew for every item, which takes long."""
    own = vars(utils.env)
    if "from_string" in own:  # an evaluation around this one has seen to it
        yield
        return
    own["from_string"] = lru_cache(utils.env.from_string)
    try:
        yield
    finally:
        own.pop("from_string", None)


def expand(names: Iterable[str]) -> list[str]:
    """Replace suites by their tasks, keep order, drop repetitions."""
    known = suites()["suites"]
    expanded = [task for name in names for task in (known[name]["tasks"] if name in known else [name])]
    return list(dict.fromkeys(expanded))


def load_tasks(names: Sequence[str]) -> list[EvalTask]:
    """Load tasks, lm-eval's own among them.

    Args:
        names: tasks, tags, groups or suites.

    Raises:
        TaskError: an unknown name (near misses are named), or data that cannot be loaded.
    """
    wanted = expand(names)
    if not wanted:
        raise TaskError("no task was named; try --tasks atlas.")
    with quiet():
        manager = _manager(with_defaults=False)
        if not set(wanted) <= set(manager.all_tasks):
            manager = _manager(with_defaults=True)
        _check(wanted, manager)
        return [_judged(name, task) for name, task in _load(manager, wanted).items()]


@cache
def _manager(*, with_defaults: bool) -> TaskManager:
    """An index of our tasks, or of lm-eval's thousands too, which takes seconds."""
    return TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=with_defaults)


def _check(wanted: Sequence[str], manager: TaskManager) -> None:
    for name in wanted:
        if name not in manager.all_tasks:
            raise TaskError(f"unknown task {name!r}. {suggest(name, [*suites()['suites'], *manager.all_tasks])}")


def _load(manager: TaskManager, wanted: Sequence[str]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = manager.load(list(wanted))["tasks"]
    except Exception as error:  # a hub, a data set's code or its schema: anything can fail here
        raise TaskError(f"the data of {', '.join(wanted)} cannot be loaded: {error}") from error
    order = {name: place for place, name in enumerate(wanted)}
    return dict(sorted(loaded.items(), key=lambda pair: order.get(pair[0], len(order))))


def _judged(name: str, task: Any) -> EvalTask:
    if getattr(task, "multiple_input", 0) or "acc_mutual_info" in task.higher_is_better():
        raise TaskError(
            f"task {name!r} is not supported: its options have contexts of their own, not one to choose by."
        )
    directions: dict[str, bool] = task.higher_is_better()
    wished = [suites()["metrics"].get(name), *PREFERRED, *directions]
    metric = next(metric for metric in wished if metric in directions)
    return EvalTask(name, task, metric, directions[metric], name in suites()["controls"])
