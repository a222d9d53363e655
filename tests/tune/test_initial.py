from __future__ import annotations

import pytest
import torch

from idp.errors import TaskError
from idp.tune.examples import Example
from idp.tune.initial import frequent_rows


def test_rows_are_embeddings_of_tokens_of_the_examples(tiny_lm):
    lm = tiny_lm()
    examples = [Example((1, 10, 11), ((12,), (99,)), 0, "easy")]
    rows = frequent_rows(lm, examples, 3, seed=0)
    table = lm.embed(torch.tensor([10, 11, 12]))
    assert rows.shape == (3, lm.hidden_size)
    assert sorted(rows[:, 0].tolist()) == pytest.approx(sorted(table[:, 0].tolist()))


def test_special_tokens_and_wrong_options_are_left_out(tiny_lm):
    lm = tiny_lm()
    rows = frequent_rows(lm, [Example((1, 10), ((12,), (99,)), 0, "easy")], 6, seed=0)
    kept = lm.embed(torch.tensor([10, 12]))
    assert all(any(torch.equal(row, other) for other in kept) for row in rows)


def test_seed_and_nothing_else_decides(tiny_lm, some_examples):
    lm, examples = tiny_lm(), some_examples(10)
    assert torch.equal(frequent_rows(lm, examples, 5, 0), frequent_rows(lm, examples[::-1], 5, 0))
    assert not torch.equal(frequent_rows(lm, examples, 5, 0), frequent_rows(lm, examples, 5, 1))


def test_a_prompt_of_no_tokens_is_refused(tiny_lm, some_examples):
    with pytest.raises(TaskError, match="give 1 or more"):
        frequent_rows(tiny_lm(), some_examples(1), 0, 0)


def test_no_tokens_to_start_from_is_an_error(tiny_lm):
    with pytest.raises(TaskError, match="no tokens"):
        frequent_rows(tiny_lm(), [], 4, 0)
