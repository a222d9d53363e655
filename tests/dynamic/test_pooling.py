from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.dynamic.pooling import PooledLogits, pooled
from idp.errors import SelectorError
from idp.run.score import Score

LOGS = st.floats(-50, 0)


def test_likelihoods_are_averaged_and_not_their_logarithms():
    found = pooled([0.25, 0.75], [Score(math.log(0.4), True), Score(math.log(0.2), False)])
    assert found.loglikelihood == pytest.approx(math.log(0.25 * 0.4 + 0.75 * 0.2))
    far = pooled([0.5, 0.5], [Score(-1.0, True), Score(-math.inf, True)])
    assert far.loglikelihood == pytest.approx(-1.0 - math.log(2))
    assert pooled([0.5, 0.5], [Score(-math.inf, False)] * 2).loglikelihood == -math.inf


@given(st.lists(st.tuples(LOGS, st.floats(0.01, 1)), min_size=1, max_size=6))
def test_the_ensemble_lies_between_its_prompts(pairs):
    logs, shares = [log for log, _ in pairs], [share / sum(share for _, share in pairs) for _, share in pairs]
    found = pooled(shares, [Score(log, False) for log in logs]).loglikelihood
    assert min(logs) - 1e-9 <= found <= max(logs) + 1e-9


def test_one_prompt_is_that_prompt_to_the_last_bit():
    score = Score(-0.1234567890123456, True)
    assert pooled([1.0], [score]) is score


@pytest.mark.parametrize("weights, said", [((0.5, 0.3, 0.2), False), ((0.4, 0.4, 0.2), True)])
def test_the_first_choice_is_voted_for(weights, said):
    votes = [Score(-1.0, False), Score(-1.0, True), Score(-1.0, True)]
    assert pooled(weights, votes).is_greedy is said


def test_next_tokens_are_those_of_the_mean_whose_weights_follow_what_was_generated():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 7, generator=generator)  # (R, V): a group of two rows, and a row alone
    pool = PooledLogits([[0.25, 0.75], [1.0]])
    said = pool(torch.zeros(3, 1, dtype=torch.long), first)
    p = first.double().softmax(-1)
    torch.testing.assert_close(said[:2].double().exp(), (0.25 * p[0] + 0.75 * p[1]).expand(2, 7))
    assert torch.equal(said[2], first[2])
    token = int(said[0].argmax())
    said = pool(torch.tensor([[0, token], [0, token], [0, 3]]), second)
    q = second.double().softmax(-1)
    weights = torch.tensor([0.25 * p[0, token], 0.75 * p[1, token]])
    expected = (weights[:, None] / weights.sum() * q[:2]).sum(0)
    torch.testing.assert_close(said[:2].double().exp(), expected.expand(2, 7))
    assert torch.equal(said[2], second[2])


def test_what_no_prompt_allows_stays_impossible():
    scores = torch.tensor([[0.0, -torch.inf], [1.0, -torch.inf]])
    said = PooledLogits([[0.5, 0.5]])(torch.zeros(2, 1, dtype=torch.long), scores)
    torch.testing.assert_close(said, torch.tensor([[0.0, -torch.inf]]).expand(2, 2))


def test_rows_that_went_on_differently_are_an_error():
    pool = PooledLogits([[0.5, 0.5]])
    pool(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 3))
    with pytest.raises(SelectorError, match="leave do_sample out"):
        pool(torch.tensor([[0, 1], [0, 2]]), torch.zeros(2, 3))
