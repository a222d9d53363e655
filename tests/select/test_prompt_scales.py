"""Scores of prompts become comparable, and where losses are known, worth following."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from idp.select.prompt_scales import Scales, centered, fitted, zscored


def _draws(count: int = 400) -> tuple[Tensor, Tensor]:
    """Log scores of three prompts on scales of their own, and losses that fall with them; none costs 0.6."""
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(count, 3, generator=generator)  # (N, 3)
    noise = 0.3 * torch.randn(count, 4, generator=generator)
    losses = torch.cat([0.7 - 0.3 * known, torch.full((count, 1), 0.6)], dim=1) + noise
    return known * torch.tensor([0.1, 2.0, 0.5]) + torch.tensor([-9.0, -1.0, -5.0]), losses


def _cost(scores: Tensor, losses: Tensor) -> float:
    return float(losses.gather(1, scores.argmax(dim=1, keepdim=True)).mean())


def _with_none(scales: Scales, log: Tensor) -> Tensor:
    return torch.cat([scales.apply(log), torch.zeros(len(log), 1)], dim=1)  # (N, m + 1)


def test_centred_and_scaled() -> None:
    log, _ = _draws()
    for scales, spread in ((centered(log), log.std(dim=0, correction=0)), (zscored(log), torch.ones(3))):
        scaled = scales.apply(log)
        torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(scaled.std(dim=0, correction=0), spread)


@pytest.mark.parametrize("scale", [centered, zscored])
def test_a_constant_score_does_not_divide_by_zero(scale: object) -> None:
    assert callable(scale)
    assert torch.equal(scale(torch.full((3, 2), -4.0)).apply(torch.full((1, 2), -4.0)), torch.zeros(1, 2))


def test_fitted_costs_less_than_scores_alone_and_than_any_one_arm() -> None:
    log, losses = _draws(800)
    inside, outside = slice(0, 400), slice(400, 800)
    found = _cost(_with_none(fitted(log[inside], losses[inside]), log[outside]), losses[outside])
    assert found < _cost(zscored(log[inside]).apply(log[outside]), losses[outside]) - 0.02
    assert found < float(losses[outside].mean(dim=0).min()) - 0.1


def test_a_prompt_that_attention_says_nothing_of_is_chosen_by_its_mean() -> None:
    log, _ = _draws()
    for best in range(4):
        losses = torch.full((len(log), 4), 0.5).index_fill(1, torch.tensor([best]), 0.3)
        assert set(_with_none(fitted(log, losses), log).argmax(dim=1).tolist()) == {best}


def test_without_differences_or_under_a_hard_penalty_it_stays_where_it_starts() -> None:
    log, losses = _draws()
    for scales in (fitted(log, torch.full((len(log), 4), 0.5)), fitted(log, losses, l2=1e6)):
        torch.testing.assert_close(scales.apply(log), zscored(log).apply(log), atol=2e-3, rtol=1e-3)


def test_the_same_bytes_whatever_the_global_seed() -> None:
    log, losses = _draws()
    torch.manual_seed(1)
    first = fitted(log, losses)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, fitted(log, losses), strict=True))
    assert all(part.dtype == torch.float32 and part.shape == (3,) for part in first)
    assert bool((first.std > 0).all())
