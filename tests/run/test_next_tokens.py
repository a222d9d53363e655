from __future__ import annotations

import pytest
import torch

from idp.errors import ModelError, TaskError
from idp.run.next_tokens import next_tokens
from idp.run.store import PrefixStore

CONTEXTS = [(5, 6, 7), (8,), (9,) * 20, (4, 3, 2, 1)]


@pytest.mark.parametrize("architecture", ["llama", "opt", "bloom", "gemma2"])
def test_equals_the_model_run_alone(tiny_lm, mixed_bank, plain_logits, architecture):
    lm = tiny_lm(architecture)
    bank, choices = mixed_bank(lm), [0, 3, -1, 1]
    found = next_tokens(PrefixStore(lm, bank), CONTEXTS, choices, batch_size=3)
    assert found.shape == (4, lm.vocab_size)
    for row, context, choice in zip(found, CONTEXTS, choices, strict=True):
        alone = plain_logits(lm, None if choice == -1 else bank[choice], context)[-1].float().log_softmax(-1)
        torch.testing.assert_close(row, alone, atol=2e-5, rtol=1e-5)


def test_nothing_asked_nothing_found_and_an_empty_context_is_refused(tiny_lm):
    store = PrefixStore(tiny_lm(), None)
    assert next_tokens(store, [], []).shape == (0, tiny_lm().vocab_size)
    with pytest.raises(TaskError, match="request 0 has an empty context"):
        next_tokens(store, [()], [-1])


def test_nan_is_an_error(broken_lm):
    with pytest.raises(ModelError, match="broken computed NaN"):
        next_tokens(PrefixStore(broken_lm(), None), [(5,)], [-1])
