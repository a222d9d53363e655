"""What the prompts of a bank were started from, kept beside them.

The provenance of a tuned prompt names its init. It is a prompt of the same bank (parts start from a static prompt), or
one of the bank in the folder `init` inside: there it is no arm that a selector could choose.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from idp.bank.bank import PromptBank
from idp.bank.find import FoundPrompt
from idp.bank.prompt import Prompt
from idp.bank.storage import INIT, bank_path, holds_bank
from idp.errors import BankError

__all__ = ["init_of", "save_with_inits"]


def save_with_inits(bank: PromptBank, inits: Sequence[Prompt], directory: str | os.PathLike[str]) -> Path:
    """Save a bank, and in its folder `init` the prompts that its prompts were started from.

    Args:
        bank: the bank; the provenance of each of its soft prompts has the name of its init under `init`.
        inits: those that are not prompts of the bank itself.
        directory: as for `PromptBank.save`.

    Returns:
        The folder of the bank.

    Raises:
        BankError: an init that is neither in the bank nor among `inits`; or as `PromptBank.save` does.
        OutputError: the folder cannot be written to.

    Example:
        >>> save_with_inits(bank, [Prompt("rows", embedding=start)], "my-bank")  # doctest: +SKIP
    """
    kept = {prompt.name for prompt in inits}
    for prompt in bank:
        name = prompt.provenance.get(INIT)
        if prompt.kind == "soft" and name not in kept and not _within(bank, prompt, name):
            raise BankError(
                f"the init of prompt {prompt.name!r}, {name!r}, is not there to be kept: add it to the inits."
            )
    if inits:  # before the bank: whoever finds it finds its inits
        PromptBank(inits, bank.fingerprint).save(Path(directory) / INIT)
    return bank.save(directory)


def init_of(found: FoundPrompt) -> FoundPrompt:
    """Find the prompt that a tuned prompt was started from.

    Raises:
        BankError: the prompt does not say what it was started from, or that was not kept.
    """
    name = found.prompt.provenance.get(INIT)
    if not isinstance(name, str):
        raise BankError(f"the provenance of {found.address} does not say what it was started from: name the init.")
    folder = _folder(found.path) / INIT
    if holds_bank(folder) and name in (inits := PromptBank.load(folder)).names:
        return FoundPrompt(f"{found.path}/{INIT}:{name}", inits[name], inits, str(folder))
    if _within(found.bank, found.prompt, name):
        return FoundPrompt(f"{found.path}:{name}", found.bank[name], found.bank, found.path)
    raise BankError(
        f"{found.address} was started from {name!r}, which is kept neither in its bank nor in the folder {INIT} "
        "inside: name the init."
    )


def _within(bank: PromptBank, prompt: Prompt, name: object) -> bool:
    """Whether the init is another prompt of the same bank."""
    return name in bank.names and name != prompt.name


def _folder(path: str) -> Path:
    found = bank_path(path)
    return found if found.is_dir() else found.parent
