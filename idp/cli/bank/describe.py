"""What the commands say about a bank and its prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt


def kind(prompt: Prompt) -> str:
    """What a prompt is: soft, vector, or what a text tries (domain, instruction ...)."""
    from idp.bank.vectors import is_vector

    return "vector" if is_vector(prompt) else str(prompt.provenance.get("kind", prompt.kind))


def num_virtual_tokens(prompt: Prompt) -> int | None:
    """The length of a soft prompt; that of a text depends on the tokenizer."""
    return None if prompt.shape is None else prompt.shape[0]


def fingerprint(bank: PromptBank) -> dict[str, str | int] | None:
    """The model of a bank as JSON values."""
    return None if bank.fingerprint is None else bank.fingerprint.to_dict()
