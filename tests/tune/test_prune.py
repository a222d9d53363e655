from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.select.calibration import Calibration
from idp.tune.prune import prune, reduced


def table(count=900, useful=3, useless=3, seed=0):
    """Losses and hints: useful prompts help a topic each; of the useless ones each is hinted at a little too."""
    generator = torch.Generator().manual_seed(seed)
    topic = torch.arange(count) % useful
    expected = torch.cat([1.0 - 0.4 * torch.eye(useful)[topic], torch.ones(count, useless)], 1)
    losses = expected + 0.1 * torch.randn(expected.shape, generator=generator)
    stray = torch.rand(count, generator=generator) < 0.1
    others = useful + torch.arange(count) % max(1, useless)
    return losses, torch.where(stray & (useless > 0), others, topic).tolist()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_keeps_what_helps_and_drops_what_does_not(seed):
    kept = prune(*table(seed=seed)).kept
    assert set(range(3)) <= set(kept)
    assert len(kept) <= 4


def test_of_duplicates_one_is_left():
    losses, hints = table(useless=0)
    half = [hint + 3 * (place % 2) for place, hint in enumerate(hints)]  # the first of three, and its twin
    twice = prune(torch.cat([losses, losses], 1), half)
    assert len(twice.kept) == 3
    assert {place % 3 for place in twice.kept} == {0, 1, 2}


def test_what_has_to_stay_stays():
    losses, hints = table()
    assert 5 in prune(losses, hints, always=[5]).kept
    assert prune(losses, hints, always=range(6)).kept == tuple(range(6))


def test_a_prompt_that_a_router_could_not_find_by_itself_stays():
    generator = torch.Generator().manual_seed(0)
    losses = 0.5 + 0.3 * torch.randn(400, 3, generator=generator)  # as noisy as single losses are
    hints = [1 + place % 2 for place in range(400)]
    losses[::2, 1] -= 0.1
    losses[1::2, 2] -= 0.1
    assert prune(losses, hints, always=[0]).kept == (0, 1, 2)


def test_a_pruned_calibration_hints_at_heirs():
    losses = torch.tensor([[0.5, 0.1, 0.4, 0.9], [0.5, 0.4, 0.1, 0.9], [0.2, 0.3, 0.1, 0.9]])
    found = reduced(Calibration([(1,), (2,), (3,)], losses, ["a"] * 3, [1, 2, 2]), (0, 1))
    assert found.hints == [1, 0, 0]  # 0.35 under either; the first of equals
    assert found.losses.tolist() == losses[:, [0, 1, 3]].tolist()


def test_the_path_goes_from_all_to_one():
    path = prune(*table()).path
    assert [count for count, _ in path] == [6, 5, 4, 3, 2, 1]
    assert path[3][1] < path[5][1]


@pytest.mark.parametrize(("shape", "hints"), [((2, 3), 1), ((0, 3), 0), ((2, 0), 2)])
def test_tables_that_do_not_fit_are_refused(shape, hints):
    with pytest.raises(TaskError, match="cannot prune"):
        prune(torch.zeros(shape), [0] * hints)
