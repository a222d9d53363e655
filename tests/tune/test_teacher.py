from __future__ import annotations

import copy
import itertools

import pytest
import torch

from idp.errors import ModelError, TaskError
from idp.model.loaded import LanguageModel
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.tune import teacher as module
from idp.tune.objective import Objective
from idp.tune.teacher import teach


def plain_logits_of(lm, request):
    """Logits that predict every option token, options one after the other, from rows without any cache."""
    parts = []
    for option in request.continuations:
        ids = torch.tensor([[*request.context, *option[:-1]]])
        with torch.no_grad():
            parts.append(lm.model(input_ids=ids, use_cache=False).logits[0, len(request.context) - 1 :])
    return torch.cat(parts).float()  # (N, V)


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_says_what_the_model_says(tiny_lm, some_examples, architecture):
    lm = tiny_lm(architecture)
    requests = [example.request for example in some_examples(7)]
    taught = teach(lm, lm, requests, top_k=5, temperature=2.0)
    scored = score(PrefixStore(lm, None), requests, [-1] * 7)
    for request, answer in zip(requests, scored, strict=True):
        lesson = taught.lesson([request])
        wanted = (plain_logits_of(lm, request) / 2).log_softmax(-1).topk(5)
        torch.testing.assert_close(lesson.log_probs, wanted.values, atol=1e-4, rtol=1e-4)
        likelihoods = torch.tensor([option.loglikelihood for option in answer.scores])
        torch.testing.assert_close(lesson.likelihoods, likelihoods, atol=1e-4, rtol=1e-4)


def test_long_logits_in_pieces_keep_their_order(tiny_lm, some_examples, monkeypatch):
    from idp.run import readout

    lm = tiny_lm()
    requests = [example.request for example in some_examples(6)]
    whole = teach(lm, lm, requests).lesson(requests)
    monkeypatch.setattr(readout, "MAX_LOGITS", 3 * lm.vocab_size)
    pieces = teach(lm, lm, requests).lesson(requests)
    torch.testing.assert_close(whole.log_probs, pieces.log_probs)
    torch.testing.assert_close(whole.likelihoods, pieces.likelihoods)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_over_the_whole_vocabulary_is_kl(tiny_lm, some_examples, temperature):
    dense, small = tiny_lm(), tiny_lm(seed=1)
    [request] = [example.request for example in some_examples(1)]
    lesson = teach(dense, small, [request], top_k=10_000, temperature=temperature).lesson([request])
    logits = plain_logits_of(small, request)
    p, q = ((each / temperature).log_softmax(-1) for each in (plain_logits_of(dense, request), logits))
    wanted = temperature**2 * (p.exp() * (p - q)).sum(-1)
    torch.testing.assert_close(lesson.divergences(logits), wanted, atol=1e-4, rtol=1e-4)


def test_a_few_tokens_and_the_rest_bound_kl_from_below(tiny_lm, some_examples):
    dense, small = tiny_lm(), tiny_lm(seed=1)
    [request] = [example.request for example in some_examples(1)]
    logits = plain_logits_of(small, request)
    by_k = [teach(dense, small, [request], top_k=k).lesson([request]).divergences(logits) for k in (1, 4, 16, 384)]
    for fewer, more in itertools.pairwise(by_k):
        assert (fewer <= more + 1e-5).all()
    assert (by_k[0] >= -1e-6).all()
    assert float((by_k[-1] - by_k[0]).max()) > 1e-3


def test_a_model_is_not_apart_from_itself_and_gradients_are_finite(tiny_lm, some_examples):
    lm = tiny_lm()
    [request] = [example.request for example in some_examples(1)]
    lesson = teach(lm, lm, [request]).lesson([request])
    logits = plain_logits_of(lm, request).requires_grad_()
    divergences = lesson.divergences(logits)
    divergences.sum().backward()
    assert float(divergences.detach().abs().max()) < 1e-4
    assert torch.isfinite(logits.grad).all()


def test_distillation_pulls_a_prompt_towards_the_teacher(tiny_lm, some_examples):
    dense, small, examples = tiny_lm(), tiny_lm(seed=1), some_examples(6)
    pending = Objective(small, "answer+choice")
    requests = [pending.request(pending.view(example)) for example in examples]
    objective = Objective(small, "distill+distill-choice", teacher=teach(dense, small, requests))
    prompt = torch.zeros(4, small.hidden_size).normal_(generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = []
    for _ in range(12):
        step = objective.behind([prompt])
        loss = step.losses(objective.views(examples)).mean()
        loss.backward()
        step.backward()
        with torch.no_grad():
            prompt -= 0.05 * prompt.grad.sign()
        prompt.grad = None
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_the_model_is_run_once(tiny_lm, some_examples, tmp_path, monkeypatch):
    lm = tiny_lm()
    requests = [example.request for example in some_examples(9)]
    monkeypatch.setattr(module, "_SHARD", 4)
    first = teach(lm, lm, requests, folder=tmp_path)
    assert len(list(tmp_path.glob("teacher-*.safetensors"))) == 3
    monkeypatch.setattr(module._Desk, "answer", lambda *_: pytest.fail("run again"))
    again = teach(lm, lm, requests, folder=tmp_path)
    for request in requests:
        for one, other in zip(*(vars(t.lesson([request])).values() for t in (first, again)), strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_other_settings_are_another_run(tiny_lm, some_examples, tmp_path):
    lm, requests = tiny_lm(), [example.request for example in some_examples(3)]
    for settings in ({}, {"top_k": 3}, {"temperature": 2.0}):
        teach(lm, lm, requests, folder=tmp_path, **settings)
    teach(tiny_lm(seed=1), lm, requests, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_broken_file_is_made_again(tiny_lm, some_examples, tmp_path, caplog):
    lm, requests = tiny_lm(), [example.request for example in some_examples(3)]
    teach(lm, lm, requests, folder=tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    teach(lm, lm, requests, folder=tmp_path)
    assert "cannot continue" in caplog.text


def test_another_tokenizer_is_refused(tiny_lm):
    lm = tiny_lm()
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.add_tokens(["another"])
    other = LanguageModel(lm.model, tokenizer, "other")
    with pytest.raises(ModelError, match="another tokenizer"):
        teach(other, lm, [Request((1,), ((5,),))])


def test_what_it_was_not_asked_is_an_error(tiny_lm):
    lm = tiny_lm()
    taught = teach(lm, lm, [Request((1,), ((5,),))])
    with pytest.raises(TaskError, match="not run on"):
        taught.lesson([Request((1,), ((6,),))])


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"temperature": 0.0}])
def test_numbers_that_make_no_sense_are_refused(tiny_lm, wrong):
    with pytest.raises(TaskError, match="cannot keep"):
        teach(tiny_lm(), tiny_lm(), [], **wrong)


def test_a_teacher_that_computes_nan_is_refused_and_nothing_is_kept(broken_lm, tiny_lm, some_examples, tmp_path):
    with pytest.raises(ModelError, match="broken computed NaN"):
        teach(broken_lm(), tiny_lm(), [example.request for example in some_examples(4)], folder=tmp_path)
    assert not list(tmp_path.iterdir())
