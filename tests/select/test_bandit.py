from __future__ import annotations

import pytest
import torch

from idp.bank import Prompt, PromptBank
from idp.errors import SelectorError
from idp.select import BanditSelector, Calibration

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])


def _inputs(count, seed):
    """Inputs of three topics, and the arm that is right for each."""
    random = torch.Generator().manual_seed(seed)
    topics = torch.randint(3, (count,), generator=random)
    inputs = [(100 + 10 * topic + torch.randint(10, (8,), generator=random)).tolist() for topic in topics]
    return inputs, [topic if topic < 2 else -1 for topic in topics.tolist()]


def test_it_learns_from_feedback_on_its_own_choices(tiny_lm):
    bandit = BanditSelector().fit(BANK, tiny_lm())
    inputs, right = _inputs(600, seed=0)
    rewards = []
    for ids, wanted in zip(inputs, right, strict=True):
        choice = bandit.select(ids)
        rewards.append(float(choice.index == wanted))
        bandit.learn([ids], [choice.index], rewards[-1:])
    assert max(right.count(arm) for arm in (0, 1, -1)) < 250  # what no choice that ignores the input can exceed
    assert sum(rewards[-100:]) / 100 > 0.85


def test_the_posterior_is_that_of_ridge_regression(tiny_lm):
    bandit = BanditSelector(noise=1e-9).fit(BANK, tiny_lm())  # so that what is drawn is the mean
    inputs, _ = _inputs(40, seed=1)
    rewards = torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bandit.learn(inputs, [1] * 40, rewards.tolist())
    features = bandit.features(inputs)
    eye = torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(features.T @ features + eye, features.T @ rewards)
    found = torch.tensor([choice.scores for choice in bandit.select_batch(inputs)], dtype=torch.float64)
    torch.testing.assert_close(found[:, 1], features @ weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, [0, 2]], torch.zeros(40, 2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_draws_spread_as_the_posterior_says(tiny_lm):
    bandit = BanditSelector(noise=0.5).fit(BANK, tiny_lm())
    inputs, _ = _inputs(30, seed=1)
    bandit.learn(inputs, [0] * 30, [1.0] * 30)
    drawn = []
    for seed in range(400):
        bandit.seed = seed  # the projection depends on it too, so features are taken anew
        features = bandit.features([inputs[0]])
        score = bandit.select(inputs[0]).scores[1]  # an arm without feedback: w ~ N(0, noise^2)
        drawn.append(score / float(features.norm()))
    assert torch.tensor(drawn).std() == pytest.approx(0.5, rel=0.15)


def test_one_history_gives_one_choice_whatever_shares_the_call(tiny_lm):
    inputs, right = _inputs(20, seed=3)
    one, other = (BanditSelector(seed=4).fit(BANK, tiny_lm()) for _ in range(2))
    for bandit in (one, other):
        bandit.learn(inputs, right, [1.0] * 20)
    assert one.select_batch(inputs) == other.select_batch(inputs)
    assert [one.select(ids).index for ids in inputs] == [choice.index for choice in one.select_batch(inputs)]
    before = one.select_batch(inputs)
    one.learn(inputs[:1], [0], [0.0])
    assert one.select_batch(inputs) != before


def test_losses_are_feedback_on_every_arm(tiny_lm):
    inputs, right = _inputs(200, seed=5)
    losses = torch.ones(200, 3)
    losses[torch.arange(200), torch.tensor(right) % 3] = 0.0
    bandit = BanditSelector(noise=0.01).fit(BANK, tiny_lm(), Calibration(inputs, losses))
    chosen = [choice.index for choice in bandit.select_batch(inputs)]
    assert sum(a == b for a, b in zip(chosen, right, strict=True)) > 180
    again = BanditSelector().load_state(bandit.state(), BANK, tiny_lm())
    assert again.select_batch(inputs) == bandit.select_batch(inputs)


def test_bad_feedback_changes_nothing(tiny_lm):
    bandit = BanditSelector().fit(BANK, tiny_lm())
    before = bandit.select_batch([[5, 6]])
    for feedback, message in [
        (([[5]], [0, 1], [1.0]), "2 choices"),
        (([[5]], [2], [1.0]), "prompt 2, but the bank has 2"),
        (([[5]], [-2], [1.0]), "prompt -2"),
        (([[5]], [0], [float("nan")]), "no finite number"),
    ]:
        with pytest.raises(SelectorError, match=message):
            bandit.learn(*feedback)
    assert bandit.select_batch([[5, 6]]) == before
    with pytest.raises(SelectorError, match="a positive number, not 0"):
        BanditSelector(noise=0)
    with pytest.raises(SelectorError, match="was not fitted"):
        BanditSelector().select([1])
    assert bandit.select_batch([]) == []
