from __future__ import annotations

import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.bank import Prompt, PromptBank, SelectorState
from idp.errors import ModelError, SelectorError
from idp.select import Calibration, CascadeSelector, Selection, Selector, cascade, get_selector
from idp.select.base import pick
from idp.select.cascade import _between, _countable, _margins

BANK = PromptBank([Prompt("a", text="one"), Prompt("b", text="two")])
COUNT = 100


class Half(Selector):
    """Right about inputs from 50 on, with a margin that grows with the input."""

    name = "half"
    forwards = 0.5

    def select_batch(self, inputs):
        return pick(torch.tensor([[float(ids[0]), 0.0, 0.0] for ids in inputs]).reshape(-1, 3))


class Sage(Selector):
    """Always right, and remembers what it was asked."""

    name = "sage"
    forwards = 10.0
    answers = True

    def __init__(self):
        self.asked = []

    def select_among(self, inputs, options):
        self.asked += [(ids[0], given) for ids, given in zip(inputs, options, strict=True)]
        return pick(torch.tensor([[0.0, 7.0, 0.0] if ids[0] < 50 else [7.0, 0.0, 0.0] for ids in inputs]))

    def select_batch(self, inputs):
        return self.select_among(inputs, [()] * len(inputs))


class Fool(Sage):
    """Never right."""

    name = "fool"

    def select_among(self, inputs, options):
        return [Selection(-1, 1.0, (0.0, 0.0, 1.0))] * len(inputs)


@pytest.fixture
def made(monkeypatch, tiny_lm):
    """A factory of fitted cascades of the selectors above."""
    kinds = {"half": Half, "sage": Sage, "fool": Fool}
    monkeypatch.setattr(cascade, "get_selector", lambda spec, seed: kinds[spec]())

    def make(calibration, then="sage", **options):
        return CascadeSelector(first="half", then=then, **options).fit(BANK, tiny_lm(), calibration)

    return make


@pytest.fixture
def calibration():
    losses = torch.ones(COUNT, 3)
    losses[:50, 1] = losses[50:, 0] = 0.0
    return Calibration([[n] for n in range(COUNT)], losses)


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 1])
def test_as_many_are_passed_on_as_was_asked_for(made, calibration, share):
    selector = made(Calibration(calibration.inputs), share=share)
    selector._stages[1].asked.clear()
    chosen = selector.select_batch(calibration.inputs)
    assert len(selector._stages[1].asked) == share * COUNT
    assert [choice.score == 7.0 for choice in chosen] == [n < share * COUNT or n == 7 for n in range(COUNT)]
    assert selector.forwards == 0.5 + share * 10


def test_where_losses_are_known_no_more_are_passed_on_than_helps(made, calibration):
    selector = made(calibration, share=0.9)
    assert selector.forwards == 0.5 + 0.5 * 10  # from 50 on both are right
    assert selector.cost.labels and not made(Calibration(calibration.inputs)).cost.labels
    assert [choice.index for choice in selector.select_batch([[3], [48], [51], [99]])] == [1, 1, 0, 0]


def test_a_selector_that_is_never_right_is_never_asked(made, calibration, caplog):
    with caplog.at_level(logging.WARNING, "idp"):
        selector = made(calibration, then="fool")
    assert "never asks fool" in caplog.text
    assert selector.forwards == 0.5
    assert [choice.index for choice in selector.select_batch(calibration.inputs)] == [0] * COUNT


def test_options_reach_whoever_is_asked(made, calibration):
    selector = made(calibration)
    assert selector.answers
    selector._stages[1].asked.clear()
    selector.select_among([[1], [80], [2]], [[(5,), (6,)], [(7,)], ()])
    assert selector._stages[1].asked == [(1, [(5,), (6,)]), (2, ())]
    assert selector.select_batch([]) == []


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0, math.inf]), min_size=1, max_size=12), st.floats(0, 1))
def test_a_threshold_passes_on_what_was_counted(values, share):
    margins = torch.tensor(sorted(values), dtype=torch.float64)
    most = round(share * len(values))
    counts = _countable(margins, most)
    assert counts[0] == 0 and max(counts) <= most
    for count in counts:
        assert int((margins <= _between(margins, count)).sum()) == count


def test_equal_scores_are_unsure_though_they_be_infinite():
    rows = [(-math.inf, -math.inf, -math.inf), (0.5, 0.5, 0.1), (-math.inf, 1.0, -math.inf), (0.2, 0.5, 0.9)]
    margins = _margins([Selection(0, row[0], row) for row in rows])
    torch.testing.assert_close(margins, torch.tensor([0.0, 0.0, math.inf, 0.4], dtype=torch.float64))


