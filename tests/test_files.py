"""Tests of idp.files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import OutputError
from idp.files import (
    atomic_folder,
    atomic_write_bytes,
    atomic_write_text,
    atomic_writer,
    json_text,
    require_free,
    sha256_of,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_bytes_are_written_and_folders_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.bin"
    atomic_write_bytes(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"


def test_text_is_utf8_with_line_ends_as_given(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "t", "é\r\nx\n")
    assert (tmp_path / "t").read_bytes() == "é\r\nx\n".encode()


def test_an_existing_file_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    for content in (b"first", b"2"):
        atomic_write_bytes(str(tmp_path / "file"), content)
    assert (tmp_path / "file").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*file: No space left on device\. Choose a folder"):
        atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_leaves_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_written_bit_by_bit_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a" / "file"
    with atomic_writer(target) as stream:
        stream.write(b"first ")
        assert not target.exists()
        stream.write(b"second")
    assert target.read_bytes() == b"first second"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
def test_what_fails_while_it_is_written_never_appears(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(type(error)), atomic_writer(tmp_path / "file") as stream:
        stream.write(b"half of the new")
        raise error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        atomic_write_text(tmp_path / "file" / "below", "x")


def test_a_folder_where_the_file_should_be_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot write"):
        atomic_write_text(tmp_path / "taken", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            atomic_write_text(tmp_path / "file", "x")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    atomic_write_text(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@given(JSON)
def test_json_text_can_be_read_back(value: Any) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert text.endswith("\n")


def test_json_text_does_not_depend_on_the_order_of_keys() -> None:
    assert json_text({"a": 1, "b": {"c": 2, "d": 3}}) == json_text({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_text_refuses_what_json_has_no_word_for(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"x": value})


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_sha256_of_a_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"x" * size).hexdigest()


def test_a_folder_is_there_when_it_is_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a" / "out") as draft:
        (draft / "inner").mkdir()
        (draft / "inner" / "part").write_text("1")
        assert not (tmp_path / "a" / "out").exists()
    assert (tmp_path / "a" / "out" / "inner" / "part").read_text() == "1"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path: Path, error: BaseException, overwrite: bool) -> None:
    if overwrite:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(type(error)), atomic_folder(tmp_path / "out", overwrite=overwrite) as draft:
        (draft / "part").write_text("half")
        raise error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_while_a_folder_is_filled_is_an_output_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write .*out: No space left on device\. Choose"),
        atomic_folder(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(OutputError, match=r"out exists already.*--overwrite"), atomic_folder(tmp_path / "out"):
        pytest.fail("nothing may be written")
    assert (tmp_path / "out" / "old").read_text() == "old"
    with atomic_folder(tmp_path / "out", overwrite=True) as draft:
        (draft / "new").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    rename, calls = os.replace, []

    def fails_the_second_time(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_the_second_time)
    with pytest.raises(OutputError, match="Input/output error"), atomic_folder(tmp_path / "out", overwrite=True):
        pass
    assert len(calls) == 3
    assert (tmp_path / "out" / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as draft:
        (draft / "part").write_text("1")
    assert (tmp_path / "out" / "part").exists()


def test_of_a_link_the_folder_behind_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_folder(tmp_path / "link", overwrite=True) as draft:
        (draft / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["new"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="Not a directory"), atomic_folder(tmp_path / place, overwrite=True):
        pytest.fail("nothing may be written")
    assert (tmp_path / "file").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_in_a_read_only_one_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match="Permission denied"), atomic_folder(tmp_path / "out"):
            pytest.fail("nothing may be written")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(OutputError, match="Permission denied"), atomic_folder(tmp_path / "out"):
        pytest.fail("nothing may be written")


def test_a_file_that_is_there_is_in_the_way(tmp_path: Path) -> None:
    require_free(tmp_path / "file")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file exists already"):
        require_free(tmp_path / "file")
    require_free(tmp_path / "file", overwrite=True)
