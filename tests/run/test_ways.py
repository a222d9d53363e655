from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.dynamic.model import DynamicPromptModel
from idp.model.load import load
from idp.model.loaded import LanguageModel
from idp.run import passes, ways
from idp.run.inputs import pad_left
from idp.run.packing import Request, lay_out
from idp.run.passes import Job, run_expanded, run_packed, run_plain
from idp.run.readout import readout
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.run.ways import way_of
from idp.select.registry import get_selector

_TOKENS = st.integers(3, 383)
_REQUESTS = st.builds(
    Request,
    st.lists(_TOKENS, min_size=1, max_size=12).map(tuple),
    st.lists(st.lists(_TOKENS, min_size=1, max_size=6).map(tuple), min_size=1, max_size=4).map(tuple),
)


@pytest.mark.parametrize(
    ("architecture", "way"),
    [("llama", "packed"), ("opt", "packed"), ("gemma2", "packed"), ("bloom", "expanded")],
)
def test_the_cheapest_exact_way_is_found(tiny_lm, architecture, way):
    assert way_of(tiny_lm(architecture)) == way


def test_an_attention_that_takes_no_mask_is_not_given_one(tiny_lm):
    lm = tiny_lm("llama", hidden_size=48)
    lm.model.config._attn_implementation = "flash_attention_2"
    try:
        assert ways.takes_4d_masks(lm) is False
    finally:
        lm.model.config._attn_implementation = "sdpa"


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom"])
@settings(max_examples=10, deadline=None)
@given(batch=st.lists(st.tuples(_REQUESTS, st.integers(-1, 3)), min_size=1, max_size=4))
def test_all_ways_give_the_same_states_in_the_same_order(tiny_lm, mixed_bank, architecture, batch):
    lm = tiny_lm(architecture)
    store = PrefixStore(lm, mixed_bank(lm))
    jobs = [Job(number, 0, request, choice) for number, (request, choice) in enumerate(batch)]
    layout = lay_out([request for request, _ in batch], 0)
    expected = torch.cat([_alone(store, job) for job in jobs])  # (P, d)
    for run in (run_expanded, run_packed)[: 1 if architecture == "bloom" else 2]:
        with torch.no_grad():
            torch.testing.assert_close(run(store, jobs, layout), expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def _alone(store, job):
    """The end of the context once, then the tokens of each option: from plain rows of one option each."""
    parts = []
    for option in job.request.continuations:
        request = Request(job.request.context, (option,))
        states = run_plain(store, [Job(0, 0, request, job.choice)], lay_out([request], 0))
        parts.append(states if not parts else states[1:])
    return torch.cat(parts)


def test_a_mask_that_is_not_obeyed_is_noticed(tiny_lm, mixed_bank, monkeypatch, caplog):
    lm = tiny_lm("llama", hidden_size=64)
    store = PrefixStore(lm, mixed_bank(lm))

    def sees_everything(segments, prefix_mask, dtype):
        batch, width = segments.shape
        return torch.zeros(batch, 1, width, prefix_mask.shape[1] + width, dtype=dtype)

    monkeypatch.setattr(passes, "causal_option_mask", sees_everything)
    with caplog.at_level(logging.INFO, logger="idp.run.ways"):
        assert way_of(lm) == "expanded"
    assert "scored the 'expanded' way" in caplog.text
    request = Request((5, 6), ((7, 8), (9, 10)))
    [together] = score(store, [request], [1])
    apart = [score(store, [Request((5, 6), (option,))], [1])[0].scores[0] for option in request.continuations]
    for one, other in zip(together.scores, apart, strict=True):
        assert one.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-5)


def test_a_model_that_neither_obeys_nor_caches_is_run_row_by_row(tiny_lm, mixed_bank, monkeypatch):
    lm = tiny_lm("llama", hidden_size=80)

    def refuses(*_):
        raise ValueError("no such mask")

    monkeypatch.setitem(ways.PASSES, "packed", refuses)
    monkeypatch.setitem(ways.PASSES, "expanded", refuses)
    assert way_of(lm) == "plain"
    [got] = score(PrefixStore(lm, mixed_bank(lm)), [Request((5, 6), ((7, 8), (9,)))], [2])
    assert len(got.scores) == 2


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "bloom", "qwen3"])
def test_body_and_head_give_the_bits_of_the_model(tiny_lm, architecture):
    lm = tiny_lm(architecture)
    read = readout(lm)
    assert read.body is not None
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        states = read.states(3, input_ids=ids, use_cache=False)[0]
        [(part, logits)] = read.logits(states)
        expected = lm.model(input_ids=ids).logits[0, 2:]
    assert (part.start, len(logits)) == (0, 3)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "overrides"), [("gemma2", {}), ("cohere", {"logit_scale": 0.25}), ("granite", {})]
)
def test_a_model_that_does_more_than_its_head_is_not_cut_in_two(tiny_lm, architecture, overrides):
    """They cap or scale their logits behind the head."""
    lm = tiny_lm(architecture, **overrides)
    read = readout(lm)
    assert read.body is None
    with torch.no_grad():
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(read.states(2, input_ids=ids), lm.model(input_ids=ids).logits[:, -2:])


