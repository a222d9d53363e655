"""Tasks by name: the project's own, lm-eval's, and suites of both."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from lm_eval import utils
from lm_eval.api.metrics import mean
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.tasks import TaskManager

from idp.errors import TaskError, suggest
from idp.evaluate.local import load_under, with_local_data
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
        filter: what lm-eval makes of an answer before it is judged.
        group: the group that the task counts into as one of its parts; None where it stands for itself.
    """

    name: str
    task: Any
    metric: str
    higher_is_better: bool
    control: bool
    filter: str = "none"
    group: str | None = None

    @property
    def column(self) -> str:
        """What the task counts as: itself, or together with others of its group."""
        return self.group or self.name

    @property
    def own_contexts(self) -> bool:
        """Whether every option of a question has a context of its own, as where a blank is filled in."""
        return bool(getattr(self.task, "multiple_input", 0))

    @property
    def is_text(self) -> bool:
        """Whether the task is a running text that is predicted from its beginning to its end."""
        return bool(self.task.OUTPUT_TYPE == "loglikelihood_rolling")

    @property
    def in_mean(self) -> bool:
        """Whether the task counts into the mean over accuracy-type tasks.

        A correlation does not: it belongs to all items together and is no mean of theirs.
        """
        return self.higher_is_better and not self.control and self.task.aggregation()[self.metric] is mean

    def seed_examples(self) -> None:
        """Let the requests that are built next have lm-eval's usual few-shot examples, the same for every arm."""
        self.task.set_fewshot_seed(DEFAULT_OTHER_SEED)

    def items_hash(self, limit: int | None) -> str:
        """What identifies the task's items, within a limit: 16 hexadecimal digits of a SHA-256."""
        docs = [doc for _, doc in self.task.doc_iterator(rank=0, limit=limit, world_size=1)]
        content = json.dumps(docs, sort_keys=True, default=str, ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:16]

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of guessing, where the number of options is fixed."""
        if self.task.OUTPUT_TYPE != "multiple_choice" or self.metric == "exact_match":
            return None
        if self.task.aggregation()[self.metric] is not mean:  # such as a correlation
            return None
        with templates_compiled_once():
            counts = {len(self.task.doc_to_choice(doc)) for doc in self.task.eval_docs}
        return 1 / counts.pop() if len(counts) == 1 else None


@dataclass(frozen=True)
class Packaged:
    """One of lm-eval's tasks with items that come with the package.

    Attributes:
        task: lm-eval's name.
        folder: holds the items, as a folder for ``--data-dir`` does.
        templates: folders of lm-eval, one of which defines the task.
    """

    task: str
    folder: Path
    templates: tuple[str, ...]


@cache
def suites() -> dict[str, Any]:
    """The contents of ``eval/suites.yaml``."""
    data: dict[str, Any] = yaml.safe_load((eval_dir() / "suites.yaml").read_text(encoding="utf-8"))
    return data


@cache
def packaged() -> dict[str, Packaged]:
    """The tasks of suites that name their data, by our names.

    Example:
        >>> packaged()["mini_arc_easy"].task
        'arc_easy'
    """
    return {
        name: Packaged(name.removeprefix(f"{data}_"), eval_dir() / data, tuple(suite["templates"]))
        for suite in suites()["suites"].values()
        if (data := suite.get("data"))
        for name in suite["tasks"]
    }


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


def suite_tasks(names: Iterable[str]) -> list[str]:
    """The tasks of suites, each once.

    Raises:
        TaskError: an unknown suite (near misses are named).
    """
    named, known = list(names), suites()["suites"]
    for name in named:
        if name not in known:
            raise TaskError(f"unknown suite {name!r}. {suggest(name, known)}")
    return expand(named)


def columns(tasks: Sequence[EvalTask]) -> list[EvalTask]:
    """The tasks as a table shows them: of every group its first task, which stands for all."""
    return list({entry.column: entry for entry in reversed(tasks)}.values())[::-1]


def load_tasks(names: Sequence[str], data_dir: Path | None = None) -> list[EvalTask]:
    """Load tasks, lm-eval's own among them.

    Args:
        names: tasks, tags, groups or suites.
        data_dir: folder whose files take the place of the hub's data; prompts and metrics stay lm-eval's. Tasks that
            come with their data keep it.

    Raises:
        TaskError: an unknown name (near misses are named), or data that cannot be loaded.
    """
    wanted = expand(names)
    if not wanted:
        raise TaskError("no task was named; try --tasks atlas.")
    with quiet():
        tasks, groups = _load([name for name in wanted if name not in packaged()], data_dir)
        tasks |= {name: _load_packaged(name) for name in wanted if name in packaged()}
        order = {name: place for place, name in enumerate(wanted)}
        named = {name: groups.get(name, name) for name in tasks}
        placed = sorted(named, key=lambda name: order.get(named[name], len(order)))
        judged = [_judged(name, tasks[name], groups.get(name)) for name in placed]
    return [_counted(entry, judged) for entry in judged]


@cache
def _manager(*, with_defaults: bool) -> TaskManager:
    """An index of our tasks, or of lm-eval's thousands too, which takes seconds."""
    return TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=with_defaults)