def _measured(count, seed):
    random = torch.Generator().manual_seed(seed)
    inputs = [(100 + torch.randint(30, (6,), generator=random)).tolist() for _ in range(count)]
    return Calibration(inputs, torch.rand(count, 3, generator=random))


@pytest.mark.parametrize(
    "spec",
    [
        "cascade:first=[router:l2=1.0]",
        "cascade:first=[keys:keys=learned],then=[likelihood:score=mi-l],share=0.5",
        "cascade:first=attention,then=[cascade:first=keys,then=[router:features=state,l2=1.0]]",
    ],
)
def test_state_can_be_kept(tiny_lm, spec, tmp_path):
    calibration = _measured(40, seed=1)
    fitted = get_selector(spec).fit(BANK, tiny_lm(), calibration)
    folder = BANK.with_selector(spec, fitted.state(), tiny_lm().fingerprint).save(tmp_path / "bank")
    bank = PromptBank.load(folder)
    again = get_selector("cascade").load_state(bank.selectors[spec], bank, tiny_lm())
    inputs = _measured(30, seed=2).inputs
    assert again.select_batch(inputs) == fitted.select_batch(inputs)
    assert again.cost == fitted.cost
    assert get_selector(spec).fit(BANK, tiny_lm(), calibration).state().config == fitted.state().config


def test_what_the_bank_knows_is_not_learned_again(tiny_lm):
    lm = tiny_lm()
    static = get_selector("keys").fit(BANK, lm, Calibration([[5], [6]], torch.tensor([[0.0, 1, 1], [1, 0.0, 1]])))
    bank = BANK.with_selector("keys", static.state())
    selector = get_selector("cascade:first=keys,then=random")
    assert selector.needs == "losses" and selector.needs_for(BANK) == "losses"
    assert selector.needs_for(bank) == "inputs"
    selector.fit(bank, lm, Calibration([[5], [6], [7], [8]]))
    assert selector._stages[0].select_batch([[5], [9]]) == static.select_batch([[5], [9]])
    with pytest.raises(SelectorError, match="has to be fitted on calibration inputs"):
        get_selector("cascade:first=attention,then=random").fit(BANK, lm)


def test_the_threshold_is_found_on_inputs_that_nothing_was_fitted_on(tiny_lm, monkeypatch):
    seen = []
    found = CascadeSelector._found
    monkeypatch.setattr(
        CascadeSelector, "_found", lambda self, stages, part: seen.append((stages, part)) or found(self, stages, part)
    )
    calibration = _measured(50, seed=3)
    selector = CascadeSelector(first="keys", then="random").fit(BANK, tiny_lm(), calibration)
    ((stages, part),) = seen
    assert stages[0] is not selector._stages[0]
    assert len(part.inputs) == 10
    inside = calibration.rows([row for row, ids in enumerate(calibration.inputs) if ids not in part.inputs])
    expected = get_selector("keys").fit(BANK, tiny_lm(), inside).select_batch(part.inputs)
    assert stages[0].select_batch(part.inputs) == expected
    CascadeSelector(first="attention", then="random").fit(BANK, tiny_lm(), calibration)
    assert len(seen[-1][1].inputs) == 50
    CascadeSelector(first="keys", then="random").fit(BANK, tiny_lm(), calibration.rows([0]))  # too few to cut


def test_bad_options_and_states(tiny_lm):
    for spec, message in [
        ("cascade:first=ruoter", "unknown selector 'ruoter'"),
        ("cascade:then=[likelihood:score=pmi]", "has no score 'pmi'"),
        ("cascade:share=1.5", "a part of the inputs, 0 to 1"),
        ("cascade:share=nan", "a part of the inputs, 0 to 1"),
        ("cascade:first=[router", "never closes"),
    ]:
        with pytest.raises(SelectorError, match=message):
            get_selector(spec)
    with pytest.raises(SelectorError, match="was not fitted"):
        get_selector("cascade").select([5])
    with pytest.raises(ModelError, match="org/never-cached"):
        get_selector("cascade:first=[embedding:model=org/never-cached]").require(tiny_lm())
    state = get_selector("cascade:first=keys,then=keys").fit(BANK, tiny_lm(), _measured(20, seed=4)).state()
    for config, tensors in [
        ({**state.config, "specs": ["keys"]}, state.tensors),
        (state.config, {key: each for key, each in state.tensors.items() if key != "threshold"}),
        ({**state.config, "then": {**state.config["then"], "version": 7}}, state.tensors),
        (state.config, {key: each for key, each in state.tensors.items() if not key.startswith("then.")}),
    ]:
        with pytest.raises(SelectorError, match=r"not a state of selector|version 7"):
            get_selector("cascade").load_state(SelectorState(config, tensors), BANK, tiny_lm())
