from __future__ import annotations

import gzip
import json

import pytest

from idp.errors import TaskError
from idp.text.documents import read_documents


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
