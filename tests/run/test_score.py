from __future__ import annotations

import pytest
import torch

from idp.errors import ModelError, PromptTooLongError, SelectorError, TaskError
from idp.run import batching, passes, readout
from idp.run import score as score_module
from idp.run.packing import Request
from idp.run.score import Score, score, score_prompts
from idp.run.store import PrefixStore
from idp.run.ways import way_of

ARCHITECTURES = ["llama", "opt", "gpt2", "qwen2", "mistral"]


def _plain(lm, bank, plain_logits, request, choice):
    """The definition, one option at a time: no batch, no cache, no mask."""
    scores = []
    for option in request.continuations:
        prompt = None if choice == -1 else bank[choice]
        logits = plain_logits(lm, prompt, [*request.context, *option])[len(request.context) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(-1, torch.tensor(option, dtype=torch.long)[:, None])
        greedy = logits.argmax(-1).tolist() == list(option)
        scores.append((float(chosen.sum()), greedy) if option else (0.0, True))
    return scores


def _assert_equal(got, expected, atol=2e-5):
    assert len(got) == len(expected)
    for one, (loglikelihood, greedy) in zip(got, expected, strict=True):
        assert one.loglikelihood == pytest.approx(loglikelihood, abs=atol, rel=1e-5)
        assert one.is_greedy == greedy


@pytest.mark.parametrize(("architecture", "overrides"), [("bloom", {}), ("mistral", {"sliding_window": 6})])
def test_models_that_cannot_pack_report_requests_and_not_options(tiny_lm, mixed_bank, architecture, overrides):
    lm = tiny_lm(architecture, **overrides)
    finished = []
    requests = [Request((5,) * n, ((7, 8), (9,), (10, 11, 12))) for n in (7, 8, 9, 10)]
    scored = score(PrefixStore(lm, mixed_bank(lm)), requests, [0, -1, 2, 3], batch_size=3, advance=finished.append)
    assert [len(one.scores) for one in scored] == [3] * 4
    assert all(one.seconds > 0 for one in scored)
    assert sum(finished) == len(requests)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_common_architectures_pack(tiny_lm, architecture):
    assert way_of(tiny_lm(architecture)) == "packed"


def test_options_do_not_see_each_other(tiny_lm, mixed_bank):
    lm = tiny_lm()
    store = PrefixStore(lm, mixed_bank(lm))
    options = ((9, 8, 7), (4, 5, 6, 7), (30, 31))
    [all_of_them] = score(store, [Request((5, 6), options)], [2], batch_size=1)
    [backwards] = score(store, [Request((5, 6), options[::-1])], [2], batch_size=1)
    _assert_equal(all_of_them.scores, backwards.scores[::-1])


def test_greedy_continuation_is_recognised(tiny_lm, mixed_bank):
    lm = tiny_lm()
    context = (5, 6, 7)
    ids = lm.model.generate(torch.tensor([context]), max_new_tokens=4, do_sample=False, eos_token_id=None)
    best = tuple(ids[0, 3:].tolist())
    [got] = score(PrefixStore(lm, None), [Request(context, (best, (*best[:-1], best[-1] ^ 1)))], [-1], batch_size=1)
    assert [one.is_greedy for one in got.scores] == [True, False]


def test_order_progress_and_emptiness(tiny_lm, mixed_bank):
    store = PrefixStore(tiny_lm(), mixed_bank(tiny_lm()))
    requests = [Request((5,) * n, ((7, 8),)) for n in (3, 9, 1, 5, 2)] + [Request((5,), ()), Request((5,), ((),))]
    finished = []
    scored = score(store, requests, [0] * 7, batch_size=2, advance=finished.append)
    assert finished == [2, 2, 2, 1]
    assert scored[5].scores == ()
    assert scored[6].scores == (Score(0.0, True),)
    again = score(store, requests[::-1], [0] * 7, batch_size=7)[::-1]
    for one, other in zip(scored, again, strict=True):
        _assert_equal(one.scores, other.scores)
    assert score(store, [], [], batch_size=4) == []


def test_a_long_row_does_not_make_the_short_ones_long(tiny_lm, monkeypatch):
    """In a model that is large enough for padding to cost more than another batch."""
    sizes = []
    monkeypatch.setattr(batching, "cost_of_starting", lambda lm: 4)

    def recorded(requests, pad_token_id):
        sizes.append([request.packed_length for request in requests])
        return lay_out(requests, pad_token_id)

    store = PrefixStore(tiny_lm(), None)
    score(store, [Request((5,), ((7,),))], [-1], batch_size=1)  # finds out how the model can be run
    lay_out = score_module.lay_out
    monkeypatch.setattr(score_module, "lay_out", recorded)
    requests = [Request((5,) * n, ((7,),)) for n in (4, 60, 5, 6, 58, 7)]
    score(store, requests, [-1] * 6, batch_size=3)
    assert sizes == [[60, 58], [7, 6, 5], [4]]


def test_large_vocabularies_are_read_in_pieces(tiny_lm, mixed_bank, monkeypatch):
    store = PrefixStore(tiny_lm(), mixed_bank(tiny_lm()))
    requests = [Request((5, n), ((7, 8, 9), (10,))) for n in range(5, 10)]
    whole = score(store, requests, [1] * 5, batch_size=5)
    monkeypatch.setattr(readout, "MAX_LOGITS", 3 * 384)
    for one, other in zip(score(store, requests, [1] * 5, batch_size=5), whole, strict=True):
        _assert_equal(one.scores, other.scores, atol=1e-5)


def test_every_prompt_on_every_request(tiny_lm, mixed_bank):
    store = PrefixStore(tiny_lm(), mixed_bank(tiny_lm()))
    requests = [Request((5,) * n, ((7, 8), (9,))) for n in (3, 9, 1)]
    finished = []
    table = score_prompts(store, requests, batch_size=2, advance=finished.append)
    assert sum(finished) == 3 * 5
    for request, row in zip(requests, table, strict=True):
        assert len(row) == 5
        for arm, got in zip((0, 1, 2, 3, -1), row, strict=True):
            [alone] = score(store, [request], [arm], batch_size=1)
            _assert_equal(got.scores, alone.scores, atol=1e-5)
    assert score_prompts(store, [], batch_size=2) == []


@pytest.mark.parametrize("size", [None, 6])
def test_out_of_memory_makes_batches_smaller_and_loses_nothing(tiny_lm, mixed_bank, monkeypatch, caplog, size):
    lm = tiny_lm()
    store = PrefixStore(lm, mixed_bank(lm))
    requests = [Request((5,) * n, ((7, 8), (9,))) for n in (30, 29, 28, 27, 9, 8, 7, 6, 5)]
    choices = [0, 1, 2, 3, -1, 0, 1, 2, 3]
    expected = score(store, requests, choices, batch_size=1)
    ran = []

    def small_memory(store, jobs, layout):
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        ran.extend(job.number for job in jobs)
        return passes.run_packed(store, jobs, layout)

    monkeypatch.setitem(score_module.PASSES, "packed", small_memory)
    finished = []
    scored = score(store, requests, choices, batch_size=size, advance=finished.append)
    assert sorted(ran) == list(range(9))  # each once
    assert sum(finished) == 9
    assert "out of memory with" in caplog.text
    for one, other in zip(scored, expected, strict=True):
        _assert_equal(one.scores, other.scores, atol=1e-5)


def test_empty_context_is_refused(tiny_lm):
    with pytest.raises(TaskError, match="request 1 has an empty context; begin it with the bos"):
        score(PrefixStore(tiny_lm(), None), [Request((1,), ()), Request((), ((3,),))], [-1, -1], batch_size=1)


@pytest.mark.parametrize(("choices", "batch_size"), [([-1, -1], 1), ([], 1), ([-1], 0)])
def test_unusable_calls_are_refused(tiny_lm, choices, batch_size):
    with pytest.raises(TaskError):
        score(PrefixStore(tiny_lm(), None), [Request((1,), ((3,),))], choices, batch_size=batch_size)


def test_unknown_prompt_is_refused(tiny_lm, mixed_bank):
    with pytest.raises(SelectorError, match="no prompt 4"):
        score(PrefixStore(tiny_lm(), mixed_bank(tiny_lm())), [Request((1,), ((3,),))], [4], batch_size=1)


def test_too_long_a_row_is_named_and_one_that_just_fits_is_not(tiny_lm, mixed_bank):
    store = PrefixStore(tiny_lm(), mixed_bank(tiny_lm()))  # 256 tokens of context, 11 of prompt
    fits = Request((5,) * 243, ((7, 8, 9), (7,)))
    [got] = score(store, [fits], [3], batch_size=1)
    assert len(got.scores) == 2
    message = r"request 1 does not fit: 11 tokens of prompt 'soft-11', 243 of context and 3 .* make 257.* holds 256"
    with pytest.raises(PromptTooLongError, match=message):
        score(store, [fits, Request((5,) * 243, ((7, 8, 9, 10), (7,)))], [3, 3], batch_size=1)


def test_nan_is_an_error_and_not_a_score(broken_lm):
    with pytest.raises(ModelError, match="broken computed NaN"):
        score(PrefixStore(broken_lm(), None), [Request((1,), ((3,),))], [-1], batch_size=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_public_arguments_and_no_patch(tiny_lm, mixed_bank, architecture):
    lm = tiny_lm(architecture)
    store = PrefixStore(lm, mixed_bank(lm))
    assert way_of(lm) == "packed" and store[2] is not None  # models pass arguments of their own to their body
    attributes = {name: set(vars(module)) for name, module in lm.model.named_modules()}
    seen: set[str] = set()
    called = (lm.model, lm.model.get_decoder())
    hooks = [m.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True) for m in called]
    score(store, [Request((5, 6), ((7, 8), (9,)))], [2], batch_size=1)
    for hook in hooks:
        hook.remove()
    public = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
    assert {"input_ids", "attention_mask"} <= seen <= public | {"use_cache"}
    assert attributes == {name: set(vars(module)) for name, module in lm.model.named_modules()}
    assert "forward" not in vars(lm.model)
