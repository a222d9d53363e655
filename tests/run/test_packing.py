from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.run.packing import ROW_TOKENS, Request, causal_option_mask, lay_out, parts_of

_TOKENS = st.integers(1, 99)
_REQUESTS = st.builds(
    Request,
    st.lists(_TOKENS, min_size=1, max_size=6).map(tuple),
    st.lists(st.lists(_TOKENS, max_size=4).map(tuple), max_size=4).map(tuple),
)


def test_layout_of_two_rows():
    layout = lay_out([Request((1, 2), ((3, 4, 5), (6, 7))), Request((8,), ((9,),))], pad_token_id=0)
    assert layout.input_ids.tolist() == [[1, 2, 3, 4, 6], [0, 0, 0, 0, 8]]
    assert layout.segments.tolist() == [[0, 0, 1, 1, 2], [-1, -1, -1, -1, 0]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 2], [0, 0, 0, 0, 0]]
    assert layout.tail == 4
    assert layout.rows.tolist() == [0, 0, 0, 0, 1]
    assert layout.columns.tolist() == [0, 1, 2, 3, 3]  # the end of the context once, for both first tokens
    assert layout.sources.tolist() == [0, 1, 2, 0, 3, 4]
    assert layout.targets.tolist() == [3, 4, 5, 6, 7, 9]
    assert layout.owners.tolist() == [0, 0, 0, 1, 1, 2]
    assert layout.num_options == 3


def test_single_tokens_cost_nothing():
    request = Request((1, 2, 3), ((4,), (5,), (6,)))
    assert request.packed_length == 3
    assert lay_out([request], pad_token_id=0).tail == 1


@given(st.lists(_REQUESTS, min_size=1, max_size=4))
def test_every_target_is_predicted_by_the_token_before_it(requests):
    layout = lay_out(requests, pad_token_id=0)
    first = layout.input_ids.shape[1] - layout.tail
    rows, columns = layout.rows[layout.sources], layout.columns[layout.sources]
    told = iter(zip(rows, columns, layout.targets, layout.owners, strict=True))
    option = 0
    for number, request in enumerate(requests):
        assert layout.input_ids[number, layout.input_ids.shape[1] - request.packed_length] == request.context[0]
        for continuation in request.continuations:
            before = request.context[-1]
            for place, token in enumerate(continuation):
                row, column, target, owner = next(told)
                assert (row, target, owner) == (number, token, option)
                assert layout.input_ids[row, first + column] == before
                assert layout.positions[row, first + column] == len(request.context) - 1 + place
                before = token
            option += 1
    assert next(told, None) is None
    assert layout.num_options == option


@given(st.lists(_REQUESTS, min_size=1, max_size=3), st.integers(0, 3))
def test_mask_lets_a_token_see_its_past_and_nothing_else(requests, longest):
    layout = lay_out(requests, pad_token_id=0)
    prefix = torch.ones(len(requests), longest, dtype=torch.long)
    prefix[0, : longest // 2] = 0
    mask = causal_option_mask(layout.segments, prefix, torch.float32)
    batch, width = layout.segments.shape
    assert mask.shape == (batch, 1, width, longest + width)
    open_ = mask[:, 0] == 0
    assert bool((open_ | (mask[:, 0] == torch.finfo(torch.float32).min)).all())
    assert bool(open_.any(-1).all())  # no query without a key
    for b in range(batch):
        for q in range(width):
            assert open_[b, q, :longest].long().tolist() == prefix[b].tolist()
            own = layout.segments[b, q].item()
            for k in range(width):
                other = layout.segments[b, k].item()
                assert bool(open_[b, q, longest + k]) == (k <= q and (other == own or other == 0))


@given(st.lists(st.lists(st.integers(0, 9), max_size=700).map(tuple), max_size=12))
def test_rows_hold_all_options_in_order_and_no_more_than_they_may(options):
    parts = parts_of(options)
    assert [option for part in parts for option in part] == options
    assert all(len(part) == 1 or sum(map(len, part)) <= ROW_TOKENS for part in parts)
    assert all(parts)