@cache
def _templates(folders: tuple[str, ...]) -> TaskManager:
    """An index of some of lm-eval's folders only, which takes milliseconds.

    Nothing but single tasks may be asked of it: of tags and groups it knows some of the tasks.
    """
    root = Path(lm_eval.tasks.__file__).parent
    return TaskManager(include_path=[str(root / folder) for folder in folders], include_defaults=False)


def _load_packaged(name: str) -> Any:
    source = packaged()[name]
    manager = _templates(source.templates)
    if source.task not in manager.all_tasks:  # another version of lm-eval may have other folders
        manager = _manager(with_defaults=True)
    return load_under(name, manager, source.task, source.folder)


def _check(wanted: Sequence[str], manager: TaskManager) -> None:
    known = [*suites()["suites"], *packaged(), *manager.all_tasks]
    for name in wanted:
        if name not in manager.all_tasks:
            raise TaskError(f"unknown task {name!r}. {suggest(name, known)}")


def _load(wanted: Sequence[str], data_dir: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The tasks of an index, and the groups that were named of those that have one."""
    if not wanted:
        return {}, {}
    manager = _manager(with_defaults=False)
    if not set(wanted) <= set(manager.all_tasks):
        manager = _manager(with_defaults=True)
    _check(wanted, manager)
    asked = list(wanted) if data_dir is None else with_local_data(manager, wanted, data_dir)
    try:
        loaded = manager.load(asked)
    except TaskError:
        raise
    except Exception as error:  # a hub, a data set's code or its schema: anything can fail here
        raise TaskError(f"the data of {', '.join(wanted)} cannot be loaded: {error}") from error
    named = [group for group in loaded["groups"].values() if group.name in wanted and group.name in manager.all_groups]
    return loaded["tasks"], {task.task_name: group.name for group in named for task in group.get_all_tasks()}


def _judged(name: str, task: Any, group: str | None = None) -> EvalTask:
    directions: dict[str, bool] = task.higher_is_better()
    if "acc_mutual_info" in directions:
        raise TaskError(f"task {name!r} is not supported: it asks for options without their context, too.")
    wishes: dict[str, str] = suites()["metrics"]
    wish, _, judged_by = wishes.get(name, wishes.get(group or "", "")).partition(",")
    metric = next(metric for metric in (wish, *PREFERRED, *directions) if metric in directions)
    filters = [each["name"] for each in task.config.filter_list or [{"name": "none"}]]
    control = name in suites()["controls"]
    return EvalTask(name, task, metric, directions[metric], control, judged_by or filters[0], group)


def _counted(entry: EvalTask, judged: Sequence[EvalTask]) -> EvalTask:
    """A task as it counts: a group whose tasks cannot be taken together is no group, and they count alone."""
    together = [other for other in judged if other.group == entry.group]
    alike = all(other.in_mean and other.metric == entry.metric for other in together)
    return entry if alike else replace(entry, group=None)
