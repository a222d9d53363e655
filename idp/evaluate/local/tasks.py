"""lm-eval's tasks with their data read from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from lm_eval.tasks import TaskManager

from idp.errors import TaskError
from idp.evaluate.local.columns import PARTS, SOURCES, Source, source_of
from idp.evaluate.local.rows import find, read

__all__ = ["load_under", "with_local_data"]

Spec = dict[str, Any]
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def with_local_data(manager: TaskManager, names: Sequence[str], folder: Path) -> list[str | Spec]:
    """What to ask lm-eval for in place of names, so that the tasks read their items from a folder.

    Everything but the data is as in lm-eval's own configuration. Tasks that come with their data stay as they are. A
    training, validation or few-shot split that has no file is left out; the one that is judged has to be there.

    Args:
        manager: lm-eval's index of tasks.
        names: tasks, tags or groups, all known to it.
        folder: holds a folder for each data set, with files ``SPLIT.jsonl``, ``.jsonl.xz`` or ``.jsonl.gz``.

    Raises:
        TaskError: the folder or a file is missing, or a task has no local form.
    """
    if not folder.is_dir():
        raise TaskError(f"there is no folder {folder} to read data from (--data-dir).")
    tags = set(manager.all_tags)
    single = [leaf for name in names for leaf in (_leaves(manager, name) if name in tags else [name])]
    return [_unit(manager, name, folder) for name in single]


def load_under(name: str, manager: TaskManager, task: str, folder: Path) -> Any:
    """Load one of lm-eval's tasks under another name, its items read from a folder.

    All but name and data is as in lm-eval's own configuration, and a task without a training split has one here, if the
    folder has the file.

    Args:
        name: what the task is called in results.
        manager: lm-eval's index of tasks.
        task: lm-eval's name, known to the index.
        folder: as for `with_local_data`.

    Raises:
        TaskError: a file is missing or broken, or the task has no local form.
    """
    config = {"training_split": "train", **_config(manager, task)}
    loaded = manager.load({"group": name, "task": [_spec(task, config, folder)]})["tasks"][task]
    loaded.config.task = name
    return loaded


def read_splits(task: str, folder: str, splits: Sequence[str], **_metadata: Any) -> dict[str, datasets.Dataset]:
    """The splits of a task, as lm-eval asks for them.

    Raises:
        TaskError: a file cannot be read, or holds nothing of the task.
    """
    source, part = _source(task)
    return {split: _dataset(find(Path(folder), source, split), source, part) for split in splits}


def _dataset(paths: Sequence[Path], source: Source, part: str | None) -> datasets.Dataset:
    rows = [row for path in paths for row in read(path, source, part)]
    if not rows:
        of = "" if part is None else f" with the {source.part} {part!r}"
        raise TaskError(f"{paths[0]} holds no row{of}.")
    return datasets.Dataset.from_list(rows)


def _unit(manager: TaskManager, name: str, folder: Path) -> str | Spec:
    """A task or group with its data swapped.

    lm-eval takes changes to a task that it knows in the list of a group only, so a single task becomes a group of one.
    """
    leaves = _leaves(manager, name)
    if all("custom_dataset" in _config(manager, leaf) for leaf in leaves):
        return name
    return {"group": name, "task": [_spec(leaf, _config(manager, leaf), folder) for leaf in leaves]}


def _spec(task: str, config: Spec, folder: Path) -> Spec:
    source, _ = _source(task)
    splits = {key: str(config[key]) for key in _SPLITS if config.get(key)}
    judged = splits.get("test_split", splits.get("validation_split", ""))
    lacking = {key for key, split in splits.items() if not find(folder, source, split)}
    if any(splits[key] == judged for key in lacking):
        files = " and ".join(str(folder / source.folder / f"{file}.jsonl") for file in source.files(judged))
        raise TaskError(f"task {task!r} has no data: looked for {files} (plain, .xz or .gz).")
    there = sorted({split for key, split in splits.items() if key not in lacking})
    data = {"task": task, "folder": str(folder), "splits": there}
    changed = {"custom_dataset": read_splits, "dataset_kwargs": data, **splits, **dict.fromkeys(lacking)}
    return {"task": task, **changed}


def _source(task: str) -> tuple[Source, str | None]:
    found = source_of(task)
    if found is None:
        known = ", ".join([*SOURCES, *(f"{prefix}*" for prefix in PARTS)])
        raise TaskError(f"task {task!r} cannot be read from --data-dir, only from the hub. Local: {known}.")
    return found


def _config(manager: TaskManager, task: str) -> Spec:
    """A task's own configuration, functions not loaded; empty for one that is written in Python."""
    config: Spec = manager.task_index[task].cfg or {}
    return config


def _leaves(manager: TaskManager, name: str) -> list[str]:
    """The tasks that a task, tag or group stands for."""
    entry = manager.task_index[name]
    if name in manager.all_tags:
        return sorted(entry.tags)
    if name not in manager.all_groups:
        return [name]
    members = [member for member in entry.cfg["task"] if isinstance(member, str)]
    if len(members) < len(entry.cfg["task"]):
        raise TaskError(f"group {name!r} changes its tasks, so it cannot be read from --data-dir, only from the hub.")
    return [leaf for member in members for leaf in _leaves(manager, member)]
