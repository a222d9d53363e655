from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.made import MadeStore
from idp.dynamic.mixing import HOW, Mixture, attempt_weights, is_mixture
from idp.errors import SelectorError
from idp.select.base import Selection, pick
from idp.select.registry import get_selector

SCORES = torch.tensor([[0.3, 0.1, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
INPUTS = [[5, 6], [7, 8, 9]]


@pytest.fixture
def store(lm, equal_bank):
    return MadeStore(lm, equal_bank)


def _mix(store, scores=SCORES, inputs=INPUTS, probabilities=True, **options):
    return Mixture(**options).blends(store, inputs, pick(scores), probabilities=probabilities)


def test_a_name_with_options_is_read_as_that_of_a_selector_is():
    assert Mixture.parse("mix:how=sum") == Mixture("sum", of="router")
    read = Mixture.parse("mix:how=ensemble,of=attention:calibrate=center,k=3,temperature=0.5,weights=scores")
    assert read == Mixture("ensemble", of="attention:calibrate=center", k=3, temperature=0.5)
    assert is_mixture("mix") and not is_mixture("mixer:how=sum")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("mix", "does not say how"),
        ("mix:how=summ", r"no how 'summ'.*Did you mean 'sum'"),
        ("mix:how=sum,temperatur=2", "no option 'temperatur'"),
        ("mix:how=sum,k=0", "k = 1 or more"),
        ("mix:how=sum,k=1.5", "k = 1 or more"),
        ("mix:how=sum,k=two", "k = 1 or more"),
        ("mix:how=sum,temperature=0", "positive number"),
        ("mix:how=sum,temperature=nan", "positive number"),
        ("mix:how=sum,temperature=warm", "positive number"),
        ("mix:how=sum,weights=equal", "no weights 'equal'"),
        ("mix:how=sum,weights=uniform,temperature=2", "equal weights have no temperature"),
        ("mix:how=concat,temperature=2", "have no weights"),
        ("mix:how=concat,weights=uniform", "have no weights"),
        ("mix:how=ensemble,weights=attempt", "those of a sum"),
        ("mix:how=sum,of=ruoter", "unknown selector 'ruoter'"),
        ("mix:how=sum,of=oracle", "not of 'oracle'"),
        ("mix:how=sum,of=mix:how=sum", "not of 'mix:how=sum'"),
        ("mix:how=sum,of=3", "not of 3"),
        ("mix:how=", "cannot read the option"),
    ],
)
def test_bad_names(spec, message):
    with pytest.raises(SelectorError, match=message):
        Mixture.parse(spec)


def test_banks_that_cannot_be_mixed_say_why(equal_bank, mixed_bank, lm):
    one = PromptBank(equal_bank.prompts[:1])
    for how in ("sum", "ensemble"):
        assert Mixture(how).unfit(one) is None
    assert Mixture("concat").unfit(one) == "it takes 2 prompts, and the bank has 1"
    assert Mixture("ensemble", k=2).unfit(one) is None  # "no prompt" is an arm of it
    assert "takes 3 prompts" in Mixture("ensemble", k=3).unfit(one)
    assert "takes 4 prompts" in Mixture("sum", k=4).unfit(equal_bank)
    words, *soft = mixed_bank(lm)
    assert "'text' is one" in Mixture("sum").unfit(PromptBank([*equal_bank, words]))
    assert "different lengths [1, 5, 11]" in Mixture("sum").unfit(PromptBank(soft))
    assert Mixture("concat").unfit(mixed_bank(lm)) is None


def test_a_sum_is_by_the_selectors_probabilities_of_the_prompts(store):
    first, second = _mix(store, how="sum")
    assert second.parts == ((-1, 1.0),) and second.label is None  # "no prompt" wins, so none is used
    [(made, weight)] = first.parts
    a, b, c = (prompt.embedding for prompt in store.bank)
    torch.testing.assert_close(store.embedding(made), (0.3 * a + 0.1 * b + 0.5 * c) / 0.9)
    assert (weight, first.label) == (1.0, "sum")


@pytest.mark.parametrize(
    "options, weights",
    [
        ({"k": 2}, (3 / 8, 0, 5 / 8)),
        ({"temperature": 0.5}, (9 / 35, 1 / 35, 25 / 35)),
        ({"weights": "uniform"}, (1 / 3, 1 / 3, 1 / 3)),
        ({"weights": "uniform", "k": 2}, (1 / 2, 0, 1 / 2)),
        ({"probabilities": False}, tuple(torch.tensor([0.3, 0.1, 0.5]).softmax(0).tolist())),
    ],
)
def test_weights(store, options, weights):
    [blend] = _mix(store, SCORES[:1], INPUTS[:1], **{"how": "sum", **options})
    expected = sum(w * prompt.embedding for w, prompt in zip(weights, store.bank, strict=True))
    torch.testing.assert_close(store.embedding(blend.parts[0].prompt), expected)


@pytest.mark.parametrize("options", [{"k": 1}, {"temperature": 1e-4}])
def test_a_sum_of_which_one_prompt_has_all_the_weight_is_that_prompt(store, options):
    [blend] = _mix(store, SCORES[:1], INPUTS[:1], how="sum", **options)
    assert blend == (((2, 1.0),), "c")


def test_the_better_prompt_stands_nearer_to_the_input(store):
    first, second = _mix(store, how="concat")
    assert first.label == "a + c" and second.label is None
    assert _mix(store, SCORES[:1], INPUTS[:1], how="concat", k=3)[0].label == "b + a + c"
    tied = torch.tensor([[0.2, 0.2, 0.2, 0.1]], dtype=torch.float64)
    assert _mix(store, tied, INPUTS[:1], how="concat")[0].label == "b + a"  # ties go to the first


def test_in_an_ensemble_no_prompt_is_an_arm_like_the_others(store):
    _, second = _mix(store, how="ensemble", k=2)
    assert [part.prompt for part in second.parts] == [-1, 2]
    assert [part.weight for part in second.parts] == pytest.approx([4 / 7, 3 / 7])
    first, _ = _mix(store, how="ensemble")
    assert [part.prompt for part in first.parts] == [2, 0, 1, -1] and first.label == "ensemble"
    alone, none = _mix(store, how="ensemble", k=1)
    assert alone == (((2, 1.0),), "c") and none == (((-1, 1.0),), None)


def test_what_is_never_chosen_takes_no_part(store):
    scores = torch.tensor([[0.5, -torch.inf, 0.1, -torch.inf]], dtype=torch.float64)
    for how, label in (("concat", "c + a"), ("ensemble", "ensemble"), ("sum", "sum")):
        [blend] = _mix(store, scores, INPUTS[:1], probabilities=False, how=how)
        assert blend.label == label and all(math.isfinite(part.weight) for part in blend.parts)
    lone = torch.tensor([[-torch.inf, 0.5, -torch.inf, -torch.inf]], dtype=torch.float64)
    for how in HOW:
        assert _mix(store, lone, INPUTS[:1], probabilities=False, how=how)[0] == (((1, 1.0),), "b")


def test_scores_that_are_no_numbers_are_an_error(store):
    broken = Selection(0, 1.0, (1.0, math.nan, 0.0, 0.0))
    for how in HOW:
        with pytest.raises(SelectorError, match="score is NaN"):
            Mixture(how).blends(store, [[5]], [broken])
    silent = Selection(0, -math.inf, (-math.inf,) * 4)
    for how in HOW:
        with pytest.raises(SelectorError, match="nothing to mix"):
            Mixture(how).blends(store, [[5]], [silent])


def test_no_inputs_no_blends(store):
    assert Mixture("sum").blends(store, [], []) == []


@pytest.mark.parametrize("how", [*HOW])
@settings(max_examples=20, deadline=None)  # each makes several mixtures
@given(scores=st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_an_input_is_mixed_for_as_if_it_were_alone(lm, equal_bank, how, scores):
    store, table = MadeStore(lm, equal_bank), torch.tensor(scores, dtype=torch.float64)
    inputs = [[5 + row] for row in range(len(table))]
    mixture, chosen = Mixture(how), pick(table)
    together = mixture.blends(store, inputs, chosen)
    assert together == [mixture.blends(store, [ids], [each])[0] for ids, each in zip(inputs, chosen, strict=True)]
    for blend in together:
        assert sum(part.weight for part in blend.parts) == pytest.approx(1)


def test_attention_without_training_worked_out_by_hand():
    inputs = [torch.tensor([[1.0, -2.0], [0.0, 4.0]]), torch.zeros(0, 2)]  # x^ = (1, 4), and nothing
    prompts = [torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[-1.0, 3.0]])]  # (2, 1) and (-1, 3)
    expected = torch.tensor([[6.0, 11.0], [0.0, 0.0]], dtype=torch.float64) / (2 * math.e)
    torch.testing.assert_close(attempt_weights(inputs, prompts), expected)


