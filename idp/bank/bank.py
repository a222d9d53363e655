"""The bank: an ordered list of prompts, what selectors learned about them, and the model they fit."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from idp.bank.fingerprint import Fingerprint
from idp.bank.prompt import Prompt
from idp.bank.state import SelectorState
from idp.bank.vectors import require_no_vectors
from idp.errors import BankError, suggest

__all__ = ["PromptBank"]

_LOG = logging.getLogger(__name__)

_MOST_SHOWN = 40


class PromptBank:
    """An ordered, unchangeable list of prompts of one model.

    Args:
        prompts: at least one, text and soft in any mixture, with unique names and one width.
        fingerprint: the model the prompts were tuned for and the selectors fitted on; None fits any model, as a
            bank of text does.
        selectors: fitted selectors by name.
        provenance: how the bank was made, JSON values only.

    Raises:
        BankError: no prompts, a name that occurs twice, or soft prompts of different widths.

    Example:
        >>> bank = PromptBank([Prompt("polite", text="Answer politely. "), Prompt("brief", text="Be brief. ")])
        >>> len(bank), bank.names, bank["brief"].kind
        (2, ('polite', 'brief'), 'text')
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        fingerprint: Fingerprint | None = None,
        selectors: Mapping[str, SelectorState] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the prompts and index them by name."""
        self.prompts = tuple(prompts)
        self.fingerprint = fingerprint
        self.selectors: Mapping[str, SelectorState] = MappingProxyType(dict(selectors or {}))
        self.provenance: Mapping[str, Any] = MappingProxyType(dict(provenance or {}))
        self._index = {prompt.name: index for index, prompt in enumerate(self.prompts)}
        self._check()

    def _check(self) -> None:
        if not self.prompts:
            raise BankError("a bank needs at least one prompt.")
        if len(self._index) < len(self.prompts):
            twice, _ = Counter(prompt.name for prompt in self.prompts).most_common(1)[0]
            raise BankError(f"two prompts are called {twice!r}: names in a bank are unique.")
        widths = {prompt.shape[1] for prompt in self.prompts if prompt.shape is not None}
        if len(widths) > 1:
            raise BankError(f"soft prompts of different widths {sorted(widths)} cannot share a bank.")
        if self.fingerprint is not None and widths - {self.fingerprint.hidden_size}:
            raise BankError(f"soft prompts {widths.pop()} wide do not fit {self.fingerprint.describe()}.")

    def __len__(self) -> int:
        """Return the number `m` of prompts, "no prompt" not counted."""
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        """Iterate over the prompts in order."""
        return iter(self.prompts)

    def __getitem__(self, key: int | str) -> Prompt:
        """Return a prompt by position or name.

        Raises:
            BankError: no prompt has that name.
            IndexError: no prompt has that position; -1 means "no prompt" here and never the last one.
        """
        return self.prompts[self.index(key) if isinstance(key, str) else self._position(key)]

    def _position(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"prompt {index} of a bank of {len(self)} (-1 stands for no prompt at all).")
        return index

    def index(self, name: str) -> int:
        """Return the position of a prompt.

        Raises:
            BankError: no prompt has that name; near misses are named.
        """
        if name not in self._index:
            raise BankError(f"the bank has no prompt {name!r}. {suggest(name, self._index)}")
        return self._index[name]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The prompts' names, in order."""
        return tuple(self._index)

    @cached_property
    def digest(self) -> str:
        """What the prompts do to a model, in order, in 32 hexadecimal digits."""
        return hashlib.sha256("".join(prompt.digest for prompt in self).encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        """Name the prompts and the model."""
        model = "any model" if self.fingerprint is None else self.fingerprint.describe()
        shown = self.names[:_MOST_SHOWN]
        more = f" and {len(self) - len(shown)} more" if len(self) > len(shown) else ""
        return f"PromptBank({', '.join(shown)}{more}; for {model})"

    def with_selector(self, name: str, state: SelectorState, fingerprint: Fingerprint | None = None) -> PromptBank:
        """Return a bank that also keeps a fitted selector.

        Args:
            name: the selector's name; a state of that name is replaced.
            state: what `Selector.state()` returned.
            fingerprint: the model it was fitted on, for a bank that had none; the new bank then fits that model only.
        """
        selectors = {**self.selectors, name: state}
        return PromptBank(self.prompts, self.fingerprint or fingerprint, selectors, self.provenance)

    def require(self, fingerprint: Fingerprint, allow_mismatch: bool = False) -> None:
        """Check that the bank fits a model.

        Args:
            fingerprint: the model's.
            allow_mismatch: only warn, for studies of transfer between models.

        Raises:
            BankError: the bank belongs to another model; the message names both and what differs. Soft prompts of
                another width are refused in any case, and so are vectors, which are no prompts.
        """
        require_no_vectors(self)
        if self.fingerprint is None or not (differences := self.fingerprint.differences(fingerprint)):
            return
        message = (
            f"this bank was made for {self.fingerprint.describe()}, but the model is {fingerprint.describe()}: "
            f"{'; '.join(differences)}."
        )
        if self.fingerprint.hidden_size != fingerprint.hidden_size and any(prompt.kind == "soft" for prompt in self):
            raise BankError(f"{message} Prompts of another width cannot be put in front of it.")
        if not allow_mismatch:
            raise BankError(
                f"{message} Choose the model's own bank, or allow the mismatch (--allow-mismatch) to study transfer."
            )
        _LOG.warning("%s Going on, as asked.", message)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write the bank as `bank.json` and `bank.safetensors`; the same bank gives the same bytes.

        Args:
            directory: a folder, made where it is missing; a bank in it is replaced.

        Returns:
            The folder.

        Raises:
            BankError: provenance or a selector's config holds something that JSON has no form for.
            OutputError: the folder cannot be written to.
        """
        from idp.bank.storage import save_bank

        return save_bank(self, Path(directory))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> PromptBank:
        """Read a bank that `save` wrote, text prompts from YAML, or a bank that comes with the package.

        A bank of up to 64 MB is read and checked as a whole. Of a larger one the header is read, and what selectors
        learned is checked against `bank.json`; each embedding is read, and checked against it, when it is asked for.

        Args:
            directory: the folder (or its `bank.json`), a YAML file or a folder of them as
                `idp.bank.text.load_text_prompts` reads it; where no such path exists, the name of a shipped bank
                (`tuned/sparse`, `tuned/gptq`, `text`).

        Raises:
            BankError: no bank there, or a broken one; the message says which file and what is wrong with it.
        """
        from idp.bank.storage import load_bank

        return load_bank(Path(directory))
