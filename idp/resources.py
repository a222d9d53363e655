"""Where the package's data lies: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from idp.errors import IdpError

__all__ = ["eval_dir", "prompt_bank_dir"]

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
