"""Files that give models short names: the one of this package, and the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idp.errors import ModelError, suggest
from idp.files import read_yaml
from idp.model.places import Place, hub_file, is_path, place_of
from idp.model.spec import ModelSpec, PackageFile
from idp.resources import cache_dir, config_dir, prompt_bank_dir

__all__ = ["own_aliases", "read_aliases", "user_aliases", "user_file"]

OWN_FILE = Path(__file__).with_name("aliases.yaml")

_PACKAGE = Path(__file__).resolve().parent.parent
_IN_PACKAGE = "package:"
_KINDS = {
    "source": str,
    "compression": str,
    "dense": str,
    "bank": str,
    "verified": bool,
    "note": str,
    "dtype": str,
    "recipe": str,
    "sha256": str,
    "wheel_sha256": str,
    "wheel_bytes": int,
    "hub": str,
}
"""The fields of an entry."""

_HASHES = ("sha256", "wheel_sha256")
_OF_PACKAGES = (*_HASHES, "wheel_bytes", "hub")
_ALWAYS_OURS = set(_KINDS) - {"dtype", "recipe", *_OF_PACKAGES}
_WORDS = {bool: "true or false", int: "a whole number", str: "a text"}

_ON_INDEX = "pypi:"
_PIECE = r"[A-Za-z0-9_][\w.+-]*"  # of a path: neither `..` nor hidden
_PYPI = re.compile(rf"{_ON_INDEX}([A-Za-z0-9][\w.-]*==[\w.!+-]+)/((?:{_PIECE}/)*{_PIECE}\.gguf)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def own_aliases() -> dict[str, ModelSpec]:
    """Read the aliases that come with this package, in the order of the file."""
    return read_aliases(OWN_FILE)


def user_file() -> Path:
    """Where a user's own aliases are looked for: `models.yaml` in the folder of configuration."""
    return config_dir() / "models.yaml"


def user_aliases() -> dict[str, ModelSpec]:
    """Read a user's own aliases, none where there is no file.

    Raises:
        ModelError: the file is broken.
    """
    return read_aliases(user_file()) if user_file().exists() else {}


def read_aliases(path: Path) -> dict[str, ModelSpec]:
    """Read a file of aliases.

    In the package's own file every entry says everything; in any other `source`, or `dense` and `recipe`, is enough.

    Raises:
        ModelError: the file is not YAML, or an entry lacks a field, has an unknown one or one of the wrong kind.
    """
    content = read_yaml(path, ModelError)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ModelError(f"{path} must map names to models.")
    return {str(name): _spec(path, str(name), entry) for name, entry in content.items()}


def _spec(path: Path, name: str, entry: Any) -> ModelSpec:
    _check(path, name, entry)
    package = _package_file(f"{path}: the entry {name!r}", entry)
    place = _place(path, name, entry, package)
    if place is None:
        raise ModelError(f"{path}: the entry {name!r} has a source that is no path or hub id: {entry['source']!r}.")
    return ModelSpec(
        name=name,
        source=place.source,
        compression=entry.get("compression") or entry.get("recipe") or "",
        dense=_dense(path, entry.get("dense")),
        bank=_bank(path, entry.get("bank")),
        verified=entry.get("verified", False),
        note=entry.get("note") or "",
        dtype=entry.get("dtype") or "auto",
        recipe=entry.get("recipe"),
        gguf=place.gguf,
        package=package,
        origin=str(path),
    )


