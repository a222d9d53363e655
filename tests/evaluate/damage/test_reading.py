from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn.functional import kl_div

from idp.errors import ModelError
from idp.evaluate.damage import reading
from idp.evaluate.damage.activations import Blocks, _summed
from idp.evaluate.damage.reading import read_both
from idp.model.loaded import LanguageModel
from idp.run.perplexity import perplexity


def logits(lm, rows):
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor(rows), use_cache=False).logits  # (B, T, V)


def hooks(lm):
    return sum(len(module._forward_hooks) for module in lm.model.modules())


@pytest.fixture
def pair(tiny_lm, changed):
    return tiny_lm(), changed(tiny_lm(), 0.2, 0, 1)


def test_divergence_is_that_of_the_distributions(pair, rows):
    read = read_both(*pair, rows)
    p, q = (logits(lm, rows)[:, :-1].double().log_softmax(-1) for lm in pair)
    by_row = kl_div(q, p, log_target=True, reduction="none").sum(-1).mean(1)  # (B,)
    assert read.kl.value == pytest.approx(float(by_row.mean()), rel=1e-4)
    assert read.kl.low < read.kl.value < read.kl.high
    assert float(by_row.min()) < read.kl.low and read.kl.high < float(by_row.max())
    assert read.same.value == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))


def test_perplexity_is_that_of_running_text(pair, rows):
    read = read_both(*pair, rows)
    expected = [perplexity(lm, rows) for lm in pair]
    assert [read.dense_perplexity, read.compressed_perplexity] == pytest.approx(expected, rel=1e-5)


def test_outputs_are_hidden_states(pair, rows):
    """Those that transformers gives, where no final norm stands between."""
    read = read_both(*pair, rows)
    with torch.no_grad():
        first, second = (
            lm.model(input_ids=torch.tensor(rows), output_hidden_states=True).hidden_states[1] for lm in pair
        )  # (B, T, d)
    expected = ((first - second).norm(dim=-1) / first.norm(dim=-1)).mean()
    assert read.path[0] == pytest.approx(float(expected), rel=1e-5)
    assert read.own[0] == pytest.approx(read.path[0], rel=1e-6)  # nothing stands before it


def test_a_blocks_own_share(tiny_lm, changed, rows):
    later = read_both(tiny_lm(), changed(tiny_lm(), 0.2, 1), rows)
    assert later.path[0] == later.own[0] == 0
    assert later.path[1] == pytest.approx(later.own[1], rel=1e-6)
    earlier = read_both(tiny_lm(), changed(tiny_lm(), 0.2, 0), rows)
    assert earlier.path[0] == pytest.approx(earlier.own[0], rel=1e-6)
    assert earlier.own[1] == 0 < earlier.path[1]


def test_without_the_own_share(pair, rows):
    with_it, without = read_both(*pair, rows), read_both(*pair, rows, own=False)
    assert without.own is None
    assert (without.path, without.kl) == (with_it.path, with_it.kl)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_batches_change_nothing(pair, rows, monkeypatch, at_once):
    whole = read_both(*pair, rows)
    told = []
    monkeypatch.setattr(reading, "_rows_at_once", lambda *args: at_once)
    parts = read_both(*pair, rows, advance=told.append)
    assert sum(told) == len(rows) and max(told) == at_once
    assert parts.path == pytest.approx(whole.path, rel=1e-5)
    assert parts.own == pytest.approx(whole.own, rel=1e-5)
    assert parts.kl.value == pytest.approx(whole.kl.value, rel=1e-4)


def test_a_batch_that_does_not_fit_is_counted_once(pair, rows, monkeypatch):
    whole, compare = read_both(*pair, rows), reading.compare_predictions

    def small_device(dense, compressed, ids, *states):
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compare(dense, compressed, ids, *states)

    monkeypatch.setattr(reading, "compare_predictions", small_device)
    parts = read_both(*pair, rows)
    assert parts.path == pytest.approx(whole.path, rel=1e-5)
    assert parts.kl.value == pytest.approx(whole.kl.value, rel=1e-4)


def test_a_single_row_has_no_interval(pair, rows):
    read = read_both(*pair, rows[:1])
    assert read.kl.value > 0
    assert math.isnan(read.kl.low) and math.isnan(read.kl.high)


def test_a_token_without_states_counts_as_right():
    states = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])  # (B, T, d)
    assert _summed(states, states + 1) == pytest.approx(math.sqrt(2) / 5)


def test_nothing_stays_behind(pair, rows):
    before = [hooks(lm) for lm in pair]  # transformers may have put some there
    read_both(*pair, rows)
    assert [hooks(lm) for lm in pair] == before
    with pytest.raises(RuntimeError, match="stop"), Blocks(*pair).dense():
        assert hooks(pair[0]) == before[0] + 2
        raise RuntimeError("stop")
    assert hooks(pair[0]) == before[0]


@pytest.mark.parametrize("first", [True, False], ids=["dense", "compressed"])
def test_a_model_of_nan_is_named(tiny_lm, broken_lm, rows, first):
    pair = (broken_lm(), tiny_lm()) if first else (tiny_lm(), broken_lm())
    with pytest.raises(ModelError, match="broken computed NaN"):
        read_both(*pair, rows)


def test_two_types(tiny_lm, rows):
    half = LanguageModel(copy.deepcopy(tiny_lm().model).bfloat16(), tiny_lm().tokenizer, "half")
    read = read_both(tiny_lm(), half, rows)
    assert 0 < read.own[1] < 0.02 and 0 < read.kl.value < 0.02
