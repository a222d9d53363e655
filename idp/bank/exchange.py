"""Prompts from elsewhere: adapters of PEFT and text in YAML, put together to one bank."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from idp.bank.bank import PromptBank
from idp.bank.fingerprint import Fingerprint
from idp.bank.peft import adapter_folders, load_peft
from idp.bank.prompt import Prompt
from idp.bank.storage import holds_bank, holds_text
from idp.bank.text import load_text_prompts
from idp.errors import BankError

__all__ = ["import_bank", "read_prompts"]


def import_bank(
    sources: Sequence[str | os.PathLike[str]], *, names: Sequence[str] = (), fingerprint: Fingerprint | None = None
) -> PromptBank:
    """Make a bank of prompts from elsewhere.

    Args:
        sources: each as `read_prompts` takes it, in the order the prompts shall have.
        names: what to call the prompts, one for each; none keeps the names they have.
        fingerprint: the model they are for; the bank then belongs to it.

    Returns:
        The bank, not saved yet, with the names of the sources as provenance.

    Raises:
        BankError: a source that cannot be read, a prompt of another width, two prompts of one name, or more or fewer
            names than prompts.

    Example:
        >>> import_bank(["my-adapter", "mine.yaml"], fingerprint=lm.fingerprint).save("my-bank")  # doctest: +SKIP
    """
    prompts = [prompt for source in sources for prompt in read_prompts(source, fingerprint)]
    called = [prompt.name for prompt in prompts]
    if names and len(names) != len(prompts):
        raise BankError(f"{len(names)} names for {len(prompts)} prompts ({', '.join(called)}): give one for each.")
    if not names and (twice := sorted({name for name in called if called.count(name) > 1})):
        raise BankError(f"two prompts are called {twice[0]!r}: give all {len(prompts)} names of your own (--name).")
    named = [replace(prompt, name=name) for prompt, name in zip(prompts, names or called, strict=True)]
    return PromptBank(named, fingerprint, provenance={"imported": [Path(source).resolve().name for source in sources]})


def read_prompts(source: str | os.PathLike[str], fingerprint: Fingerprint | None = None) -> list[Prompt]:
    """Read the prompts of an adapter of PEFT, of a folder of adapters, or of text prompts in YAML.

    Args:
        source: a folder with `adapter_config.json`, one with such sub-folders, a `.yaml` file, or a folder of them.
        fingerprint: the model that soft prompts have to fit in width.

    Returns:
        The prompts; those of sub-folders in the order of the folders' names.

    Raises:
        BankError: it is none of these, or broken; the message says which file and what is wrong with it.

    Example:
        >>> [prompt.name for prompt in read_prompts("my-adapters")]  # doctest: +SKIP
        ['part-0', 'part-1']
    """
    path = Path(source)
    if not path.exists():
        raise BankError(f"there is nothing at {path}. Is the path right?")
    if holds_bank(path):
        raise BankError(f"{path} is a bank already, and needs no import.")
    if folders := adapter_folders(path):
        return [load_peft(folder, fingerprint=fingerprint) for folder in folders]
    if holds_text(path):
        return load_text_prompts(path)
    raise BankError(f"{path} is neither a PEFT adapter (a folder with adapter_config.json) nor text prompts in YAML.")
