from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.tune.gate import Gate, balanced


def topics(count=600, prompts=3, noise=1.0, seed=0):
    """Features that tell a topic, and losses that are lower under the topic's own prompt, buried in noise."""
    generator = torch.Generator().manual_seed(seed)
    topic = torch.arange(count) % prompts
    features = torch.eye(prompts)[topic].double() + 0.1 * torch.randn(count, prompts, generator=generator).double()
    losses = 1.0 - 0.3 * torch.eye(prompts)[topic] + noise * torch.randn(count, prompts, generator=generator)
    return topic, features, losses


def test_finds_the_topic_through_noise_that_single_losses_drown_in():
    topic, features, losses = topics()
    own = float((losses.argmin(1) == topic).float().mean())
    gated = float((Gate.fit(features, losses).expected(features).argmin(1) == topic).float().mean())
    assert own < 0.6
    assert gated > 0.95


def test_one_prompt_and_constant_features_are_possible():
    expected = Gate.fit(torch.zeros(8, 2).double(), torch.rand(8, 1)).expected(torch.zeros(3, 2).double())
    assert expected.shape == (3, 1)


def test_unbalanced_is_the_lowest_cost():
    costs = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(balanced(costs, 0.0), costs.argmin(1))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), prompts=st.integers(2, 6))
def test_no_part_is_empty_though_one_prompt_is_best_for_all(seed, prompts):
    costs = torch.rand(400, prompts, generator=torch.Generator().manual_seed(seed)).double()
    costs[:, 0] -= 0.5
    free, held, half = (torch.bincount(balanced(costs, s), minlength=prompts) for s in (0.0, 1.0, 0.5))
    assert int(held.min()) > 0
    assert int(held.max()) <= int(half.max()) <= int(free.max())


def test_where_features_tell_nothing_all_stay_where_they_are():
    current = torch.tensor([2, 0, 1, 1, 2, 0])
    for costs in (torch.ones(6, 3), torch.tensor([0.1, 0.5, 0.9]).expand(6, 3)):
        assert torch.equal(balanced(costs, 1.0, current), current)


def test_a_clear_difference_moves_an_input():
    costs = torch.ones(6, 3)
    costs[:, 0], costs[0] = 0.9, torch.tensor([1.0, 1.0, 0.0])
    assert balanced(costs, 1.0, torch.tensor([0, 0, 1, 1, 2, 2])).tolist()[0] == 2


@pytest.mark.parametrize(("costs", "strength"), [(torch.ones(2, 2), 1.5), (torch.full((2, 2), torch.nan), 0.5)])
def test_what_cannot_be_balanced_is_refused(costs, strength):
    with pytest.raises(TaskError, match="cannot balance"):
        balanced(costs, strength)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(TaskError, match="cannot learn"):
        Gate.fit(torch.zeros(0, 2), torch.zeros(0, 2))
