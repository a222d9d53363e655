"""Files that give models short names: the one of this package, and the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idp.errors import ModelError, suggest
from idp.files import read_yaml
from idp.model.places import Place, is_path, place_of
from idp.model.spec import ModelSpec
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
}
"""The fields of an entry."""

_ALWAYS_OURS = set(_KINDS) - {"dtype", "recipe"}


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
    place = _made_place(name) if entry.get("recipe") else _locate(path, entry["source"])
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
        if value is not None and not isinstance(value, _KINDS[key]):
            wanted = "true or false" if _KINDS[key] is bool else "a text"
            raise ModelError(f"{where}: {key} has to be {wanted}, not {value!r}.")


def _made_place(name: str) -> Place:
    """The folder that a model of a recipe is made into."""
    return Place(str(cache_dir() / "models" / name))


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
