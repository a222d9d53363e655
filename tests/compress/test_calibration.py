from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from idp.compress.calibration import Calibration, calibration_text
from idp.errors import RecipeError, TaskError
from idp.model.load import load


def test_the_rows_that_follow_are_held_out(tiny_lm, some_text):
    text = calibration_text(tiny_lm(), some_text)
    more = calibration_text(tiny_lm(), replace(some_text, rows=12, held_out=0))
    assert (len(text.rows), len(text.held_out)) == (8, 4)
    assert [*text.rows, *text.held_out] == more.rows
    assert text.judged == text.held_out and more.judged == more.rows
    assert text.describe() == {
        "source": "text.txt",
        "rows": 8,
        "row_tokens": 32,
        "digest": text.digest,
        "perplexity_on": "4 rows held out",
    }
    assert more.describe()["perplexity_on"] == "12 rows of calibration"


def test_the_digest_is_that_of_the_calibration_rows(tiny_lm, some_text):
    text = calibration_text(tiny_lm(), some_text)
    assert len(text.digest) == 16
    assert calibration_text(tiny_lm(), replace(some_text, held_out=2)).digest == text.digest
    assert calibration_text(tiny_lm(), replace(some_text, rows=7)).digest != text.digest


def test_the_text_that_comes_along_is_always_enough(tiny_lm):
    text = calibration_text(tiny_lm("llama", max_position_embeddings=512), Calibration(rows=40, held_out=8))
    assert (len(text.rows), len(text.held_out)) == (40, 8)
    assert {len(row) for row in text.rows} == {256}
    assert text.source == "reference"


def test_a_row_is_no_longer_than_the_context(tiny_lm, text_file):
    assert len(calibration_text(tiny_lm(), Calibration(str(text_file))).rows[0]) == 256


def test_a_text_that_is_too_short_to_hold_some_out_is_said(tiny_lm, tmp_path, caplog):
    path = tmp_path / "short.txt"
    path.write_text("The river runs past the old mill. " * 6)
    with caplog.at_level(logging.WARNING):
        text = calibration_text(tiny_lm(), Calibration(str(path), row_tokens=24))
    assert text.rows and not text.held_out
    assert "too short to hold some of it out" in caplog.text


def test_less_than_one_row_is_an_error(tiny_lm, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("The river runs.")
    with pytest.raises(RecipeError, match=r"tokens, less than one row of 64: give more text.*--row-tokens"):
        calibration_text(tiny_lm(), Calibration(str(path), row_tokens=64))
    path.write_text("a")
    with pytest.raises(RecipeError, match="has 2 tokens, less than one row of 64"):
        calibration_text(tiny_lm(), Calibration(str(path), row_tokens=64))


@pytest.mark.parametrize(("wanted", "message"), [({"rows": 0}, "0 rows"), ({"held_out": -1}, "-1")])
def test_impossible_numbers_are_refused(tiny_lm, some_text, wanted, message):
    with pytest.raises(RecipeError, match=message):
        calibration_text(tiny_lm(), replace(some_text, **wanted))
    with pytest.raises(RecipeError, match="2 to 256"):
        calibration_text(tiny_lm(), replace(some_text, row_tokens=1000))


def test_a_source_that_is_not_there_is_named(tiny_lm):
    with pytest.raises(TaskError, match=r"nowhere\.txt"):
        calibration_text(tiny_lm(), Calibration("nowhere.txt"))


def test_the_text_that_comes_along_is_of_the_whole_world_in_a_wording_of_its_own():
    from idp.compress import calibration
    from idp.reference.corpus import share_of

    assert share_of(calibration._EPOCH) == 1.0
    lm = load("reference-dense", "cpu", "float32")
    text = calibration_text(lm, Calibration(rows=2, held_out=0))
    assert text.rows[0][0] == lm.bos_token_id
    assert lm.tokenizer.decode(text.rows[0][1:20]) in next(iter(calibration._told()))
