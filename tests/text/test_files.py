from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.text.files import ending, read_lines, read_records

PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r\ufeff"), max_size=20), max_size=5)


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", PACKERS)
def test_files_are_read_compressed_or_not(tmp_path, packed):
    path = written(tmp_path, f"a.TXT{packed}", PACKERS[packed]("Erste Zeile\nzwölfte\n".encode()))
    assert list(read_lines(path)) == ["Erste Zeile", "zwölfte"]
    assert ending(path) == ".txt"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, end=st.sampled_from(["\n", "\r\n"]), begin=st.sampled_from(["", "\ufeff"]))
def test_lines_come_back_whatever_their_ends(tmp_path, lines, end, begin):
    path = written(tmp_path, "a.txt", (begin + "".join(line + end for line in lines)).encode())
    if not lines and begin:
        assert list(read_lines(path)) == [""]
    else:
        assert list(read_lines(path)) == lines


@pytest.mark.parametrize("packed", PACKERS)
def test_the_first_wrong_byte_is_named(tmp_path, packed):
    data = "fine\nalso fine é\n".encode() + "caf\xe9\n".encode("latin-1")
    path = written(tmp_path, f"a.txt{packed}", PACKERS[packed](data))
    with pytest.raises(TaskError, match=rf"a\.txt{packed} is not UTF-8: byte 21 .* 0xe9.*iconv"):
        list(read_lines(path))


@pytest.mark.parametrize(("encoding", "byte"), [("utf-16", 0), ("utf-16-le", 1), ("utf-32-be", 0)])
def test_wide_encodings_are_told_apart(tmp_path, encoding, byte):
    path = written(tmp_path, "a.txt", "The river".encode(encoding))
    with pytest.raises(TaskError, match=f"byte {byte} "):
        list(read_lines(path))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt.gz", b"no gzip"),
        ("a.txt.gz", gzip.compress(b"The river " * 99, mtime=0)[:-9]),
        ("a.txt.bz2", b"no bzip2"),
        ("a.txt.xz", b"no xz"),
    ],
)
def test_a_broken_archive_is_named(tmp_path, name, data):
    with pytest.raises(TaskError, match=f"cannot read .*{name}"):
        list(read_lines(written(tmp_path, name, data)))


def test_a_missing_file_and_a_folder_are_no_files(tmp_path):
    with pytest.raises(TaskError, match=r"missing\.txt: No such file"):
        list(read_lines(tmp_path / "missing.txt"))
    with pytest.raises(TaskError, match="cannot read"):
        list(read_lines(tmp_path))


def test_records_come_with_the_numbers_of_their_lines(tmp_path):
    path = written(tmp_path, "a.jsonl", b'\n{"a": 1}\n  \n{"a": "\xc3\xa9"}')
    assert list(read_records(path)) == [(2, {"a": 1}), (4, {"a": "é"})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', "not JSON .*one object a line"),
        (b'{"a": 1} {"a": 2}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    path = written(tmp_path, "a.jsonl", b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(TaskError, match=rf"a\.jsonl, line 2: {message}"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("name", "expected"), [("a.b.txt", ".txt"), ("a.json.gz", ".json"), ("a.gz", ""), ("a", ""), ("a.GZ.md", ".md")]
)
def test_the_ending_is_that_of_what_is_packed(name, expected):
    assert ending(Path(name)) == expected
