from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.run.store import PrefixStore
from idp.tune import texts
from idp.tune.examples import Example
from idp.tune.losses import example_losses
from idp.tune.texts import Chosen, choose_texts, complementary, helpful


def table_of(count, seed, effects, spread=0.2):
    """Losses around 0.5 with noise of their own, moved by `effects[prompt][part]`; parts take turns."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.arange(count) % len(effects[0])  # (N,)
    losses = 0.5 + spread * torch.randn(count, len(effects) + 1, generator=generator, dtype=torch.float64)
    losses[:, :-1] += torch.tensor(effects, dtype=torch.float64).T[parts]
    held_out = torch.randperm(count, generator=generator) % 2 == 0  # (N,)
    return losses, parts, held_out


SPECIALISTS = [[-0.2, 0.2, 0.2], [0.2, -0.2, 0.2], [0.2, 0.2, -0.2], [0.3, 0.3, 0.3]]
"""Three prompts for one part each, and one for nobody."""


def test_what_helps_somebody_is_kept():
    losses, parts, _ = table_of(300, 0, [*SPECIALISTS, [-0.1, -0.1, -0.1]])
    assert helpful(losses, parts) == [0, 1, 2, 4]
    assert helpful(losses) == [4]  # over all inputs the specialists do harm


def test_what_helps_nobody_is_not():
    losses, parts, _ = table_of(300, 0, [[0.1, 0.1], [0.0, 0.3]])
    assert helpful(losses, parts) == []


@pytest.mark.parametrize("parts", [1, 4])
def test_of_noise_little_is_kept(parts):
    """The rate of false discoveries is held: with no discovery to be made, one run in twenty finds some."""
    found = 0
    for seed in range(200):
        losses, numbers, _ = table_of(120, seed, [[0.0] * parts] * 12)
        found += bool(helpful(losses, numbers, level=0.05))
    assert found / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_gain_without_any_spread_is_certain_and_no_gain_is_none():
    losses = torch.tensor([[0.1, 0.2, 0.3, 0.2]]).repeat(12, 1)
    assert helpful(losses) == [0]


def test_parts_of_few_inputs_are_not_tested():
    losses, parts, _ = table_of(120, 0, [[0.0, -0.4]], spread=0.05)
    few = torch.cat([losses[parts == 0], losses[parts == 1][:9]])
    numbers = torch.tensor([0] * 60 + [1] * 9)
    assert helpful(few, numbers) == helpful(few)


def test_complementary_prompts_are_found_and_doubles_are_not():
    losses, parts, held_out = table_of(300, 1, SPECIALISTS)
    twin = losses[:, :1] + 0.001
    chosen = complementary(torch.cat([twin, losses], dim=1), parts, held_out, count=6)
    assert {choice.index for choice in chosen} == {1, 2, 3}
    assert all(choice.drop > choice.error > 0 for choice in chosen)
    assert sum(choice.drop for choice in chosen) == pytest.approx(0.2, abs=0.05)


def test_the_count_is_the_most():
    losses, parts, held_out = table_of(300, 1, SPECIALISTS)
    assert len(complementary(losses, parts, held_out, count=2)) == 2


def test_candidates_are_all_that_may_be_chosen():
    losses, parts, held_out = table_of(300, 1, SPECIALISTS)
    assert {choice.index for choice in complementary(losses, parts, held_out, 6, [3, 0, 0])} == {0}
    assert complementary(losses, parts, held_out, 6, []) == []


def test_drops_are_those_of_the_held_out_half():
    losses = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.2, 0.5]]).repeat(10, 1)
    parts, held_out = torch.arange(20) % 2, torch.arange(20) >= 10
    first, second = complementary(losses, parts, held_out, count=2)
    assert (first.index, second.index) == (0, 1)
    assert (first.drop, second.drop) == (pytest.approx(0.2), pytest.approx(0.15))
    assert (first.bound, second.bound) == (pytest.approx(0.2), pytest.approx(0.15))
    assert first.error == pytest.approx(float(torch.tensor([0.4, 0.0] * 5).std()) / 10**0.5)


@given(seed=st.integers(0, 2**31), shift=st.floats(0.02, 0.5), prompts=st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_of_prompts_that_only_harm_none_is_chosen(seed, shift, prompts):
    losses, parts, held_out = table_of(80, seed, [[0.0, 0.0]] * prompts)
    losses[:, :-1] = losses[:, -1:] + shift
    assert complementary(losses, parts, held_out, count=3) == []
    assert helpful(losses, parts) == []


def test_noise_adds_almost_nothing_though_every_single_minimum_falls():
    added, luck = 0, []
    for seed in range(100):
        losses, parts, held_out = table_of(160, seed, [[0.0] * 4] * 12)
        added += len(complementary(losses, parts, held_out, count=8))
        outside = losses[held_out]
        gain = (outside[:, -1] - outside[:, [0, -1]].min(1).values).mean()
        error = (outside[:, -1] - outside[:, [0, -1]].min(1).values).std() / len(outside) ** 0.5
        luck.append(bool(gain > 3 * error))
    assert all(luck)  # by which a rule that looks at single inputs would add them all
    assert added / 100 < 0.35  # one standard error: one try in six


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_the_order_of_inputs_does_not_matter(seed):
    losses, parts, held_out = table_of(120, seed, SPECIALISTS)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(seed))
    once = complementary(losses, parts, held_out, 5)
    again = complementary(losses[order], parts[order], held_out[order], 5)
    assert [choice.index for choice in once] == [choice.index for choice in again]


def test_a_part_that_is_only_held_out_gets_what_is_best_for_all():
    losses, parts, held_out = table_of(60, 0, [[-0.2, -0.2]], spread=0.05)
    held_out = held_out | (parts == 1)
    assert [choice.index for choice in complementary(losses, parts, held_out, 1)] == [0]


LOSSES, HELD_OUT = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(30) < 15


@pytest.mark.parametrize(
    "arguments",
    [
        (LOSSES[:, :1], None, HELD_OUT, 1),
        (LOSSES[0], None, HELD_OUT, 1),
        (LOSSES[:0], None, HELD_OUT[:0], 1),
        (LOSSES * torch.nan, None, HELD_OUT, 1),
        (LOSSES, torch.zeros(29, dtype=torch.long), HELD_OUT, 1),
        (LOSSES, torch.arange(30) - 1, HELD_OUT, 1),
        (LOSSES, None, HELD_OUT[:29], 1),
        (LOSSES, None, HELD_OUT.long(), 1),
        (LOSSES, None, torch.ones(30, dtype=torch.bool), 1),
        (LOSSES, None, torch.zeros(30, dtype=torch.bool), 1),
        (LOSSES, None, HELD_OUT, 0),
        (LOSSES, None, HELD_OUT, 1, [2]),
        (LOSSES, None, HELD_OUT, 1, [-1]),
    ],
)
def test_what_is_no_table_is_refused(arguments):
    with pytest.raises(TaskError):
        complementary(*arguments)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(level):
    with pytest.raises(TaskError, match="rate of false discoveries"):
        helpful(LOSSES, level=level)


@pytest.fixture
def pool(tiny_lm):
    prompts = [Prompt(name, text=f"{name}: ", provenance={"kind": "domain"}) for name in ("river", "town", "none")]
    return PrefixStore(tiny_lm(), PromptBank(prompts, provenance={"source": "here"}))


@pytest.fixture
def two_kinds():
    """Two topics, told apart by their words, each question asked twice."""
    once = [Example((1, *([20] * 4 if i % 2 else [200] * 4), 3 + i), ((5,), (6,)), 0, "t") for i in range(120)]
    return [*once, *once]


def by_topic(store, examples, batch_size=None, advance=None):
    """The first prompt is for one topic, the second for the other, the third for nobody."""
    noise = torch.rand(len(examples), 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    losses = torch.tensor([[0.2, 0.8, 0.9, 0.5] if e.context[1] == 20 else [0.8, 0.2, 0.9, 0.5] for e in examples])
    return losses.double() + 0.1 * noise


def test_a_bank_is_made_of_prompts_that_complement_each_other(pool, two_kinds, monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "example_losses", by_topic)
    bank = choose_texts(pool, two_kinds, count=3)
    assert set(bank.names) == {"river", "town"}
    assert {prompt.text for prompt in bank} == {"river: ", "town: "}
    for prompt in bank:
        assert prompt.provenance["drop"] == pytest.approx(0.15, abs=0.05)
        assert prompt.provenance["kind"] == "domain"
    assert bank.fingerprint is None
    assert bank.provenance["inputs"] == 120
    assert bank.provenance["chosen_for"] == pool.lm.fingerprint.to_dict()
    assert PromptBank.load(bank.save(tmp_path)).names == bank.names


def test_the_seed_decides(pool, two_kinds, monkeypatch):
    monkeypatch.setattr(texts, "example_losses", by_topic)
    one, two, other = (choose_texts(pool, two_kinds, seed=seed) for seed in (0, 0, 1))
    assert list(one) == list(two)
    assert list(one) != list(other)  # other halves, other drops


def test_losses_that_are_known_are_not_measured_again(pool, two_kinds, monkeypatch):
    losses = by_topic(pool, two_kinds)
    monkeypatch.setattr(texts, "example_losses", by_topic)
    measured = choose_texts(pool, two_kinds)
    monkeypatch.setattr(texts, "example_losses", lambda *_: pytest.fail("measured again"))
    assert list(choose_texts(pool, two_kinds, losses=losses)) == list(measured)
    with pytest.raises(TaskError, match=r"not \(240, 4\)"):
        choose_texts(pool, two_kinds, losses=losses[:, 1:])


def test_equal_contexts_are_one_input_and_texts_are_not(pool, monkeypatch):
    monkeypatch.setattr(texts, "example_losses", lambda store, examples, *rest: torch.zeros(len(examples), 4))
    same = [Example((1, 9), ((5,), (6,)), 0, "a")] * 50
    with pytest.raises(TaskError, match="1 different inputs are too few"):
        choose_texts(pool, same)
    running = [Example((1,), ((5, 6 + i),), 0, "text") for i in range(30)]
    with pytest.raises(TaskError, match="none of the 3 prompts"):
        choose_texts(pool, running)


def test_a_pool_that_only_harms_is_an_error(pool, two_kinds, monkeypatch):
    harmful = torch.tensor([[0.6, 0.7, 0.8, 0.5]])
    monkeypatch.setattr(texts, "example_losses", lambda store, examples, *rest: harmful.repeat(len(examples), 1))
    with pytest.raises(TaskError, match="none of the 3 prompts.*do without a prompt"):
        choose_texts(pool, two_kinds)


def test_losses_are_measured_on_the_model(pool, some_examples, monkeypatch):
    """Whatever a random model's losses are, the table that is chosen by holds them."""
    seen, done, examples = [], [], some_examples(30)
    monkeypatch.setattr(texts, "helpful", lambda losses, parts, level: seen.append(losses) or [0, 1, 2])
    monkeypatch.setattr(
        texts, "complementary", lambda *arguments: [Chosen(2, 0.2, 0.1, 0.3), Chosen(0, 0.1, 0.05, 0.2)]
    )
    bank = choose_texts(pool, examples, advance=done.append)
    expected = example_losses(pool, examples)
    [half] = seen
    assert len(half) == 15
    assert all((row == expected).all(1).any() for row in half)
    assert sum(done) == 30 * 4
    assert bank.names == ("none", "river")
    assert bank["none"].provenance == {"kind": "domain", "drop": 0.2, "error": 0.1, "bound": 0.3}


def test_a_pool_is_needed(tiny_lm, some_examples):
    with pytest.raises(TaskError, match="no pool"):
        choose_texts(PrefixStore(tiny_lm(), None), some_examples(40))
