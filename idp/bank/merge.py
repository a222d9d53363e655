"""One bank of the prompts of several."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from idp.bank.agreement import mismatch
from idp.bank.bank import PromptBank
from idp.bank.fingerprint import Fingerprint
from idp.bank.prompt import Prompt
from idp.bank.storage import INIT
from idp.bank.vectors import is_vector
from idp.errors import BankError

__all__ = ["merge_banks"]

_LOG = logging.getLogger(__name__)


def merge_banks(banks: Mapping[str, PromptBank], *, prefix: bool = False, allow_mismatch: bool = False) -> PromptBank:
    """Put the prompts of several banks into one, in their order.

    A prompt whose content is there already is left out. Prompts of one name become `bank/name`. Fitted selectors are
    left out, because they know nothing of the other banks' prompts; a warning says so.

    Args:
        banks: what each is called, and the bank.
        prefix: call every prompt `bank/name`.
        allow_mismatch: merge banks of different models, and say that the result is for the first one's.

    Returns:
        The bank; for any model where all prompts are texts.

    Raises:
        BankError: soft prompts of different models or widths; vectors among prompts; a new name that is taken.

    Example:
        >>> polite, brief = (PromptBank([Prompt("it", text=f"Be {word}. ")]) for word in ("polite", "brief"))
        >>> merge_banks({"polite": polite, "brief": brief}).names
        ('polite/it', 'brief/it')
    """
    model = _model(banks, allow_mismatch)
    kept = _without_duplicates(banks)
    _check_kinds(kept)
    names = _names(kept, prefix)
    prompts = [
        replace(prompt, name=names[digest], provenance=_provenance(prompt, banks[label], names))
        for digest, (label, prompt) in kept.items()
    ]
    if fitted := [label for label, bank in banks.items() if bank.selectors]:
        _LOG.warning("the fitted selectors of %s are left out: fit them again on the new bank.", ", ".join(fitted))
    return PromptBank(prompts, model, provenance={"merged": {label: dict(b.provenance) for label, b in banks.items()}})


def _model(banks: Mapping[str, PromptBank], allow_mismatch: bool) -> Fingerprint | None:
    """The model of the soft prompts; texts fit any."""
    known = [
        (label, bank.fingerprint)
        for label, bank in banks.items()
        if bank.fingerprint is not None and any(prompt.kind == "soft" for prompt in bank)
    ]
    for label, other in known[1:]:
        if other == known[0][1]:
            continue
        message = mismatch(*known[0], label, other)
        if not allow_mismatch:
            raise BankError(f"{message} Merge banks of one model, or --allow-mismatch to study transfer.")
        _LOG.warning("%s The new bank is for the first, as asked.", message)
    return known[0][1] if known else None


Kept = dict[str, tuple[str, Prompt]]
"""From digests to banks and prompts."""


def _without_duplicates(banks: Mapping[str, PromptBank]) -> Kept:
    kept: Kept = {}
    again: list[str] = []
    for label, bank in banks.items():
        for prompt in bank:
            first, same = kept.setdefault(prompt.digest, (label, prompt))
            if label != first or same is not prompt:
                again.append(f"{label}:{prompt.name} (the same as {first}:{same.name})")
    if again:
        _LOG.warning("left out because they are there already: %s.", ", ".join(again))
    return kept


def _check_kinds(kept: Kept) -> None:
    first = {is_vector(prompt): f"{label}:{prompt.name}" for label, prompt in reversed(kept.values())}
    if len(first) > 1:
        raise BankError(
            f"{first[True]} is a vector and {first[False]} a prompt: a selector would take the one for the other. "
            "Apply vectors first (idp bank vector apply)."
        )


def _names(kept: Kept, prefix: bool) -> dict[str, str]:
    """New names by digest."""
    times = Counter(prompt.name for _, prompt in kept.values())
    names = {
        digest: f"{label}/{prompt.name}" if prefix or times[prompt.name] > 1 else prompt.name
        for digest, (label, prompt) in kept.items()
    }
    (name, count), *_ = Counter(names.values()).most_common(1)
    if count > 1:
        raise BankError(f"two prompts of the new bank would be called {name!r}: give --prefix, or rename a bank.")
    return names


def _provenance(prompt: Prompt, bank: PromptBank, names: Mapping[str, str]) -> dict[str, Any]:
    """A prompt's own, with the new name of its init if that is of the same bank."""
    init = prompt.provenance.get(INIT)
    if init not in bank.names:
        return dict(prompt.provenance)
    return {**prompt.provenance, INIT: names[bank[init].digest]}
