"""Generation is exact: in a batch or alone, behind a cached prompt or an embedded one, with any cache."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.dynamic.model import DynamicPromptModel
from idp.select.registry import get_selector

_ROW = st.lists(st.integers(3, 383), min_size=1, max_size=12)
_BATCHES = st.lists(st.tuples(_ROW, st.integers(-1, 3)), min_size=1, max_size=4)
_SIDES = st.sampled_from(["left", "right"])
_ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13], [14, 15, 16], [5, 6, 7, 8]]
_CHOICES = [0, 3, -1, 1, 2]
_GREEDY = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
_CACHES = [
    {},
    {"cache_implementation": "dynamic"},
    {"cache_implementation": "static"},
    {"use_cache": False},
    {"prefill_chunk_size": 2},
]


def _logits(output, row):
    """Those a row was generated from, `(new, V)`."""
    return torch.stack([step[row] for step in output.logits])


def _new(output, row):
    """The tokens a row was given."""
    return output.sequences[row, output.sequences.shape[1] - len(output.logits) :].tolist()


def _assert_as_defined(subject, plain_logits, output, rows, choices):
    """At each step the logits are those of the row so far behind its prompt, computed alone without cache or mask."""
    for number, (row, choice) in enumerate(zip(rows, choices, strict=True)):
        new = _new(output, number)
        prompt = None if choice == -1 else subject.bank[choice]
        steps = new.index(2) + 1 if 2 in new else len(new)  # what comes behind the end token is padding
        expected = plain_logits(subject.lm, prompt, [*row, *new[:steps]])[len(row) - 1 : -1]
        subject.close(_logits(output, number)[:steps], expected)


def _assert_as_alone(subject, output, rows, choices, **kwargs):
    """Each row gets the logits it gets alone as long as the tokens are the same, and in fp32 they are."""
    for number, (row, choice) in enumerate(zip(rows, choices, strict=True)):
        alone = subject.prompted.generate_with([choice], torch.tensor([row]), **kwargs)
        got, expected = _new(output, number), _new(alone, 0)
        same = next((step for step, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), len(expected))
        assert not subject.is_exact or same == len(expected)
        subject.close(_logits(output, number)[: same + 1][: len(expected)], _logits(alone, 0)[: same + 1])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=_BATCHES, side=_SIDES)
def test_mixed_batch_equals_rows_alone_and_the_definition(subject, padded, plain_logits, batch, side):
    rows, choices = [row for row, _ in batch], [choice for _, choice in batch]
    ids, mask = padded(rows, side)
    output = subject.prompted.generate_with(choices, ids, attention_mask=mask, max_new_tokens=3, **_GREEDY)
    assert torch.equal(output.sequences[:, : ids.shape[1]], ids)
    _assert_as_defined(subject, plain_logits, output, rows, choices)
    _assert_as_alone(subject, output, rows, choices, max_new_tokens=3, **_GREEDY)


@pytest.mark.parametrize("side", ["left", "right"])
def test_eager_attention_is_exact(eager_subject, padded, plain_logits, side):
    ids, mask = padded(_ROWS, side)
    output = eager_subject.prompted.generate_with(_CHOICES, ids, attention_mask=mask, max_new_tokens=4, **_GREEDY)
    _assert_as_defined(eager_subject, plain_logits, output, _ROWS, _CHOICES)


@pytest.mark.parametrize("cache", _CACHES, ids=str)
def test_every_cache_is_exact(subject, padded, plain_logits, cache):
    ids, mask = padded(_ROWS, "left")
    kwargs = {"max_new_tokens": 5, **_GREEDY, **cache}
    output = subject.prompted.generate_with(_CHOICES, ids, attention_mask=mask, **kwargs)
    _assert_as_defined(subject, plain_logits, output, _ROWS, _CHOICES)
    _assert_as_alone(subject, output, _ROWS, _CHOICES, **kwargs)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=_BATCHES, side=_SIDES, cache=st.sampled_from([{}, {"cache_implementation": "static"}]))
def test_windows_shorter_than_the_row(short_sighted, padded, plain_logits, batch, side, cache):
    rows, choices = [row for row, _ in batch], [choice for _, choice in batch]
    ids, mask = padded(rows, side)
    kwargs = {"max_new_tokens": 4, **_GREEDY, **cache}
    output = short_sighted.prompted.generate_with(choices, ids, attention_mask=mask, **kwargs)
    _assert_as_defined(short_sighted, plain_logits, output, rows, choices)
    _assert_as_alone(short_sighted, output, rows, choices, **kwargs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_prompt_is_the_bare_model_bit_for_bit(subject, padded, side):
    ids, mask = padded(_ROWS, side)
    left, left_mask = padded(_ROWS, "left")  # on the right the bare model would go on behind the padding
    kwargs = {"max_new_tokens": 5, **_GREEDY}
    got = subject.prompted.generate_with([-1] * 5, ids, attention_mask=mask, **kwargs)
    bare = subject.lm.model.generate(left, attention_mask=left_mask, **kwargs)
    assert torch.equal(got.sequences[:, ids.shape[1] :], bare.sequences[:, ids.shape[1] :])
    assert all(torch.equal(one, other) for one, other in zip(got.logits, bare.logits, strict=True))


def test_bank_of_one_is_plain_prompt_tuning(subject):
    bank = PromptBank([subject.bank[2]])
    prompted = DynamicPromptModel(subject.lm, bank, get_selector("none"))
    rows = torch.tensor([_ROWS[0], _ROWS[0][::-1]])  # (B, T) of one length: no padding
    prompt = subject.lm.embed_prompt(bank[0]).expand(2, -1, -1)  # (B, n, d)
    embeds = torch.cat([prompt, subject.lm.embed(rows)], dim=1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    kwargs = {"max_new_tokens": 5, **_GREEDY}
    got = prompted.generate_with([0, 0], rows, **kwargs)
    tuned = subject.lm.model.generate(inputs_embeds=embeds, attention_mask=mask, **kwargs)
    subject.close(got.logits[0], tuned.logits[0])
    if subject.is_exact:
        assert torch.equal(got.sequences[:, rows.shape[1] :], tuned.sequences)
        subject.close(torch.stack(got.logits), torch.stack(tuned.logits))
