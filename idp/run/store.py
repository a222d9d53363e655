"""The compiled prompts of a bank: made when first used, kept within a budget of memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from idp.errors import SelectorError, TaskError
from idp.run.prefix import Prefix, compile_prefix
from idp.run.prefix_files import PrefixFiles

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel

__all__ = ["BUDGET", "PrefixStore"]

BUDGET = 2**31
"""Bytes of keys and values kept unless told otherwise: 40 prompts of 100 tokens of a 7B model in 16 bits."""

_EMBEDDINGS = 256
"""Prompts whose embeddings are kept."""


class PrefixStore:
    """The prompts of a bank, compiled for one model when first used and then kept.

    Within the budget nothing is compiled twice. Beyond it the prefixes that were not used for longest are dropped, and
    compiled again when they are asked for, with the same result.

    Args:
        lm: the model.
        bank: the prompts; None when only "no prompt" will be asked for.
        budget: bytes of keys and values to keep; 0 compiles every prompt on demand.
        folder: where compiled prefixes are kept between runs; None keeps them in memory only.

    Attributes:
        lm: the model.
        bank: the prompts.
        nbytes: bytes of keys and values that are kept now.

    Raises:
        TaskError: a negative budget.

    Example:
        >>> store = PrefixStore(lm, bank)  # doctest: +SKIP
        >>> store[0].length, store[-1]  # doctest: +SKIP
        (16, None)
    """

    def __init__(
        self,
        lm: LanguageModel,
        bank: PromptBank | None,
        *,
        budget: int = BUDGET,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Compile nothing yet."""
        if budget < 0:
            raise TaskError(f"a budget of {budget} bytes for prefixes is not possible; 0 keeps none of them.")
        self.lm = lm
        self.bank = bank
        self.nbytes = 0
        self._budget = budget
        self._files = None if folder is None else PrefixFiles(Path(folder), lm)
        self._prefixes: OrderedDict[int, Prefix] = OrderedDict()  # the one used last stands last
        self._embedded = lru_cache(_EMBEDDINGS)(lambda index: lm.embed_prompt(_prompt_of(bank, index)))

    def __len__(self) -> int:
        """Number of prompts, "no prompt" not counted."""
        return 0 if self.bank is None else len(self.bank)

    def __getitem__(self, index: int) -> Prefix | None:
        """Return the prefix of prompt `index`; None for -1, which is "no prompt".

        Raises:
            SelectorError: there is no such prompt.
        """
        if index == -1:
            return None
        if index in self._prefixes:
            self._prefixes.move_to_end(index)
            return self._prefixes[index]
        prefix = self._compiled(self._prompt(index))
        self._keep(index, prefix)
        return prefix

    def prefixes(self, choices: Sequence[int]) -> list[Prefix | None]:
        """Return the prefix of every row of a batch; each is made once, even where the budget does not keep it."""
        found = {choice: self[choice] for choice in sorted(set(choices))}
        return [found[choice] for choice in choices]

    def _compiled(self, prompt: Prompt) -> Prefix:
        if self._files is None:
            return compile_prefix(self.lm, prompt)
        if (found := self._files.load(prompt)) is not None:
            return found
        prefix = compile_prefix(self.lm, prompt)
        self._files.save(prompt, prefix)
        return prefix

    def _keep(self, index: int, prefix: Prefix) -> None:
        """Keep a prefix where the budget holds it, dropping those that were not used for longest."""
        if prefix.nbytes > self._budget:
            return
        while self.nbytes + prefix.nbytes > self._budget:
            _, dropped = self._prefixes.popitem(last=False)
            self.nbytes -= dropped.nbytes
        self._prefixes[index] = prefix
        self.nbytes += prefix.nbytes

    def embedding(self, index: int) -> Tensor | None:
        """Return the embeddings of prompt `index`, `(n, d)`; None for -1."""
        return None if index == -1 else self._embedded(index)

    def length(self, index: int) -> int:
        """Number of tokens of prompt `index`, for which a soft one is not read; 0 for -1."""
        if index == -1:
            return 0
        shape = self._prompt(index).shape
        return self._embedded(index).shape[0] if shape is None else shape[0]

    def name(self, index: int) -> str:
        """What to call prompt `index` in a message."""
        return "no prompt" if index == -1 else f"prompt {self._prompt(index).name!r}"

    def _prompt(self, index: int) -> Prompt:
        return _prompt_of(self.bank, index)


def _prompt_of(bank: PromptBank | None, index: int) -> Prompt:
    count = 0 if bank is None else len(bank)
    if bank is None or not 0 <= index < count:
        raise SelectorError(f"there is no prompt {index}: the bank has {count} prompts; -1 means no prompt.")
    return bank[index]
