from __future__ import annotations

import copy
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.model.loaded import LanguageModel
from idp.text.rows import token_rows

TEXTS = ["The river runs past the old mill.", "Nobody ever locked a door in the small town by the sea.", "Yes."]


def joined(lm, documents):
    """All tokens of the documents, the end token between them."""
    rows = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents]
    return [token for row in rows for token in (lm.eos_token_id, *row)][1:]


def test_rows_are_the_joined_documents_cut_at_equal_lengths(tiny_lm):
    lm = tiny_lm()
    stream = joined(lm, TEXTS)
    rows = token_rows(lm, iter(TEXTS), 8)
    assert len(rows) == len(stream) // 8 > 2
    assert [token for row in rows for token in row] == stream[: 8 * len(rows)]
    assert {len(row) for row in rows} == {8}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text("The river é\n", min_size=1, max_size=30), min_size=1, max_size=4),
    length=st.integers(2, 40),
    rows=st.none() | st.integers(1, 5),
)
def test_no_token_is_lost_or_made_up(tiny_lm, texts, length, rows):
    lm = tiny_lm()
    stream = joined(lm, texts)
    if len(stream) < 2:
        return
    found = token_rows(lm, texts, length, rows=rows)
    whole = max(1, len(stream) // length)
    assert len(found) == (whole if rows is None else min(rows, whole))
    assert [token for row in found for token in row] == stream[: len(found) * length]


def test_no_more_documents_are_read_than_the_rows_need(tiny_lm):
    def documents():
        yield TEXTS[1]
        pytest.fail("read on")

    assert len(token_rows(tiny_lm(), documents(), 5, rows=2)) == 2


def test_too_little_text_for_the_rows_is_said(tiny_lm, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(token_rows(tiny_lm(), ["The river"], 2, rows=50)) < 50
    assert "2 of 50 rows" in caplog.text


def test_without_an_end_token_an_empty_line_stands_between(tiny_lm):
    tokenizer = copy.deepcopy(tiny_lm().tokenizer)
    tokenizer.eos_token = None
    lm = LanguageModel(tiny_lm().model, tokenizer, "endless")
    (row,) = token_rows(lm, ["Yes", "No"], 200)
    assert tokenizer.decode(row) == "Yes\n\nNo"


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_less_than_two_tokens_predict_nothing(tiny_lm, texts):
    with pytest.raises(TaskError, match="less than two tokens"):
        token_rows(tiny_lm(), texts, 8)


@pytest.mark.parametrize("length", [0, 1, 257])
def test_rows_of_impossible_length_are_refused(tiny_lm, length):
    with pytest.raises(TaskError, match=f"rows of {length} tokens.*2 to 256"):
        token_rows(tiny_lm(), TEXTS, length)
    with pytest.raises(TaskError, match="0 rows"):
        token_rows(tiny_lm(), TEXTS, 8, rows=0)


def test_documents_may_begin_as_the_tokenizer_begins_a_text(tiny_lm):
    lm = tiny_lm()
    (row,) = token_rows(lm, ["Yes", "No"], 200, special_tokens=True)
    starts = [place for place, token in enumerate(row) if token == lm.bos_token_id]
    assert starts[0] == 0 and row[starts[1] - 1] == lm.eos_token_id and len(starts) == 2
    assert lm.bos_token_id not in token_rows(lm, ["Yes", "No"], 200)[0]
