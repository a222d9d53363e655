"""What a model says under each prompt: probabilities of the answers to an input, and of the input itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from idp.bank.bank import PromptBank
from idp.model.loaded import LanguageModel
from idp.run.next_tokens import next_tokens
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.select.calibration import Options

__all__ = ["FIRST_TOKEN", "Answers", "kind_of"]

FIRST_TOKEN = 0
"""The kind of inputs whose answers are not known; other kinds are the numbers of options."""

_ENTRIES = 1 << 26
"""Probabilities held at once, 0.5 GB in fp64."""


def kind_of(options: Options) -> int:
    """How the answers of an input are told apart: by its options where it has two or more, else by the first token."""
    return len(options) if len(options) > 1 else FIRST_TOKEN


class Answers:
    """Runs a model under every prompt of a bank, and under none, which is the last of `m + 1` arms.

    Args:
        lm: the model.
        bank: `m` prompts.

    Example:
        >>> Answers(lm, bank).probabilities(0, FIRST_TOKEN, [[5, 6]], [()]).shape  # doctest: +SKIP
        torch.Size([1, 32000])
    """

    def __init__(self, lm: LanguageModel, bank: PromptBank) -> None:
        """Compile no prompt yet."""
        self.arms = len(bank) + 1
        self._lm, self._store = lm, PrefixStore(lm, bank)

    def parts(self, rows: Sequence[int], kind: int) -> Iterator[list[int]]:
        """Cut rows into parts whose probabilities under one arm fit into memory."""
        step = max(1, _ENTRIES // self._width(kind))
        for begin in range(0, len(rows), step):
            yield list(rows[begin : begin + step])

    def most(self, kind: int) -> int:
        """Of how many inputs the probabilities under all arms fit into memory."""
        return max(1, _ENTRIES // (self.arms * self._width(kind)))

    def probabilities(self, arm: int, kind: int, inputs: Sequence[Sequence[int]], options: Sequence[Options]) -> Tensor:
        """Probabilities of the answers under an arm.

        Args:
            arm: a prompt's place in the bank, or `m`.
            kind: of all these inputs.
            inputs: token ids; an empty input is read as the prefix token.
            options: of each input; not looked at where the kind is `FIRST_TOKEN`.

        Returns:
            `(N, Y)` in fp64: of the options, by the mean log-likelihood of their tokens, or of the vocabulary.
        """
        contexts, choices = [self._read(ids) for ids in inputs], [self._choice(arm)] * len(inputs)
        if kind == FIRST_TOKEN:
            return next_tokens(self._store, contexts, choices).double().exp()
        requests = [
            Request(context, tuple(tuple(option) for option in given))
            for context, given in zip(contexts, options, strict=True)
        ]
        means = [
            [each.loglikelihood / max(1, len(option)) for each, option in zip(found.scores, asked, strict=True)]
            for found, asked in zip(
                score(self._store, requests, choices), (request.continuations for request in requests), strict=True
            )
        ]
        return torch.tensor(means, dtype=torch.float64).softmax(dim=-1)

    def likelihoods(self, arm: int, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Mean log-likelihood of the tokens of each input but its first, `(N,)`; 0 where there are none."""
        requests = [Request(ids[:1], (ids[1:],)) for ids in map(self._read, inputs)]
        found = score(self._store, requests, [self._choice(arm)] * len(inputs))
        return torch.tensor(
            [
                each.scores[0].loglikelihood / max(1, len(request.continuations[0]))
                for each, request in zip(found, requests, strict=True)
            ],
            dtype=torch.float64,
        )

    def _choice(self, arm: int) -> int:
        return -1 if arm == self.arms - 1 else arm

    def _read(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(ids) or (self._lm.prefix_token_id,)

    def _width(self, kind: int) -> int:
        return self._lm.vocab_size if kind == FIRST_TOKEN else kind
