"""Linear maps are fitted from where they start, and held to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from idp.select.linear import Linear, expected_loss, fit_costs, fit_labels, unit_losses


def _clouds(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features around three far corners, and which corner."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3  # (N,)
    corners = 4 * torch.eye(3, 5, dtype=torch.float64)
    return corners[labels] + torch.randn(count, 5, generator=random, dtype=torch.float64), labels


def test_zero_standardises_and_leaves_out_rows_of_nan() -> None:
    features, _ = _clouds(30)
    features[3] = float("nan")
    start = Linear.zero(features, 4)
    standard = start.standard(features)
    assert start.logits(features).eq(0).all() and start.weight.shape == (4, 5)
    assert standard[3].eq(0).all()
    torch.testing.assert_close(standard[4:].mean(0), -standard[:3].sum(0) / 26)


def test_features_that_never_change_do_not_divide_by_zero() -> None:
    assert torch.isfinite(Linear.zero(torch.ones(5, 2, dtype=torch.float64), 2).standard(torch.ones(1, 2))).all()
    assert torch.isfinite(Linear.zero(torch.full((1, 2), torch.nan), 2).mean).all()


def test_labels_are_learned_and_no_arm_is_given_up() -> None:
    features, labels = _clouds(90)
    found = fit_labels(features, labels, 4).logits(features)  # arm 3 is nobody's label
    assert (found.argmax(1) == labels).double().mean() > 0.95
    assert found.softmax(1)[:, 3].min() > 1e-3


@pytest.mark.parametrize(("l2", "stays"), [(1e6, True), (1e-4, False)])
def test_the_penalty_holds_a_map_to_its_start(l2: float, stays: bool) -> None:
    features, labels = _clouds(90)
    start = fit_labels(features, labels, 3)
    costs = torch.ones(90, 3, dtype=torch.float64).scatter(1, ((labels + 1) % 3)[:, None], 0.0)  # the next arm is best
    moved = fit_costs(start, features, costs, l2)
    agrees = bool(
        ((moved.logits(features).argmax(1) == start.logits(features).argmax(1)).double().mean() > 0.95).item()
    )
    assert agrees is stays
    assert torch.equal(moved.mean, start.mean)


def test_the_start_is_not_changed() -> None:
    features = _clouds(30)[0]
    start = Linear.zero(features, 3)
    fit_costs(start, features, torch.rand(30, 3, generator=torch.Generator().manual_seed(1)).double(), 1e-3)
    assert start.weight.eq(0).all() and not start.weight.requires_grad


def test_unit_losses_keep_the_order_and_forget_scale_and_level() -> None:
    losses = torch.tensor([[0.1, 0.5, 0.3], [0.9, 0.2, 0.2]], dtype=torch.float64)
    unit = unit_losses(losses)
    torch.testing.assert_close(unit, unit_losses(7 * losses + torch.tensor([[3.0], [-2.0]])))
    assert float(unit.square().mean()) == pytest.approx(1.0)
    assert torch.equal(unit.argsort(dim=1, stable=True), losses.argsort(dim=1, stable=True))
    assert unit_losses(torch.full((2, 3), 0.5, dtype=torch.float64)).eq(0).all()


def test_expected_loss_of_a_sure_choice_is_its_own() -> None:
    losses = torch.tensor([[0.1, 0.5], [0.9, 0.2]], dtype=torch.float64)
    assert float(expected_loss(100 * torch.eye(2, dtype=torch.float64), losses)) == pytest.approx(0.15)
