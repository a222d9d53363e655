"""The router learns which prompt costs least, the same way every time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idp.bank import Prompt, PromptBank
from idp.errors import SelectorError
from idp.select import Calibration, RouterSelector, StaticSelector
from idp.select.features import mean_embeddings

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])


def _topics(count: int, seed: int) -> tuple[list[list[int]], torch.Tensor]:
    """Three topics with their own words; each has one arm that is better than the others."""
    random = torch.Generator().manual_seed(seed)
    topics = torch.randint(3, (count,), generator=random)  # (N,)
    lengths = torch.randint(4, 12, (count,), generator=random).tolist()
    words = [torch.randint(10, (n,), generator=random) for n in lengths]
    inputs = [(100 + 10 * topic + row).tolist() for topic, row in zip(topics, words, strict=True)]
    losses = 1 + 0.1 * torch.rand(count, 3, generator=random)
    losses[torch.arange(count), topics] -= 0.5
    return inputs, losses


def test_mean_embedding_is_the_mean(tiny_lm: Any) -> None:
    lm = tiny_lm()
    inputs = [[5, 6, 7], [8], [9] * 20]
    features = mean_embeddings(lm, inputs)
    for row, ids in zip(features, inputs, strict=True):
        torch.testing.assert_close(row, lm.embed(torch.tensor(ids)).double().mean(dim=0))
    assert torch.isnan(mean_embeddings(lm, [[1], []])[1]).all()
    assert mean_embeddings(lm, []).shape == (0, lm.hidden_size)


def test_chunks_change_nothing(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, _ = _topics(50, seed=0)
    whole = mean_embeddings(tiny_lm(), inputs)
    monkeypatch.setattr("idp.select.features._TOKENS_A_CHUNK", 16)
    assert torch.equal(mean_embeddings(tiny_lm(), inputs), whole)


def test_learns_the_topic_and_beats_static(tiny_lm: Any) -> None:
    lm = tiny_lm()
    calibration = Calibration(*_topics(300, seed=1))
    router, static = RouterSelector().fit(BANK, lm, calibration), StaticSelector().fit(BANK, lm, calibration)
    inputs, losses = _topics(200, seed=2)
    rows = torch.arange(len(inputs))
    routed = losses[rows, [choice.index for choice in router.select_batch(inputs)]].mean()
    fixed = losses[rows, [choice.index for choice in static.select_batch(inputs)]].mean()
    assert routed <= losses.min(dim=1).values.mean() + 0.02
    assert fixed > routed + 0.2


def test_scores_are_probabilities(tiny_lm: Any) -> None:
    router = RouterSelector().fit(BANK, tiny_lm(), Calibration(*_topics(50, seed=3)))
    for choice in router.select_batch([[100, 101], [], [120]]):
        assert sum(choice.scores) == pytest.approx(1.0)
        assert choice.score == max(choice.scores)


def test_alone_or_in_a_batch(tiny_lm: Any) -> None:
    inputs, losses = _topics(60, seed=4)
    router = RouterSelector().fit(BANK, tiny_lm(), Calibration(inputs, losses))
    batch = router.select_batch(inputs)
    assert [choice.index for choice in batch] == [router.select(ids).index for ids in inputs]
    torch.testing.assert_close(
        torch.tensor([choice.scores for choice in batch]),
        torch.tensor([router.select(ids).scores for ids in inputs]),
    )
    assert router.select_batch([]) == []


def test_same_seed_same_state(tiny_lm: Any) -> None:
    calibration = Calibration(*_topics(80, seed=5))
    one, two = (RouterSelector(seed=3).fit(BANK, tiny_lm(), calibration).state() for _ in range(2))
    assert one.config == two.config
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_state_round_trip(tiny_lm: Any) -> None:
    lm = tiny_lm()
    inputs, losses = _topics(60, seed=6)
    router = RouterSelector().fit(BANK, lm, Calibration(inputs, losses))
    assert RouterSelector().load_state(router.state(), BANK, lm).select_batch(inputs) == router.select_batch(inputs)


def test_empty_input_gets_the_average_input(tiny_lm: Any) -> None:
    inputs, losses = _topics(60, seed=7)
    router = RouterSelector(l2=100.0).fit(BANK, tiny_lm(), Calibration([*inputs, []], torch.cat([losses, losses[:1]])))
    state = router.state().tensors
    expected = state["bias"].softmax(dim=0)
    torch.testing.assert_close(torch.tensor(router.select([]).scores, dtype=torch.float64), expected)


@pytest.mark.parametrize("count", [1, 5])
def test_few_inputs(tiny_lm: Any, count: int) -> None:
    inputs, losses = _topics(count, seed=8)
    losses[:, 1] = 0.0
    router = RouterSelector().fit(BANK, tiny_lm(), Calibration(inputs, losses))
    assert {choice.index for choice in router.select_batch(inputs)} == {1}


def test_equal_losses_choose_the_first(tiny_lm: Any) -> None:
    inputs, _ = _topics(30, seed=9)
    router = RouterSelector().fit(BANK, tiny_lm(), Calibration(inputs, torch.ones(30, 3)))
    assert {choice.index for choice in router.select_batch(inputs)} == {0}


def test_only_empty_inputs(tiny_lm: Any) -> None:
    losses = torch.tensor([[1.0, 1.0, 0.0]])
    assert RouterSelector().fit(BANK, tiny_lm(), Calibration([[]], losses)).select([5]).index == -1


@pytest.mark.parametrize("l2", [-1.0, float("nan")])
def test_negative_penalty(l2: float) -> None:
    with pytest.raises(SelectorError, match="at least 0"):
        RouterSelector(l2=l2)


def _noisy(count: int, seed: int) -> tuple[list[list[int]], torch.Tensor, list[int]]:
    """Topics whose best arm is hidden in noise five times as large as what it saves."""
    inputs, losses = _topics(count, seed)
    best = losses.argmin(dim=1)
    noise = torch.randn(losses.shape, generator=torch.Generator().manual_seed(seed + 100))
    losses = noise.scatter_add(1, best[:, None], torch.full((count, 1), -0.2))
    return inputs, losses, [int(arm) if arm < 2 else -1 for arm in best]


def test_hints_find_what_noise_hides(tiny_lm: Any) -> None:
    lm = tiny_lm()
    inputs, losses, hints = _noisy(600, seed=10)
    fresh, _, best = _noisy(200, seed=11)

    def agreement(calibration: Calibration) -> float:
        router = RouterSelector().fit(BANK, lm, calibration)
        choices = [choice.index for choice in router.select_batch(fresh)]
        return sum(one == other for one, other in zip(choices, best, strict=True)) / len(best)

    hinted, alone = agreement(Calibration(inputs, losses, hints=hints)), agreement(Calibration(inputs, losses))
    assert hinted > 0.95 > 0.8 > alone


def test_losses_overrule_wrong_hints(tiny_lm: Any) -> None:
    lm = tiny_lm()
    inputs, losses = _topics(300, seed=12)
    wrong = [(int(arm) + 1) % 2 for arm in losses.argmin(dim=1)]
    router = RouterSelector().fit(BANK, lm, Calibration(inputs, losses, hints=wrong))
    fresh, costs = _topics(200, seed=13)
    chosen = costs[torch.arange(200), [choice.index for choice in router.select_batch(fresh)]]
    assert chosen.mean() <= costs.min(dim=1).values.mean() + 0.02


def test_a_hint_at_a_prompt_that_is_not_there(tiny_lm: Any) -> None:
    inputs, losses = _topics(30, seed=14)
    with pytest.raises(SelectorError, match="hints at prompt 2"):
        RouterSelector().fit(BANK, tiny_lm(), Calibration(inputs, losses, hints=[0] * 29 + [2]))


def _last_words(count: int, seed: int) -> tuple[list[list[int]], torch.Tensor]:
    """The same words in every order; the last one says which arm is better."""
    random = torch.Generator().manual_seed(seed)
    inputs = [(100 + torch.randperm(3, generator=random)).tolist() for _ in range(count)]
    losses = torch.ones(count, 3)
    losses[torch.arange(count), torch.tensor([ids[-1] - 100 for ids in inputs])] = 0.0
    return inputs, losses


def test_states_tell_what_mean_embeddings_cannot(tiny_lm: Any) -> None:
    lm, calibration = tiny_lm(), Calibration(*_last_words(120, seed=1))
    inputs, losses = _last_words(60, seed=2)
    rows = torch.arange(60)

    def cost(router: RouterSelector) -> float:
        fitted = router.fit(BANK, lm, calibration)
        return float(losses[rows, [choice.index for choice in fitted.select_batch(inputs)]].mean())

    assert cost(RouterSelector(l2=1e-4)) > 0.4
    assert cost(RouterSelector(l2=1e-4, features="state1")) < 0.1


def test_a_router_on_states_can_be_kept_and_says_what_it_costs(tiny_lm: Any) -> None:
    lm, (inputs, losses) = tiny_lm(), _last_words(40, seed=3)
    router = RouterSelector(features="state").fit(BANK, lm, Calibration(inputs, losses))
    assert router.cost.forwards == 0.5  # one of two layers
    assert RouterSelector(features="state2").fit(BANK, lm, Calibration(inputs, losses)).cost.forwards == 1.0
    again = RouterSelector().load_state(router.state(), BANK, lm)
    assert again.features == "state"
    assert again.select_batch([*inputs, []]) == router.select_batch([*inputs, []])


def test_features_that_are_not_there(tiny_lm: Any) -> None:
    with pytest.raises(SelectorError, match="no features 'words'"):
        RouterSelector(features="words")
    with pytest.raises(SelectorError, match="as features: tiny-llama has 2 layers"):
        RouterSelector(features="state5").fit(BANK, tiny_lm(), Calibration(*_last_words(9, seed=0)))
