"""What became of single items: lost by compression, given back by an arm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from idp.report.run import PLAIN, Item, Run

__all__ = ["Fate", "fates", "told"]


@dataclass(frozen=True)
class Fate:
    """What an arm made of the items that compression lost, and of those that it did not.

    Attributes:
        task: its name.
        lost: items that the dense model has right and the compressed one wrong.
        regained: those of them that the arm has right.
        broken: items that dense and compressed model have right and the arm wrong.
        examples: of the items regained, then of those that stayed lost: dense, compressed and the arm's.
    """

    task: str
    lost: int
    regained: int
    broken: int
    examples: Sequence[tuple[Item, Item, Item]]


def fates(run: Run, arm: str, examples: int = 3) -> list[Fate]:
    """Follow items from the dense model to an arm, task by task.

    Args:
        run: with a dense and a compressed arm.
        arm: the one that may give items back.
        examples: how many items to show of each kind.

    Returns:
        A row a task in the mean whose items are right or wrong; none without a dense or a compressed arm.
    """
    if not {*PLAIN, arm} <= run.items.keys():
        return []
    return [fate for task in run.in_mean if (fate := _fate(run, task, arm, examples)) is not None]


def _fate(run: Run, task: str, arm: str, examples: int) -> Fate | None:
    known = [run.items[name].get(task) for name in (*PLAIN, arm)]
    if not all(known):
        return None
    rows = list(zip(*(found or () for found in known), strict=True))
    if any(item.value not in (0.0, 1.0) for row in rows for item in row):
        return None
    lost = [row for row in rows if row[0].value > row[1].value]
    regained = [row for row in lost if row[2].value]
    gone = [row for row in lost if not row[2].value]
    broken = sum(dense.value == compressed.value == 1 and not own.value for dense, compressed, own in rows)
    return Fate(task, len(lost), len(regained), broken, [*regained[:examples], *gone[:examples]])


def told(run: Run) -> Iterator[tuple[str, str, int, int]]:
    """Arm, task, items regained and items lost, for every arm with prompts."""
    for arm in run.arms:
        if arm not in PLAIN:
            for fate in fates(run, arm, examples=0):
                yield arm, fate.task, fate.regained, fate.lost
