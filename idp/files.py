"""Files and folders that are written whole or not at all, and checksums of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock, Timeout

from idp.errors import IdpError, OutputError, brief

__all__ = [
    "atomic_folder",
    "atomic_write_bytes",
    "atomic_write_text",
    "atomic_writer",
    "file_name",
    "finite",
    "json_text",
    "only_process",
    "public_name",
    "read_yaml",
    "require_free",
    "sha256_of",
]

_CHUNK = 1 << 20


def public_name(source: str) -> str:
    """What to call a model or bank in what others read: of a folder of this machine only its last part.

    Example:
        >>> public_name("org/model-4bit")
        'org/model-4bit'
    """
    return Path(source).name if Path(source).exists() else source


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    The bytes go to a temporary file in the same folder, reach the disk, and then replace `path` in one step.
    Missing parent folders are made.

    Args:
        path: the file to write.
        data: its whole content.

    Raises:
        OutputError: the folder is read-only, is not a folder, or the disk is full. An existing file is left as it was.
    """
    try:
        with atomic_writer(path) as stream:
            stream.write(data)
    except OSError as error:
        raise OutputError(_explain(Path(path), error)) from error


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with the guarantees of `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that appears at `path`, or replaces what is there, when the block ends without an error.

    What is written reaches the disk first. If the block fails, nothing is left behind.

    Args:
        path: the file to write; missing parent folders are made.

    Yields:
        What to write the bytes to.

    Raises:
        OSError: the folder is read-only, is not a folder, or the disk is full.

    Example:
        >>> with atomic_writer("large.bin") as stream:  # doctest: +SKIP
        ...     shutil.copyfileobj(source, stream)
    """
    target = Path(path)
    # Made by `open` itself rather than by `tempfile`, so that the file gets the permissions of any other new file.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):  # gone already when all went well
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Fill a folder so that a reader sees all of it or nothing.

    What the `with` block writes goes to a temporary folder beside `path`, reaches the disk, and is then renamed. If
    the block fails, nothing is left behind. A folder that is replaced is absent for the moment between two renames.

    Args:
        path: the folder to make; missing parents are made, and an empty folder is taken.
        overwrite: replace the folder that is there and all that is in it: the caller has to know that it may go.

    Yields:
        The temporary folder, empty.

    Raises:
        OutputError: something is there that may not be replaced, or the folder cannot be written to. What was there
            is left as it was.

    Example:
        >>> with atomic_folder("out") as folder:  # doctest: +SKIP
        ...     (folder / "part").write_text("one of several files")
    """
    require_free(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))  # of a link, what it points to is replaced
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        temporary.mkdir(parents=True)
        yield temporary
        _flush(temporary)
        require_free(target, overwrite=overwrite)  # somebody else may have been quicker
        _put_in_place(temporary, target)
    except OSError as error:
        raise OutputError(_explain(Path(path), error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already when all went well


@contextlib.contextmanager
def only_process(folder: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Be the only process that makes a folder; wait for one that does.

    Args:
        folder: the folder; its parents are made.
        waiting: called before this process waits for another one.

    Raises:
        OutputError: something cannot be written, here or in the block.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting()
            lock.acquire()
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder.parent}: {error.strerror or brief(error)}. Make room there, or set IDP_CACHE to "
            "a folder that can be written to and has free space."
        ) from error
    finally:
        lock.release()  # the file stays: who deletes it may delete somebody else's


def require_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse to write where something is; an empty folder is nothing.

    Args:
        path: the file or folder that would be written.
        overwrite: let it pass all the same.

    Raises:
        OutputError: something is there.
    """
    target = Path(path)
    if overwrite and target.is_dir() and Path.cwd().is_relative_to(target.resolve()):
        raise OutputError(f"{target} holds the folder you are in, which will not be replaced: choose another place.")
    try:
        above = next(parent for parent in target.absolute().parents if parent.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if overwrite or not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
    except OSError as error:
        raise OutputError(_explain(target, error)) from error
    raise OutputError(f"{target} exists already: choose another place, or allow it to be overwritten (--overwrite).")


def _flush(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb+") as stream:
                os.fsync(stream.fileno())


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`; what was there is deleted only when the new one stands."""
    if not target.exists():
        os.replace(folder, target)
        return
    former = folder.with_suffix(".old")
    os.replace(target, former)
    try:
        os.replace(folder, target)
    except BaseException:
        os.replace(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def json_text(value: Any) -> str:
    """Return `value` as JSON with sorted keys, two spaces of indent and a final newline: same value, same bytes.

    Raises:
        TypeError: `value` holds something JSON has no form for.
        ValueError: `value` holds a NaN or an infinity, which JSON cannot express.

    Example:
        >>> json_text({"b": 1, "a": 2}).splitlines()
        ['{', '  "a": 2,', '  "b": 1', '}']
    """
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits, reading a megabyte at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def finite(value: Any) -> Any:
    """Return JSON values with None in place of what is no finite number, which JSON cannot express.

    Example:
        >>> finite({"a": [1.0, float("inf")]})
        {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _explain(target: Path, error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"cannot write {target}: {reason}. Choose a folder that can be written to and has free space."


def file_name(name: str) -> str:
    """Make a name that is safe as that of a file or folder.

    Example:
        >>> file_name("org/model-4bit"), file_name("..")
        ('org-model-4bit', 'model')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def read_yaml(path: str | os.PathLike[str], error: type[IdpError]) -> Any:
    """Read a YAML file; what cannot be read is an `error` that names the file."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"cannot read {path}: {problem}.") from problem
    except yaml.YAMLError as problem:
        raise error(f"{path} is not YAML: {' '.join(str(problem).split())}.") from problem