def _check(path: Path, name: str, entry: Any) -> None:
    """Refuse an entry that cannot be meant."""
    where = f"{path}: the entry {name!r}"
    if "/" in name or is_path(name):
        raise ModelError(f"{where} has a name that reads as a path or a hub id; use one without '/'.")
    if not isinstance(entry, dict):
        raise ModelError(f"{where} must be a mapping with a field source.")
    if unknown := [str(key) for key in entry if key not in _KINDS]:
        raise ModelError(f"{where} has an unknown field {unknown[0]!r}. {suggest(unknown[0], _KINDS)}")
    if path == OWN_FILE and (missing := _ALWAYS_OURS - set(entry)):
        raise ModelError(f"{where} lacks the fields {', '.join(sorted(missing))}.")
    _check_kinds(where, entry)
    if (entry.get("source") is None) == (entry.get("recipe") is None):
        raise ModelError(f"{where} needs either a source, or a recipe and the dense model it starts from.")
    if entry.get("recipe") is not None and entry.get("dense") is None:
        raise ModelError(f"{where} has a recipe and no dense model to start from: give dense.")


def _check_kinds(where: str, entry: Mapping[str, Any]) -> None:
    for key, value in entry.items():
        if value is not None and type(value) is not _KINDS[key]:  # True is an int too
            raise ModelError(f"{where}: {key} has to be {_WORDS[_KINDS[key]]}, not {value!r}.")


def _place(path: Path, name: str, entry: Mapping[str, Any], package: PackageFile | None) -> Place | None:
    """Where the model is, or will be once it was made or fetched."""
    made = str(cache_dir() / "models" / name)
    if package is not None:
        return Place(made, package.name)
    return Place(made) if entry.get("recipe") else _locate(path, entry["source"])


def _package_file(where: str, entry: Mapping[str, Any]) -> PackageFile | None:
    """The file of a wheel that a source names; None for any other source."""
    source = entry.get("source") or ""
    if not source.startswith(_ON_INDEX):
        if given := [key for key in _OF_PACKAGES if entry.get(key) is not None]:
            raise ModelError(f"{where}: {given[0]} belongs to a source that begins with {_ON_INDEX}")
        return None
    found = _PYPI.fullmatch(source)
    if found is None:
        raise ModelError(f"{where}: source has to be {_ON_INDEX}NAME==VERSION/FOLDER/FILE.gguf, not {source!r}.")
    _check_package(where, entry)
    hashes = {key: entry[key].lower() for key in _HASHES}
    return PackageFile(found[1], found[2], **hashes, wheel_bytes=entry.get("wheel_bytes"), hub=entry.get("hub"))


def _check_package(where: str, entry: Mapping[str, Any]) -> None:
    """Refuse what could not be verified, or not be downloaded."""
    for key in _HASHES:
        if entry.get(key) is None:
            raise ModelError(f"{where} has a source on the package index and lacks {key}: the file could be any.")
        if not _SHA256.fullmatch(entry[key].lower()):
            raise ModelError(f"{where}: {key} has to be 64 hexadecimal digits, not {entry[key]!r}.")
    if (size := entry.get("wheel_bytes")) is not None and size < 1:
        raise ModelError(f"{where}: wheel_bytes has to be a number of bytes, not {size}.")
    if (hub := entry.get("hub")) is not None and hub_file(hub) is None:
        raise ModelError(f"{where}: hub has to be organisation/model/file.gguf, not {hub!r}.")


def _dense(path: Path, name: str | None) -> str | None:
    """The dense model; what is neither a path nor a hub id is another alias."""
    place = None if name is None else _locate(path, name)
    return name if place is None else place.path


def _locate(path: Path, source: str) -> Place | None:
    """Turn `package:FOLDER` into a path, and a path that is relative into one; leave a hub id as it is."""
    if source.startswith(_IN_PACKAGE):
        return Place(str(_PACKAGE / source.removeprefix(_IN_PACKAGE)))
    beside = path.parent / Path(source).expanduser()
    try:
        return place_of(str(beside) if path != OWN_FILE and beside.exists() else source)
    except ModelError:  # a folder that is gone is an error where the model is asked for, not for all other aliases
        return Place(str(beside))


def _bank(path: Path, bank: str | None) -> str | None:
    if bank is None:
        return None
    if path == OWN_FILE:
        return str(prompt_bank_dir() / bank)
    beside = path.parent / Path(bank).expanduser()
    return str(beside) if beside.exists() else bank  # else a bank that comes along
