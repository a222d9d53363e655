from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from idp.bank import Prompt, PromptBank, SelectorState, storage
from idp.errors import MissingExtraError, SelectorError
from idp.select import Calibration, KeysSelector
from idp.select import keys as keys_module
from idp.select.keys import cosines
from idp.select.nearest import Nearest

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


def _parts(count):
    """A bank of as many prompts, each with words of its own, and inputs of them."""
    words = torch.randint(3, 384, (count, 6), generator=torch.Generator().manual_seed(5))
    bank = PromptBank([Prompt(f"part-{part}", text="x") for part in range(count)])
    return bank, Calibration(words.tolist(), hints=list(range(count)))


@pytest.fixture
def many(tiny_lm, monkeypatch):
    """Keys of 300 prompts, which count as many, and their calibration."""
    monkeypatch.setattr(keys_module, "INDEX_FROM", 300)
    bank, calibration = _parts(300)
    return KeysSelector().fit(bank, tiny_lm(), calibration), calibration


def _indices(selector, inputs):
    return [choice.index for choice in selector.select_batch(inputs)]


def test_many_keys_are_indexed_and_few_are_not(many, tiny_lm):
    selector, calibration = many
    state = selector.state()
    assert state.tensors["index"].dtype is torch.uint8
    exact = KeysSelector(index="exact").fit(selector.bank, tiny_lm(), calibration)
    assert set(exact.state().tensors) == {"keys", "mean"}
    assert selector.cost.parameters == exact.cost.parameters  # an index is nothing that was learned
    assert np.mean(np.equal(_indices(selector, calibration.inputs), _indices(exact, calibration.inputs))) >= 0.98
    few = KeysSelector().fit(*_fewer(tiny_lm(), 299))
    assert set(few.state().tensors) == {"keys", "mean"}


def _fewer(lm, count):
    bank, calibration = _parts(count)
    return bank, lm, calibration


def test_an_index_is_kept_with_the_keys_and_used_from_the_bank_on_disk(many, tiny_lm, tmp_path, monkeypatch):
    selector, calibration = many
    selector.bank.with_selector("keys", selector.state()).save(tmp_path)
    monkeypatch.setattr(storage, "_READ_WHOLE", 0)
    bank = PromptBank.load(tmp_path)
    loaded = KeysSelector().load_state(bank.selectors["keys"], bank, tiny_lm())
    assert loaded._nearest.codes is not None
    assert loaded.select_batch(calibration.inputs) == selector.select_batch(calibration.inputs)
    again = bank.with_selector("keys", loaded.state()).save(tmp_path / "again")
    assert (again / "bank.safetensors").read_bytes() == (tmp_path / "bank.safetensors").read_bytes()
    exact = KeysSelector(index="exact").load_state(bank.selectors["keys"], bank, tiny_lm())
    assert exact._nearest.codes is None


def test_the_keys_of_prompts_are_indexed_without_inputs(tiny_lm):
    lm = tiny_lm()
    rows = torch.randn(200, 2, lm.hidden_size, generator=torch.Generator().manual_seed(0))
    bank = PromptBank([Prompt(f"p{n}", embedding=row) for n, row in enumerate(rows)])
    selector = KeysSelector(keys="prompts", index="approximate").fit(bank, lm)
    exact = KeysSelector(keys="prompts", index="exact").fit(bank, lm)
    inputs = [[5 + n, 7 + 2 * n] for n in range(60)]
    assert np.mean(np.equal(_indices(selector, inputs), _indices(exact, inputs))) >= 0.98


def test_without_the_library_every_key_is_compared_and_that_is_said_once(many, tiny_lm, monkeypatch, caplog):
    selector, calibration = many
    monkeypatch.setattr(keys_module, "has_faiss", lambda: False)
    monkeypatch.setitem(sys.modules, "faiss", None)
    keys_module._can_index.cache_clear()
    try:
        for _ in range(2):
            fitted = KeysSelector().fit(selector.bank, tiny_lm(), calibration)
            loaded = KeysSelector().load_state(selector.state(), selector.bank, tiny_lm())
            assert fitted._nearest.codes is None and loaded._nearest.codes is None
    finally:
        keys_module._can_index.cache_clear()
    assert caplog.text.count("pip install 'idp[scale]'") == 1
    for use in (
        lambda one: one.fit(selector.bank, tiny_lm(), calibration),
        lambda one: one.load_state(selector.state(), selector.bank, tiny_lm()),
    ):
        with pytest.raises(MissingExtraError, match=r"idp\[scale\]"):
            use(KeysSelector(index="approximate"))


def test_states_that_do_not_fit_their_keys(many, tiny_lm):
    selector, _ = many
    state, lm = selector.state(), tiny_lm()
    for change in ({"keys": state.tensors["keys"].flip(0)}, {"index": state.tensors["index"][:100]}, {"mean": None}):
        tensors = {name: value for name, value in {**state.tensors, **change}.items() if value is not None}
        with pytest.raises(SelectorError, match="not a state of selector 'keys'"):
            KeysSelector().load_state(SelectorState(state.config, tensors), selector.bank, lm)
    bare = SelectorState(state.config, {name: state.tensors[name] for name in ("keys", "mean")})
    assert KeysSelector().load_state(bare, selector.bank, lm)._nearest.codes is None
    with pytest.raises(SelectorError, match="has no index: fit it again"):
        KeysSelector(index="approximate").load_state(bare, selector.bank, lm)
    with pytest.raises(SelectorError, match="has no index 'fast'"):
        KeysSelector(index="fast")


def test_an_index_that_misses_too_much_is_kept_only_where_it_was_asked_for(many, tiny_lm, monkeypatch, caplog):
    selector, calibration = many
    found = Nearest.indexed(selector._nearest.keys)[0]
    monkeypatch.setattr(Nearest, "indexed", lambda *_: (found, 0.9))
    assert KeysSelector().fit(selector.bank, tiny_lm(), calibration)._nearest.codes is None
    assert "finds only 0.900 of the exact choices" in caplog.text
    assert KeysSelector(index="approximate").fit(selector.bank, tiny_lm(), calibration)._nearest is found
