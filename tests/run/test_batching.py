from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import ModelError, TaskError
from idp.run.batching import BatchSize, cost_of_starting, run_batches

_WORTH = 24 + 32  # tokens that starting a batch of this model costs


class _Model:
    """What batching looks at: 4 layers of a size that makes starting a batch worth 56 tokens."""

    device = torch.device("cpu")
    hidden_size = 255  # 12 layers' worth of width squared: 3.1 million weights
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=4)),
    )


_LM = _Model()
_LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=30).map(lambda lengths: sorted(lengths, reverse=True))


def _identity(batch):
    return list(batch)


@given(_LENGTHS, st.integers(1, 8))
def test_batches_are_of_similar_length_and_hold_every_job_once(lengths, rows):
    batches = [done.jobs for done in run_batches(lengths, int, _identity, BatchSize(rows), _LM)]
    assert [job for batch in batches for job in batch] == lengths
    assert max(map(len, batches)) <= rows
    for batch in batches:
        padding = sum(batch[0] - length for length in batch)
        assert padding <= max(_WORTH, 0.03 * batch[0] * len(batch))


@given(_LENGTHS, st.integers(1, 400))
def test_memory_is_found_by_trying_and_no_job_is_lost(lengths, memory):
    """A device that holds `memory` tokens, padding included."""
    failures = []

    def run(batch):
        if len(batch) * batch[0] > memory:
            failures.append(batch)
            raise RuntimeError("CUDA out of memory.")
        return list(batch)

    size = BatchSize(None)
    if lengths[0] > memory:
        with pytest.raises(ModelError, match=f"single row of {lengths[0]} tokens"):
            list(run_batches(lengths, int, run, size, _LM))
        return
    done = list(run_batches(lengths, int, run, size, _LM))
    assert [job for batch in done for job in batch.jobs] == lengths
    assert all(batch.jobs == batch.result and batch.seconds >= 0 for batch in done)
    found = len(failures)
    list(run_batches(lengths, int, run, size, _LM))
    assert len(failures) == found  # what was learned is kept


def test_automatic_batches_count_tokens():
    lengths = [64] * 100
    batches = [len(done.jobs) for done in run_batches(lengths, int, _identity, BatchSize(None), _LM)]
    assert batches == [32, 32, 32, 4]


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("x"), KeyboardInterrupt()])
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    def run(batch):
        raise error

    with pytest.raises(type(error)):
        list(run_batches([3, 2], int, run, BatchSize(2), _LM))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_known_by_all_its_names(error):
    def run(batch):
        if len(batch) > 1:
            raise error
        return batch[0]

    assert [done.result for done in run_batches([3, 2], int, run, BatchSize(2), _LM)] == [3, 2]


def test_real_lack_of_memory_is_survived():
    """An allocation that no machine grants, once; then the halves run."""
    tried = []

    def run(batch):
        tried.append(len(batch))
        return torch.empty(2**60 if len(batch) > 1 else 1, dtype=torch.uint8).numel()

    assert [done.result for done in run_batches([3, 3], int, run, BatchSize(None), _LM)] == [1, 1]
    assert tried == [2, 1, 1]


@pytest.mark.parametrize("rows", [0, -3])
def test_a_batch_needs_a_row(rows):
    with pytest.raises(TaskError, match=f"batch size of {rows}"):
        BatchSize(rows)


def test_starting_a_batch_costs_a_small_model_more_tokens(tiny_lm):
    assert cost_of_starting(_LM) == _WORTH
    small, large = tiny_lm(), tiny_lm(hidden_size=96)
    assert cost_of_starting(small) > cost_of_starting(large) >= 24