def test_what_was_found_is_kept_with_the_model(tiny_lm, monkeypatch):
    lm = tiny_lm()
    assert way_of(lm) == "packed"
    monkeypatch.setattr(ways, "_trial", lambda *_, **__: pytest.fail("tried again"))
    assert way_of(lm) == "packed"
    assert readout(lm) is readout(lm)


def test_a_change_of_the_model_is_tried_anew(tiny_lm, monkeypatch):
    lm = tiny_lm("llama", hidden_size=96)
    assert way_of(lm) == "packed"
    tried = []
    trial = ways._trial
    monkeypatch.setattr(ways, "_trial", lambda lm, prompts: tried.append(prompts) or trial(lm, prompts=prompts))
    monkeypatch.setattr(lm.model.config, "_attn_implementation", "eager")
    assert way_of(lm) == "packed"
    assert tried == [True]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trained_model_that_does_not_obey_the_mask_is_noticed(monkeypatch, dtype):
    """Its rarest tokens say nothing about what it reads, and in 16 bits rounding is large: both hid a wrong mask."""

    def sees_options(segments, prefix_mask, dtype):
        return mask(segments.clamp(max=0), prefix_mask, dtype)

    mask = passes.causal_option_mask
    assert way_of(load("reference", device="cpu", dtype=dtype)) == "packed"
    monkeypatch.setattr(passes, "causal_option_mask", sees_options)
    assert way_of(load("reference", device="cpu", dtype=dtype)) == "expanded"


def test_a_lack_of_memory_says_nothing_about_the_model(tiny_lm, monkeypatch):
    lm = tiny_lm("llama", hidden_size=112)

    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with monkeypatch.context() as patch:
        patch.setitem(ways.PASSES, "packed", too_large)
        with pytest.raises(torch.OutOfMemoryError):
            way_of(lm)
    assert way_of(lm) == "packed"


@pytest.mark.parametrize(("architecture", "overrides"), [("mpt", {}), ("gpt_neo", {"window_size": 8})])
def test_positions_and_windows_counted_in_columns(tiny_lm, mixed_bank, plain_logits, architecture, overrides):
    """Neither bears padding between prompt and input, and one looks back over columns whatever the mask says."""
    lm = tiny_lm(architecture, **overrides)
    bank = mixed_bank(lm)
    requests = [Request((5, 6, 7, 8)[:n], ((9, 10, 11, 12), (13, 14, 15), (16,), (17, 18, 19, 20))) for n in (4, 1, 3)]
    choices = [2, -1, 3]
    for request, choice, got in zip(requests, choices, score(PrefixStore(lm, bank), requests, choices), strict=True):
        for option, one in zip(request.continuations, got.scores, strict=True):
            prompt = None if choice == -1 else bank[choice]
            logits = plain_logits(lm, prompt, [*request.context, *option])[len(request.context) - 1 : -1]
            expected = logits.log_softmax(-1)[torch.arange(len(option)), torch.tensor(option)].sum()
            assert one.loglikelihood == pytest.approx(float(expected), abs=5e-5)


def test_generation_where_positions_are_counted_in_columns(tiny_lm, mixed_bank):
    lm = tiny_lm("mpt")
    prompted = DynamicPromptModel(lm, mixed_bank(lm), get_selector("none"))
    rows, choices = [[5, 6, 7, 8, 9, 10], [11, 12], [13]], [3, 1, -1]
    ids, mask = pad_left(rows, 0)
    wanted = {"max_new_tokens": 1, "use_cache": True, "return_dict_in_generate": True, "output_logits": True}
    together = prompted.generate_with(choices, ids, attention_mask=mask, **wanted)
    for number, (row, choice) in enumerate(zip(rows, choices, strict=True)):
        alone = prompted.generate_with([choice], torch.tensor([row]), **wanted)
        torch.testing.assert_close(together.logits[0][number], alone.logits[0][0], atol=1e-5, rtol=0)


def test_a_compiled_model_is_the_model_inside(tiny_lm):
    lm = tiny_lm()
    wrapped = LanguageModel(torch.compile(lm.model), lm.tokenizer, "compiled")
    assert wrapped.model is lm.model
    assert way_of(wrapped) == "packed"


def test_rows_of_a_model_that_no_padding_may_enter_are_run_alone(tiny_lm, monkeypatch):
    lm = tiny_lm("llama", hidden_size=128)
    monkeypatch.setattr(ways, "_find_way", lambda lm: "plain")
    monkeypatch.setattr(ways, "_survived", lambda compare: False)
    sizes = []
    run = ways.PASSES["plain"]
    monkeypatch.setitem(
        ways.PASSES, "plain", lambda store, jobs, layout: sizes.append(len(jobs)) or run(store, jobs, layout)
    )
    score(PrefixStore(lm, None), [Request((5,) * n, ((7,),)) for n in (3, 1, 2)], [-1] * 3)
    assert sizes == [1, 1, 1]
