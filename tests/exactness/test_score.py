"""Log-likelihoods are exact: packed or one by one, in a mixed batch or alone, behind a cached prompt or none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.run.score import Request, score
from idp.run.store import PrefixStore

_TOKENS = st.integers(3, 383)
_REQUESTS = st.builds(
    Request,
    st.lists(_TOKENS, min_size=1, max_size=12).map(tuple),
    st.lists(st.lists(_TOKENS, max_size=6).map(tuple), max_size=4).map(tuple),
)
_BATCHES = st.lists(st.tuples(_REQUESTS, st.integers(-1, 3)), min_size=1, max_size=6)
_MIXED = [Request(tuple(range(5, 6 + 3 * n)), ((9, 8, 7), (4,), (30 + n, 31))) for n in range(6)]
_CHOICES = [0, 3, -1, 1, 2, 3]


def _defined(subject, plain_logits, request, prompt):
    """The definition, one option at a time: no batch, no cache, no mask."""
    scores = []
    for option in request.continuations:
        ids = [*request.context, *option]
        logits = plain_logits(subject.lm, prompt, ids)[len(request.context) - 1 : -1]  # (L, V)
        chosen = logits.log_softmax(-1).gather(-1, torch.tensor(option, dtype=torch.long)[:, None])
        scores.append((float(chosen.sum()), logits.argmax(-1).tolist() == list(option)))
    return scores


def _assert_scores(subject, got, expected):
    """A log-probability moves by twice as much as the logits; the allowance for a sum is that of one token."""
    assert len(got) == len(expected)
    for (loglikelihood, is_greedy), (expected_loglikelihood, expected_greedy) in zip(got, expected, strict=True):
        assert loglikelihood == pytest.approx(expected_loglikelihood, abs=2 * subject.atol, rel=1e-6)
        assert is_greedy == expected_greedy or not subject.is_exact


def _assert_as_defined(subject, plain_logits, requests, choices, batch_size):
    scored = score(PrefixStore(subject.lm, subject.bank), requests, choices, batch_size=batch_size)
    for request, choice, got in zip(requests, choices, scored, strict=True):
        prompt = None if choice == -1 else subject.bank[choice]
        _assert_scores(subject, got.scores, _defined(subject, plain_logits, request, prompt))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=_BATCHES, batch_size=st.integers(1, 4))
def test_score_equals_the_definition(subject, plain_logits, batch, batch_size):
    requests, choices = [request for request, _ in batch], [choice for _, choice in batch]
    _assert_as_defined(subject, plain_logits, requests, choices, batch_size)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=_BATCHES)
def test_windows_shorter_than_the_row(short_sighted, plain_logits, batch):
    requests, choices = [request for request, _ in batch], [choice for _, choice in batch]
    _assert_as_defined(short_sighted, plain_logits, requests, choices, 3)


def test_eager_attention_is_exact(eager_subject, plain_logits):
    _assert_as_defined(eager_subject, plain_logits, _MIXED, _CHOICES, 6)


def test_a_row_in_a_mixed_batch_equals_the_row_alone(subject):
    store = PrefixStore(subject.lm, subject.bank)
    together = score(store, _MIXED, _CHOICES, batch_size=6)
    for request, choice, got in zip(_MIXED, _CHOICES, together, strict=True):
        [alone] = score(store, [request], [choice], batch_size=1)
        _assert_scores(subject, got.scores, alone.scores)


def test_no_prompt_does_not_depend_on_the_bank_in_any_bit(subject):
    with_bank, without = (
        score(PrefixStore(subject.lm, bank), _MIXED, [-1] * 6, batch_size=3) for bank in (subject.bank, None)
    )
    assert [row.scores for row in with_bank] == [row.scores for row in without]


def test_bank_of_one_is_plain_prompt_tuning(subject):
    """In one padded batch, as a trainer of prompts would run it: the prompt's embeddings, then the tokens'."""
    bank = PromptBank([subject.bank[2]])
    contexts, option = [(5, 6, 7), (8, 9, 10, 11), (12, 13, 14)], (20, 21)
    ids = torch.tensor([[*context, *option, *[0] * (4 - len(context))] for context in contexts])  # (B, T)
    prompt = subject.lm.embed_prompt(bank[0])  # (n, d)
    embeds = torch.cat([prompt.expand(3, -1, -1), subject.lm.embed(ids)], dim=1)
    lengths = torch.tensor([len(prompt) + len(context) + len(option) for context in contexts])
    mask = (torch.arange(embeds.shape[1]) < lengths[:, None]).long()  # (B, n + T) padded on the right
    with torch.no_grad():
        logits = subject.lm.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits
    requests = [Request(context, (option,)) for context in contexts]
    scored = score(PrefixStore(subject.lm, bank), requests, [0, 0, 0], batch_size=3)
    for row, length, got in zip(logits, lengths.tolist(), scored, strict=True):
        end = row[length - 3 : length - 1].log_softmax(-1)  # (2, V) where the option is predicted
        expected = float(end[0, option[0]] + end[1, option[1]])
        assert got.scores[0].loglikelihood == pytest.approx(expected, abs=2 * subject.atol, rel=1e-6)
