"""Finding banks, and prompts by what a user writes: `BANK:prompt`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.bank.storage import INIT, bank_path, holds_bank, holds_text
from idp.errors import BankError
from idp.resources import prompt_bank_dir

__all__ = ["FoundPrompt", "banks_in", "find_prompt", "find_prompts", "shipped_banks"]


class FoundPrompt(NamedTuple):
    """A prompt and where it is.

    Attributes:
        address: `BANK:prompt`, for messages and provenance.
        prompt: the prompt, under its own name.
        bank: the bank it is in.
        path: where that is, as it was written.
    """

    address: str
    prompt: Prompt
    bank: PromptBank
    path: str


def find_prompt(address: str) -> FoundPrompt:
    """Find one prompt.

    Args:
        address: `BANK:prompt`, or `BANK` where the bank has one prompt; the bank is what `PromptBank.load` takes.

    Raises:
        BankError: no such bank or prompt, or a bank of several prompts and no name.

    Example:
        >>> find_prompt("tuned/sparse:static").prompt.embedding.shape
        torch.Size([16, 160])
    """
    found = find_prompts(address)
    if len(found) > 1:
        raise BankError(f"bank {address} has {len(found)} prompts: say which one, as in {found[0].address}.")
    return found[0]


def find_prompts(address: str) -> list[FoundPrompt]:
    """Find the prompt `BANK:prompt`, or with `BANK` alone all prompts of a bank.

    Raises:
        BankError: no such bank or prompt.
    """
    path, name = _split(address)
    bank = PromptBank.load(path)
    try:
        prompts = bank.prompts if name is None else (bank[name],)
    except BankError as error:
        raise BankError(f"{path}: {error}") from error
    return [FoundPrompt(f"{path}:{prompt.name}", prompt, bank, path) for prompt in prompts]


def _split(address: str) -> tuple[str, str | None]:
    """Part the bank from the prompt; both may hold colons, so the longest path that there is counts."""
    if bank_path(address).exists():
        return address, None
    places = [place for place, character in enumerate(address) if place and character == ":"]
    for place in reversed(places):
        if bank_path(address[:place]).exists():
            return address[:place], address[place + 1 :]
    return (address[: places[-1]], None) if places else (address, None)


def shipped_banks() -> dict[str, Path]:
    """Return the banks that come with the package, from the names they are loaded by to their folders."""
    root = prompt_bank_dir()
    found = [path for path in root.rglob("*") if holds_bank(path) or (path.is_dir() and holds_text(path))]
    folders = sorted(path for path in found if path.name != INIT)  # what prompts were started from
    return {folder.relative_to(root).as_posix(): folder for folder in folders}


def banks_in(folder: Path) -> list[Path]:
    """Return the folders with a saved bank: `folder` itself, those in it, and those that `idp bank build` made there.

    A build keeps its bank in `RUN/bank`, and makes its runs in `idp-banks` unless told otherwise.

    Raises:
        BankError: there is no such folder, or it cannot be read.
    """
    try:
        inside = [folder, *sorted(folder.iterdir())]
        made = [run / "bank" for run in (*inside, *sorted((folder / "idp-banks").glob("*")))]
        return [path for path in dict.fromkeys([*inside, *made]) if holds_bank(path)]
    except OSError as error:
        raise BankError(f"cannot look for banks in {folder}: {error.strerror}.") from error