def test_attempt_weighs_the_prompts_and_the_selector_says_which(lm, store):
    embedded = [lm.embed(torch.tensor([ids]))[0] for ids in INPUTS]
    logits = attempt_weights(embedded, [prompt.embedding for prompt in store.bank])[0, [0, 2]]
    weights = (logits / 0.1).softmax(0).float()
    assert abs(weights[0] - weights[1]) > 0.01
    first, second = _mix(store, how="sum", weights="attempt", temperature=0.1, k=2)
    a, _, c = (prompt.embedding for prompt in store.bank)
    torch.testing.assert_close(store.embedding(first.parts[0].prompt), weights[0] * a + weights[1] * c)
    assert second.label is None


def test_sums_of_equal_prompts_are_that_prompt(lm):
    same = 0.3 * torch.randn(4, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    store = MadeStore(lm, PromptBank([Prompt(name, embedding=same) for name in "abc"]))
    [blend] = _mix(store, SCORES[:1], INPUTS[:1], how="sum")
    torch.testing.assert_close(store.embedding(blend.parts[0].prompt), same, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["router", "smop"])
def test_selectors_whose_scores_are_probabilities_say_so(name):
    assert get_selector(name).probabilities
    assert not get_selector("keys").probabilities


def test_what_a_mixture_costs():
    assert Mixture("sum").longest([3, 3]) == 3
    assert Mixture("concat").longest([2, 7, 5]) == 12
    assert Mixture("concat", k=3).longest([2, 7, 5, 1]) == 14
    assert Mixture("ensemble").longest([2, 7]) == 7
    assert [Mixture(how).passes(16) for how in HOW] == [0, 0, 16]
    assert Mixture("ensemble", k=4).passes(16) == 3
