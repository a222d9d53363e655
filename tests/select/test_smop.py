"""The router of a mixture chooses what it chose in training, without noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from idp.bank import Prompt, PromptBank, SelectorState
from idp.dynamic.wrap import fitted_selector
from idp.errors import SelectorError
from idp.select import SmopSelector
from idp.select.features import mean_embeddings
from idp.select.smop import route

INPUTS = [[5, 6, 7], [100], [200, 201, 9, 9, 9], [300, 4]]


@pytest.fixture
def fitted(tiny_lm: Any) -> tuple[Any, PromptBank, torch.Tensor]:
    lm = tiny_lm()
    generator = torch.Generator().manual_seed(3)
    prompts = [Prompt(name, embedding=torch.randn(2, lm.hidden_size, generator=generator)) for name in "abc"]
    return lm, PromptBank(prompts, lm.fingerprint), 5 * torch.randn(3, lm.hidden_size, generator=generator)


def test_the_papers_numbers() -> None:
    table = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    features = mean_embeddings(SimpleNamespace(hidden_size=2, embed=lambda ids: table[ids]), [[0, 1]])  # type: ignore[arg-type]
    assert features.tolist() == [[1.0, 0.0]]
    routing = route(torch.eye(2), features)
    torch.testing.assert_close(routing.probabilities, torch.tensor([[0.7311, 0.2689]]).double(), atol=1e-4, rtol=0)
    assert routing.chosen.tolist() == [0]
    assert routing.gates.item() == routing.probabilities[0, 0].item()


def test_noise_scales_with_the_logit_and_carries_no_gradient() -> None:
    router = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], requires_grad=True)
    features, noise = torch.tensor([[0.4, 0.3]]).double(), torch.tensor([[0.5, -2.0]]).double()
    routing = route(router, features, noise)
    logits = features @ router.detach().double().T
    expected = (logits * (1 + noise)).softmax(-1)[0]
    torch.testing.assert_close(routing.probabilities[0].detach(), expected)
    routing.gates.sum().backward()
    chosen = int(expected.argmax())
    slope = expected[chosen] * (torch.eye(2)[chosen] - expected)  # of the softmax
    assert router.grad is not None
    torch.testing.assert_close(router.grad.double(), slope[:, None] * features)


def test_chooses_the_largest_weight_and_never_none(fitted: Any) -> None:
    lm, bank, router = fitted
    choices = SmopSelector.of(router, bank, lm).select_batch(INPUTS)
    expected = (mean_embeddings(lm, INPUTS) @ router.double().T).softmax(-1)
    assert [choice.index for choice in choices] == expected.argmax(1).tolist()
    assert len({choice.index for choice in choices}) > 1
    for choice, row in zip(choices, expected.tolist(), strict=True):
        assert choice.scores[:3] == pytest.approx(row)
        assert choice.scores[3] == -torch.inf
        assert choice.score == max(choice.scores)


def test_alone_or_in_a_batch(fitted: Any) -> None:
    lm, bank, router = fitted
    selector = SmopSelector.of(router, bank, lm)
    batch, alone = selector.select_batch(INPUTS), [selector.select(ids) for ids in INPUTS]
    assert [choice.index for choice in batch] == [choice.index for choice in alone]
    for one, other in zip(batch, alone, strict=True):
        assert one.scores == pytest.approx(other.scores)
    assert selector.select_batch(INPUTS) == batch
    assert selector.select_batch([]) == []


def test_an_empty_input_gets_the_first_prompt(fitted: Any) -> None:
    lm, bank, router = fitted
    choice = SmopSelector.of(router, bank, lm).select([])
    assert choice.index == 0
    assert choice.scores[:3] == pytest.approx((1 / 3,) * 3)


def test_comes_with_the_bank(fitted: Any, tmp_path: Any) -> None:
    lm, bank, router = fitted
    selector = SmopSelector.of(router, bank, lm)
    kept = PromptBank.load(bank.with_selector("smop", selector.state()).save(tmp_path))
    for other in (fitted_selector(SmopSelector(), kept, lm), SmopSelector().fit(kept, lm)):
        assert other.select_batch(INPUTS) == selector.select_batch(INPUTS)


def test_a_bank_without_a_router_says_so(fitted: Any) -> None:
    lm, bank, _ = fitted
    with pytest.raises(SelectorError, match="trained together with its prompts"):
        SmopSelector().fit(bank, lm)


def test_a_router_of_other_prompts_is_refused(fitted: Any) -> None:
    lm, bank, router = fitted
    for wrong in (router[:2], router[:, :5], router * torch.nan):
        with pytest.raises(SelectorError, match="not a state of selector 'smop'"):
            SmopSelector.of(wrong, bank, lm)
    with pytest.raises(SelectorError, match="not a state of selector 'smop'"):
        SmopSelector().load_state(SelectorState({"prompts": list(bank.names)}), bank, lm)


def test_not_fitted(fitted: Any) -> None:
    with pytest.raises(SelectorError, match="not fitted"):
        SmopSelector().select_batch(INPUTS)
    with pytest.raises(SelectorError, match="not fitted"):
        SmopSelector().state()
