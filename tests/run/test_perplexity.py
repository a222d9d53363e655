from __future__ import annotations

import math

import pytest
import torch

from idp.errors import TaskError
from idp.run.perplexity import perplexity
from idp.run.score import Request, score
from idp.run.store import PrefixStore

ROWS = [tuple(range(start, start + 9)) for start in (3, 50, 120)]


@pytest.mark.parametrize("batch_size", [1, 2, 8, None])
def test_it_is_what_scoring_says(tiny_lm, batch_size):
    lm = tiny_lm()
    scored = score(PrefixStore(lm, None), [Request(row[:1], (row[1:],)) for row in ROWS], [-1] * len(ROWS))
    expected = math.exp(-sum(each.scores[0].loglikelihood for each in scored) / (8 * len(ROWS)))
    done = []
    assert perplexity(lm, ROWS, batch_size=batch_size, advance=done.append) == pytest.approx(expected, rel=1e-5)
    assert sum(done) == len(ROWS)


def test_a_model_without_a_clue_is_as_perplexed_as_its_vocabulary_is_large(tiny_lm):
    lm = tiny_lm("llama", seed=5, tie_word_embeddings=False)
    with torch.no_grad():
        kept = lm.model.lm_head.weight.clone()
        lm.model.lm_head.weight.zero_()
    try:
        assert perplexity(lm, ROWS) == pytest.approx(lm.vocab_size, rel=1e-5)
    finally:
        with torch.no_grad():
            lm.model.lm_head.weight.copy_(kept)


def test_no_text_is_an_error(tiny_lm):
    with pytest.raises(TaskError, match="no text"):
        perplexity(tiny_lm(), [])
