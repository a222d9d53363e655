from __future__ import annotations

import pytest
import torch

from idp.bank import Prompt, PromptBank
from idp.errors import SelectorError
from idp.select import Calibration, KeysSelector
from idp.select.keys import cosines

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])


def _topics(count, seed):
    """Three topics with their own words; each has one arm that is better than the others."""
    random = torch.Generator().manual_seed(seed)
    topics = torch.randint(3, (count,), generator=random)  # (N,)
    inputs = [(100 + 10 * topic + torch.randint(10, (8,), generator=random)).tolist() for topic in topics]
    losses = 1 + 0.1 * torch.rand(count, 3, generator=random)
    losses[torch.arange(count), topics] -= 0.5
    return inputs, losses, topics


def test_the_papers_number():
    queries, keys = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0], [3.0, 4.0]])
    torch.testing.assert_close(cosines(queries, keys), torch.tensor([[0.96, 1.0]]))


@pytest.mark.parametrize("keys", ["centroid", "learned"])
@pytest.mark.parametrize("hinted", [False, True])
def test_keys_find_the_topic(tiny_lm, keys, hinted):
    inputs, losses, topics = _topics(200, seed=1)
    hints = [topic if topic < 2 else -1 for topic in topics.tolist()] if hinted else None
    selector = KeysSelector(keys=keys).fit(BANK, tiny_lm(), Calibration(inputs, losses, hints=hints))
    others, _, wanted = _topics(100, seed=2)
    chosen = torch.tensor([choice.index % 3 for choice in selector.select_batch(others)])
    assert (chosen == wanted).double().mean() > 0.9


def test_hints_are_enough_for_centroids_and_an_arm_without_inputs_is_never_chosen(tiny_lm):
    inputs, _, topics = _topics(60, seed=1)
    hints = [min(topic, 1) for topic in topics.tolist()]
    selector = KeysSelector().fit(BANK, tiny_lm(), Calibration(inputs, hints=hints))
    assert all(choice.scores[-1] == -torch.inf for choice in selector.select_batch(inputs))
    with pytest.raises(SelectorError, match="learns from losses"):
        KeysSelector(keys="learned").fit(BANK, tiny_lm(), Calibration(inputs, hints=hints))
    with pytest.raises(SelectorError, match="learns from losses"):
        KeysSelector().fit(BANK, tiny_lm(), Calibration(inputs))


def test_learned_keys_cost_no_more_than_centroids(tiny_lm):
    inputs, losses, _ = _topics(150, seed=3)
    losses = losses + 0.5 * torch.rand(losses.shape, generator=torch.Generator().manual_seed(0))
    calibration = Calibration(inputs, losses)

    def cost(keys):
        chosen = KeysSelector(keys=keys).fit(BANK, tiny_lm(), calibration).select_batch(inputs)
        return losses[torch.arange(len(losses)), [choice.index for choice in chosen]].mean()

    assert cost("learned") <= cost("centroid")


def test_keys_of_the_prompts_need_nothing(tiny_lm):
    lm = tiny_lm()
    generator = torch.Generator().manual_seed(0)
    bank = PromptBank([Prompt(name, embedding=torch.randn(4, lm.hidden_size, generator=generator)) for name in "ab"])
    selector = KeysSelector(keys="prompts").fit(bank, lm)
    assert selector.needs == "nothing"
    choice = selector.select([5, 6])
    query = lm.embed(torch.tensor([5, 6])).double().mean(0)
    means = torch.stack([prompt.embedding.double().mean(0) for prompt in bank])
    assert choice.scores[:2] == pytest.approx(torch.cosine_similarity(means, query[None]).tolist())
    assert choice.scores[2] == -torch.inf


def test_state_and_bad_input(tiny_lm):
    lm = tiny_lm()
    inputs, losses, _ = _topics(30, seed=4)
    fitted = KeysSelector(keys="learned").fit(BANK, lm, Calibration(inputs, losses))
    again = KeysSelector().load_state(fitted.state(), BANK, lm)
    assert again.select_batch([*inputs, []]) == fitted.select_batch([*inputs, []])
    assert again.keys == "learned"
    with pytest.raises(SelectorError, match="not a state of selector 'keys'"):
        KeysSelector().load_state(fitted.state(), BANK, tiny_lm(hidden_size=64))
    with pytest.raises(SelectorError, match="has no keys 'random'"):
        KeysSelector(keys="random")
    with pytest.raises(SelectorError, match="was not fitted"):
        KeysSelector().select([1])
