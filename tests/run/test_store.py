from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.dynamic.model import DynamicPromptModel
from idp.errors import SelectorError, TaskError
from idp.run import store as store_module
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.select.registry import get_selector


@pytest.fixture
def compiled(monkeypatch):
    """Names of the prompts that were compiled, one entry each time."""
    names = []
    compile_prefix = store_module.compile_prefix

    def recorded(lm, prompt):
        names.append(prompt.name)
        return compile_prefix(lm, prompt)

    monkeypatch.setattr(store_module, "compile_prefix", recorded)
    return names


def test_store_compiles_once_and_knows_no_prompt(tiny_lm, mixed_bank):
    store = PrefixStore(tiny_lm(), mixed_bank(tiny_lm()))
    assert store[2] is store[2]
    assert store[-1] is None
    assert store.embedding(-1) is None
    assert [store.length(i) for i in (-1, 1, 2, 3)] == [0, 1, 5, 11]
    assert store.name(-1) == "no prompt"
    assert store.name(3) == "prompt 'soft-11'"


def test_the_length_of_a_soft_prompt_is_known_without_reading_it(tiny_lm, mixed_bank, monkeypatch):
    lm = tiny_lm()
    monkeypatch.setattr(type(lm), "embed_prompt", lambda *_: pytest.fail("a prompt was read"))
    assert PrefixStore(lm, mixed_bank(lm)).length(3) == 11


@pytest.mark.parametrize("index", [4, -2])
def test_store_refuses_an_index_outside_the_bank(tiny_lm, mixed_bank, index):
    with pytest.raises(SelectorError, match=f"no prompt {index}: the bank has 4"):
        PrefixStore(tiny_lm(), mixed_bank(tiny_lm()))[index]


def test_store_without_a_bank_has_only_no_prompt(tiny_lm):
    store = PrefixStore(tiny_lm(), None)
    assert len(store) == 0
    assert store[-1] is None
    with pytest.raises(SelectorError, match="the bank has 0"):
        store[0]


def _bytes(prefix):
    return sum(tensor.nbytes for layer in prefix.layers for tensor in layer)


def test_a_budget_drops_what_was_not_used_for_longest(tiny_lm, mixed_bank, compiled):
    lm = tiny_lm()
    unlimited = PrefixStore(lm, mixed_bank(lm))
    sizes = {index: _bytes(unlimited[index]) for index in range(4)}
    assert unlimited.nbytes == sum(sizes.values())
    assert unlimited[3].nbytes == sizes[3]
    store = PrefixStore(lm, mixed_bank(lm), budget=sizes[0] + sizes[1] + sizes[2])
    compiled.clear()
    for index in (0, 1, 2, 0):
        assert store[index] is not None
    assert compiled == ["text", "soft-1", "soft-5"]
    assert store[3] is not None  # the longest takes the place of 1 and 2, of which 1 is older
    assert store.nbytes <= sizes[0] + sizes[1] + sizes[2]
    compiled.clear()
    assert store[3] is not None and store[1] is not None
    assert compiled == ["soft-1"]


@given(asked=st.lists(st.integers(-1, 3), max_size=30), share=st.floats(0, 1.2))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_within_every_budget_the_prefixes_are_the_same(tiny_lm, mixed_bank, asked, share):
    lm = tiny_lm()
    whole = PrefixStore(lm, mixed_bank(lm))
    total = sum(_bytes(whole[index]) for index in range(4))
    store = PrefixStore(lm, mixed_bank(lm), budget=int(share * total))
    for index in asked:
        got = store[index]
        assert store.nbytes <= share * total
        if index == -1:
            assert got is None
            continue
        for one, other in zip(got.layers, whole[index].layers, strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_budget_of_nothing_compiles_on_demand_and_generates_the_same(tiny_lm, mixed_bank, compiled):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10], [5, 6, 7]])
    outputs = []
    for budget in (2**31, 0):
        prompted = DynamicPromptModel(lm, bank, get_selector("none"), store=PrefixStore(lm, bank, budget=budget))
        compiled.clear()
        outputs.append([prompted.generate_with([3, 2, 3], ids, max_new_tokens=4, do_sample=False) for _ in range(2)])
        assert sorted(compiled) == sorted(["soft-11", "soft-5"] * (1 if budget else 2))
        assert prompted.store.nbytes > 0 or not budget
    assert torch.equal(outputs[0][0], outputs[1][0]) and torch.equal(outputs[1][0], outputs[1][1])
    requests = [Request((5, 6), ((7,), (8, 9)))] * 2
    for scored in zip(*(score(PrefixStore(lm, bank, budget=b), requests, [3, 2]) for b in (0, 2**31)), strict=True):
        assert scored[0].scores == scored[1].scores


def test_a_negative_budget_is_refused(tiny_lm):
    with pytest.raises(TaskError, match="a budget of -1 bytes"):
        PrefixStore(tiny_lm(), None, budget=-1)
