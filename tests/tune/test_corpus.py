from __future__ import annotations

import copy
import gzip
import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.model.loaded import LanguageModel
from idp.tune.corpus import pack, read_documents

TEXTS = ["The river runs past the old mill.", "Nobody ever locked a door in the small town by the sea.", "Yes."]


def records(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    """A corpus of five documents, and things that are none of it."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.md").write_text("# Third\n\nbegins here\n")
    (tmp_path / "a.txt").write_text("first\nof two lines\n<|endoftext|>\n \n<|endoftext|>\nsecond\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(records({"text": "fourth"}, {"text": "fifth"}).encode()))
    (tmp_path / "d.parquet").write_bytes(b"\xff\xff")
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_paths(folder):
    documents = list(read_documents(str(folder)))
    assert documents == ["first\nof two lines", "second", "# Third\n\nbegins here", "fourth", "fifth"]


def test_a_limit_ends_the_reading(folder):
    (folder / "e.txt").write_bytes(b"\xff")
    assert list(read_documents(str(folder), limit=2)) == ["first\nof two lines", "second"]
    with pytest.raises(TaskError, match=r"e\.txt is not UTF-8: byte 0"):
        list(read_documents(str(folder)))
    with pytest.raises(TaskError, match="cannot read 0 documents"):
        read_documents(str(folder), limit=0)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json-lines", "a.json"])
def test_the_field_of_records_is_chosen(tmp_path, name):
    (tmp_path / name).write_text(records({"body": "one", "text": "no"}, {"body": ""}, {"body": "two"}))
    assert list(read_documents(str(tmp_path / name), field="body")) == ["one", "two"]


@pytest.mark.parametrize("row", [{"texts": "one"}, {"text": None}, {"text": 3}])
def test_a_record_without_text_is_named(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(records({"text": "one"}, row))
    with pytest.raises(TaskError, match=rf"a\.jsonl, line 2: no text in a field 'text'.*Known: {next(iter(row))}"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("text", ["", "\n \n", "<|endoftext|>\n"])
def test_a_source_without_text_is_refused(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(TaskError, match=r"a\.txt holds no text"):
        list(read_documents(str(path)))


def test_what_cannot_be_text_is_refused_at_once(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    for path in (tmp_path, tmp_path / "a.parquet"):
        with pytest.raises(TaskError, match=r"no text that can be read.*\.jsonl"):
            read_documents(str(path))


@pytest.mark.parametrize("source", ["missing.txt", "missing.jsonl.gz", "../missing", "/no/such/folder", "a b", "", " "])
def test_a_missing_path_is_not_looked_for_elsewhere(monkeypatch, source):
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: pytest.fail("asked the hub"))
    with pytest.raises(TaskError, match="there is no file or folder"):
        read_documents(source)


def test_an_unknown_data_set_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError) as raised:
        read_documents("nobody/nothing:small", split="train")
    message = str(raised.value)
    assert "no file or folder 'nobody/nothing:small'" in message and "'train'" in message
    assert "Hugging Face" in message and "\n" not in message


def test_a_data_set_is_streamed_without_its_code(monkeypatch):
    asked = {}

    def load(name, config, **options):
        asked.update(options, name=name, config=config)
        return iter([{"body": "one"}, {"body": " "}, {"body": "two"}, pytest.fail])

    monkeypatch.setattr("datasets.load_dataset", load)
    assert list(read_documents("some/set:en", field="body", split="validation", limit=2)) == ["one", "two"]
    assert asked == {
        "name": "some/set",
        "config": "en",
        "split": "validation",
        "streaming": True,
        "trust_remote_code": False,
    }


def test_a_data_set_that_breaks_off_or_has_other_fields_is_named(monkeypatch):
    def rows():
        yield {"text": "one"}
        raise ConnectionError("reset\nby peer")

    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: rows())
    with pytest.raises(TaskError, match="data set some-set cannot be read on: reset by peer"):
        list(read_documents("some-set"))
    with pytest.raises(TaskError, match="data set some-set, row 0: no text in a field 'body'.*Known: text"):
        list(read_documents("some-set", field="body"))


def joined(lm, documents):
    """All tokens of the documents, the end token between them."""
    rows = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents]
    return [token for row in rows for token in (lm.eos_token_id, *row)][1:]


def test_rows_are_the_joined_documents_cut_at_equal_lengths(tiny_lm):
    lm = tiny_lm()
    stream = joined(lm, TEXTS)
    rows = pack(lm, iter(TEXTS), 8)
    assert len(rows) == len(stream) // 8 > 2
    assert [token for row in rows for token in (*row.context, *row.right)] == stream[: 8 * len(rows)]
    assert all(row.is_text and len(row.context) == 1 and len(row.right) == 7 for row in rows)
    assert {row.group for row in pack(lm, TEXTS, 8, group="c4")} == {"c4"}


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
    found = pack(lm, texts, length, rows=rows)
    whole = max(1, len(stream) // length)
    assert len(found) == (whole if rows is None else min(rows, whole))
    assert [token for row in found for token in (*row.context, *row.right)] == stream[: len(found) * length]


def test_no_more_documents_are_read_than_the_rows_need(tiny_lm):
    def documents():
        yield TEXTS[1]
        pytest.fail("read on")

    assert len(pack(tiny_lm(), documents(), 5, rows=2)) == 2


def test_too_little_text_for_the_rows_is_said(tiny_lm, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(pack(tiny_lm(), ["The river"], 2, rows=50)) < 50
    assert "not 50" in caplog.text


def test_without_an_end_token_an_empty_line_stands_between(tiny_lm):
    tokenizer = copy.deepcopy(tiny_lm().tokenizer)
    tokenizer.eos_token = None
    lm = LanguageModel(tiny_lm().model, tokenizer, "endless")
    (row,) = pack(lm, ["Yes", "No"], 200)
    assert tokenizer.decode([*row.context, *row.right]) == "Yes\n\nNo"


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_less_than_two_tokens_predict_nothing(tiny_lm, texts):
    with pytest.raises(TaskError, match="less than two tokens"):
        pack(tiny_lm(), texts, 8)


@pytest.mark.parametrize("length", [0, 1, 257])
def test_rows_of_impossible_length_are_refused(tiny_lm, length):
    with pytest.raises(TaskError, match=f"rows of {length} tokens.*2 to 256"):
        pack(tiny_lm(), TEXTS, length)
    with pytest.raises(TaskError, match="0 rows"):
        pack(tiny_lm(), TEXTS, 8, rows=0)
