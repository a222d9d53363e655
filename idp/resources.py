"""Where data lies: the package's own beside it or, in a wheel, inside it, and the user's."""

from __future__ import annotations

import os
from pathlib import Path

from idp.errors import IdpError

__all__ = ["cache_dir", "config_dir", "eval_dir", "prompt_bank_dir"]

_PACKAGE = Path(__file__).resolve().parent


def prompt_bank_dir() -> Path:
    """Return the folder of the curated prompts (`text/`) and of the tuned banks (`tuned/`).

    Raises:
        IdpError: the folder is missing, so the installation is broken.
    """
    return _find("prompt_bank")


def eval_dir() -> Path:
    """Return the folder of the evaluation tasks (`tasks/`) and suites.

    Raises:
        IdpError: the folder is missing, so the installation is broken.
    """
    return _find("eval")


def cache_dir() -> Path:
    """Return the folder of what can be made again: fitted selectors, compressed models.

    It is the environment's `IDP_CACHE`, else where the system keeps such things (`~/.cache/idp` on Linux).
    """
    return _users("IDP_CACHE", "cache")


def config_dir() -> Path:
    """Return the folder of a user's own settings.

    It is the environment's `IDP_CONFIG`, else where the system keeps settings (`~/.config/idp` on Linux).
    """
    return _users("IDP_CONFIG", "config")


def _users(variable: str, kind: str) -> Path:
    from platformdirs import user_cache_path, user_config_path

    if given := os.environ.get(variable):
        return Path(given).expanduser().absolute()  # a relative one would look like a hub id
    return (user_cache_path if kind == "cache" else user_config_path)("idp", appauthor=False)


def _find(name: str, package: Path = _PACKAGE) -> Path:
    # The wheel's copy comes first: beside an installed package lie other packages, whose `eval` is not ours.
    candidates = [package / "_data" / name]
    if (package.parent / "pyproject.toml").is_file():
        candidates.append(package.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise IdpError(f"the data folder {name!r} is missing (looked for {tried}). Install idp again.")
