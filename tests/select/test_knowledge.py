from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import SelectorError
from idp.select.knowledge import STATE_TOKENS, Knowledge, end_of
from idp.select.registry import get_selector


@given(st.lists(st.integers(2, 99), max_size=3 * STATE_TOKENS), st.booleans())
def test_long_inputs_are_cut_to_their_end_and_begin_as_texts_do(words, begins):
    ids = [1, *words] if begins else words
    end = [*end_of(ids, 1)]
    assert len(end) == min(len(ids), STATE_TOKENS)
    assert end[:1] == ids[:1] or not begins
    kept = len(end) - begins
    assert kept == 0 or end[-kept:] == ids[-kept:]


def test_a_state_costs_a_long_input_no_more_than_its_end(tiny_lm):
    lm = tiny_lm(max_position_embeddings=512)
    long = [1, *torch.randint(3, 384, (300,), generator=torch.Generator().manual_seed(0)).tolist()]
    known = Knowledge("state", lm)
    torch.testing.assert_close(known.of([long]), known.of([end_of(long, lm.bos_token_id)]))
    assert not torch.allclose(known.of([long]), known.of([long[:-1]]))


@pytest.mark.parametrize(
    "spec", ["router:features=state9", "attention:layer=9", "cascade:first=[router:features=state9]"]
)
def test_a_selector_says_beforehand_that_it_cannot_look_into_a_model(tiny_lm, spec):
    with pytest.raises(SelectorError, match="layers"):
        get_selector(spec).require(tiny_lm())


@pytest.mark.parametrize(
    "spec", ["router", "router:features=state", "attention", "attention:layer=1", "static", "cascade"]
)
@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_one_that_can_says_nothing(tiny_lm, architecture, spec):
    get_selector(spec).require(tiny_lm(architecture))


def test_a_model_whose_first_layers_cannot_be_run_is_found_out_with_one_token(tiny_lm, monkeypatch):
    """As Llama 4's, whose decoder is the whole model."""

    def broken(*_):
        raise AttributeError("no 'last_hidden_state'")

    monkeypatch.setattr("idp.select.knowledge.shallow_states", broken)
    with pytest.raises(SelectorError, match=r"cannot be run by themselves.*last_hidden_state.*Use selector 'router'"):
        get_selector("router:features=state").require(tiny_lm())
    get_selector("router").require(tiny_lm())
