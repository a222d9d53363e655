from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import ModelError
from idp.run.inputs import on_device, pad_left, read_inputs


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4), st.booleans())
def test_tokens_survive_padding_on_either_side(rows, left):
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + row if left else row + [0] * (width - len(row)) for row in rows]
    batch = read_inputs(torch.tensor(ids), None, 0, [2])
    assert batch.rows() == rows
    assert bool((batch.mask[:, -1] == 1).all())
    assert batch.given.tolist() == ids
    assert batch.moved == (batch.ids.tolist() != ids)


def test_pad_left():
    ids, mask = pad_left([[5], [6, 7, 8]], 0)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(("pad", "eos"), [(None, [2]), (2, [2])])
def test_padding_is_guessed_only_where_it_can_be_told(pad, eos):
    assert read_inputs(torch.tensor([[5, 2, 2]]), None, pad, eos).rows() == [[5, 2, 2]]


def test_a_given_mask_is_believed():
    batch = read_inputs(torch.tensor([[5, 6, 0], [7, 8, 9]]), torch.tensor([[1, 0, 0], [1, 0, 1]]), 0, [2])
    assert batch.rows() == [[5], [7, 9]]
    assert batch.mask.tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    "given", [[[1, 2]], torch.tensor([1, 2]), torch.zeros(1, 2), torch.zeros(0, 3, dtype=torch.long), torch.zeros(2, 0)]
)
def test_what_is_no_batch_of_ids_is_refused(given):
    with pytest.raises(ModelError, match="input_ids must be a tensor of token ids"):
        read_inputs(given, None, 0, [2])


def test_a_row_of_padding_and_a_foreign_mask_are_refused():
    with pytest.raises(ModelError, match="row 1 of input_ids is all padding"):
        read_inputs(torch.tensor([[5, 6], [0, 0]]), None, 0, [2])
    with pytest.raises(ModelError, match=r"attention_mask has shape \(1, 3\), but input_ids has \(1, 2\)"):
        read_inputs(torch.tensor([[5, 6]]), torch.ones(1, 3), 0, [2])


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=5))
def test_ids_lie_in_the_vocabulary(ids):
    if all(0 <= token < 10 for token in ids):
        assert read_inputs(torch.tensor([ids]), None, None, [2], vocab_size=10).rows() == [ids]
    else:
        with pytest.raises(ModelError, match="0 to 9"):
            read_inputs(torch.tensor([ids]), None, None, [2], vocab_size=10)


def test_ids_are_moved_to_the_models_device():
    cpu = torch.device("cpu")
    ids = torch.tensor([[5, 6]])
    assert on_device(ids, cpu) is ids
    assert on_device(ids, torch.device("meta")).device.type == "meta"
    assert on_device("no tensor", cpu) == "no tensor"
    with pytest.raises(ModelError, match="input_ids are on meta and cannot be moved to the model's cpu"):
        on_device(torch.zeros(1, 2, dtype=torch.long, device="meta"), cpu)
