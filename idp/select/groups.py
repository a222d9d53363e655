"""Means within groups of rows, such as the tasks that inputs come from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["group_means"]


def group_means(values: Tensor, groups: Sequence[str]) -> dict[str, Tensor]:
    """Average the rows of each group; the groups in the order in which they first appear.

    Args:
        values: `(N, ...)`.
        groups: the group of each row.

    Returns:
        For each group a mean `(...)`.

    Raises:
        ValueError: not as many groups as rows.

    Example:
        >>> group_means(torch.tensor([1.0, 3.0, 5.0]), ["a", "b", "a"])
        {'a': tensor(3.), 'b': tensor(3.)}
    """
    rows: dict[str, list[int]] = {}
    for row, group in zip(range(len(values)), groups, strict=True):
        rows.setdefault(group, []).append(row)
    return {group: values[members].mean(dim=0) for group, members in rows.items()}
