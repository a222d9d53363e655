"""Means within groups."""

from __future__ import annotations

import pytest
import torch

from idp.select.groups import group_means


def test_groups_come_in_the_order_of_their_first_row() -> None:
    means = group_means(torch.tensor([1.0, 2.0, 3.0]), ["x", "y", "x"])
    assert list(means) == ["x", "y"]
    assert [float(mean) for mean in means.values()] == [2.0, 2.0]


def test_rows_may_be_of_any_shape() -> None:
    means = group_means(torch.tensor([[1.0, 5.0], [3.0, 7.0], [0.0, 0.0]]), ["x", "x", "y"])
    assert means["x"].tolist() == [2.0, 6.0] and means["y"].tolist() == [0.0, 0.0]


def test_nothing_has_no_groups() -> None:
    assert group_means(torch.empty(0, 2), []) == {}


@pytest.mark.parametrize("rows", [1, 3])
def test_every_row_has_a_group(rows: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        group_means(torch.ones(rows), ["x", "y"])
