from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.tune.prune import prune


def table(count=900, useful=3, useless=3, seed=0):
    """Useful prompts help a topic each; useless ones help nobody."""
    generator = torch.Generator().manual_seed(seed)
    topic = torch.arange(count) % useful
    expected = torch.cat([1.0 - 0.4 * torch.eye(useful)[topic], torch.ones(count, useless)], 1)
    losses = expected + 0.3 * torch.randn(expected.shape, generator=generator)
    return losses, expected + 0.02 * torch.randn(expected.shape, generator=generator)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_keeps_what_helps_and_drops_what_does_not(seed):
    kept = prune(*table(seed=seed)).kept
    assert set(range(3)) <= set(kept)
    assert len(kept) <= 4


def test_of_duplicates_one_is_left():
    losses, predicted = table(useless=0)
    twice = prune(torch.cat([losses, losses], 1), torch.cat([predicted, predicted], 1))
    assert twice.kept == (0, 1, 2)


def test_what_has_to_stay_stays():
    losses, predicted = table()
    assert 5 in prune(losses, predicted, always=[5]).kept
    assert prune(losses, predicted, always=range(6)).kept == tuple(range(6))


def test_the_path_goes_from_all_to_one():
    path = prune(*table()).path
    assert [count for count, _ in path] == [6, 5, 4, 3, 2, 1]
    assert path[3][1] < path[5][1]


@pytest.mark.parametrize("shapes", [((2, 3), (2, 2)), ((0, 3), (0, 3)), ((2, 0), (2, 0))])
def test_tables_that_do_not_fit_are_refused(shapes):
    with pytest.raises(TaskError, match="cannot prune"):
        prune(*(torch.zeros(shape) for shape in shapes))
