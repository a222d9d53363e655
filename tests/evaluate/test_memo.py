from __future__ import annotations

import os
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.errors import OutputError
from idp.evaluate.memo import ANSWERS, Answer, Memo, forget

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEY = st.tuples(st.text(), st.lists(st.integers(), max_size=4))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5), st.floats(0, 100))
def test_gives_back_what_was_put_and_nothing_for_other_keys(answers, seconds):
    memo = Memo(None, "model")
    memo.put((key, value, seconds) for key, value in answers.items())
    keys = [*answers, "never put" * 9]
    assert memo.get(keys) == [*(Answer(value, seconds) for value in answers.values()), None]
    memo.close()


@settings(max_examples=50, deadline=None)
@given(KEY, KEY)
def test_different_keys_do_not_meet(one, other):
    memo = Memo(None, "model")
    memo.put([(one, "one", 1.0)])
    assert memo.get([other]) == [Answer("one", 1.0) if one == other else None]
    memo.close()


def test_text_that_is_not_ascii_comes_back():
    memo = Memo(None, "")
    memo.put([("ключ", "où \n été", 0.0)])
    assert memo.get(["ключ"]) == [Answer("où \n été", 0.0)]


def test_another_process_goes_on_with_what_is_on_disk(tmp_path):
    first = Memo(tmp_path / "answers.sqlite", "model")
    first.put([(("score", 1), [-1.5, True], 0.25)])  # not closed: an interrupted run does not close either
    second = Memo(tmp_path / "answers.sqlite", "model")
    assert second.get([("score", 1)]) == [Answer([-1.5, True], 0.25)]
    first.close()
    second.close()


def test_two_models_share_a_file_but_no_answers(tmp_path):
    one, other = (Memo(tmp_path / "answers.sqlite", scope) for scope in ("one", "other"))
    one.put([("key", 1, 0.0)])
    assert other.get(["key"]) == [None]
    other.put([("key", 2, 0.0)])
    assert one.get(["key"]) == [Answer(1, 0.0)]
    one.close()
    other.close()


def test_an_answer_that_is_put_again_is_replaced():
    memo = Memo(None, "")
    memo.put([("key", 1, 0.0), ("key", 2, 1.0)])
    assert memo.get(["key"]) == [Answer(2, 1.0)]


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path):
    memo = Memo(tmp_path / "answers.sqlite", "")
    with pytest.raises(TypeError):
        memo.put([("good", 1, 0.0), ("bad", object(), 0.0)])
    assert memo.get(["good", "bad"]) == [None, None]
    memo.close()


def test_a_damaged_answer_counts_as_missing():
    memo = Memo(None, "")
    memo.put([("good", 1, 0.0), ("bad", 2, 0.0)])
    memo._db.execute("UPDATE answers SET value = '{' WHERE value = '2'")
    assert memo.get(["good", "bad"]) == [Answer(1, 0.0), None]


def test_a_file_that_is_no_memo_is_named(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_text("not a database, certainly not one of SQLite's")
    with pytest.raises(OutputError, match="answers.sqlite"):
        Memo(path, "")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match="another output folder"):
        Memo(tmp_path / "none" / "answers.sqlite", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="another output folder"):
        Memo(tmp_path / "answers.sqlite", "")


def test_a_file_that_cannot_be_written_to_any_more_is_named(tmp_path):
    path = tmp_path / "answers.sqlite"
    memo = Memo(path, "")
    memo._db.execute("PRAGMA query_only = ON")
    with pytest.raises(OutputError, match="disk full"):
        memo.put([("key", 1, 0.0)])
    memo.close()


def test_a_locked_file_is_an_error_and_not_a_wrong_answer(tmp_path):
    path = tmp_path / "answers.sqlite"
    memo = Memo(path, "")
    memo._db.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OutputError):
        memo.put([("key", 1, 0.0)])
    other.rollback()
    other.close()
    memo.close()


def test_forget_takes_the_answers_only(tmp_path):
    for name in (ANSWERS, f"{ANSWERS}-journal", f"{ANSWERS}.bak", "results.json"):
        (tmp_path / name).touch()
    forget(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{ANSWERS}.bak", "results.json"]
    forget(tmp_path / "missing")
