"""A mixture of prompts as an arm: every input is run behind a prompt made for it, or behind several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from transformers import LogitsProcessorList

from idp.bank.bank import PromptBank
from idp.dynamic.made import MadeStore
from idp.dynamic.mixing import Blend, Mixture
from idp.dynamic.pooling import PooledLogits, pooled
from idp.errors import SelectorError
from idp.evaluate.lm import IdpLM, Tokens
from idp.evaluate.timing import timed
from idp.model.loaded import LanguageModel
from idp.run.score import Score
from idp.select.base import Selector

__all__ = ["MixtureLM"]


class MixtureLM(IdpLM):
    """A language model whose every input gets its own mixture of prompts.

    A made prompt is read anew for every input that it was made for: it costs its tokens, where a prompt of the bank
    costs nothing but room. An ensemble runs the input once behind each of its prompts.

    Args:
        mixture: how prompts are mixed.
        lm: the model.
        bank: the prompts.
        selector: the mixture's, fitted on that bank.
        kwargs: as for `IdpLM`.

    Raises:
        SelectorError: prompts of this bank cannot be mixed like this.
        IdpError: as for `IdpLM`.
    """

    def __init__(
        self, mixture: Mixture, lm: LanguageModel, bank: PromptBank, selector: Selector, **kwargs: Any
    ) -> None:
        if why_not := mixture.unfit(bank):
            raise SelectorError(f"how={mixture.how} cannot be used here: {why_not}.")
        self.mixture: Mixture = mixture
        self._blends: dict[str | Tokens, Blend] = {}
        super().__init__(lm, bank, selector, **kwargs)
        self._store = MadeStore(lm, bank)
        self.prompted.store = self._store

    @cached_property
    def max_length(self) -> int:
        """Context length in tokens that is left beside the longest prompt that can be made."""
        lengths = [self.prompted.store.length(index) for index in range(len(self.prompted.bank or ()))]
        return self._whole_length - self.mixture.longest(lengths)

    def prompt_of(self, context: str) -> tuple[str | None, int]:
        """What a context that has been run was behind: what to call it, and its tokens in all passes together."""
        blend = self._blends.get(context) or self._blends[(self.prefix_token_id,)]
        return blend.label, sum(self._store.length(part.prompt) for part in blend.parts)

    def _select(
        self,
        contexts: dict[str | Tokens, Sequence[int]],
        options: dict[str | Tokens, tuple[Tokens, ...]] | None = None,
    ) -> None:
        super()._select(contexts, options)
        chosen = [self._selections[key] for key in contexts]
        probabilities = self.prompted.selector.probabilities
        mix = partial(self.mixture.blends, self._store, [*contexts.values()], chosen, probabilities=probabilities)
        blends, seconds = timed(mix)
        self._blends.update(zip(contexts, blends, strict=True))
        self.seconds += seconds

    def _answered(self, keys: list[str | Tokens], pairs: list[tuple[Tokens, Tokens]]) -> list[tuple[float, bool]]:
        blends = [self._blends[key].parts for key in keys]
        asked = [(part.prompt, pair) for parts, pair in zip(blends, pairs, strict=True) for part in parts]
        found = iter(self._under([index for index, _ in asked], [pair for _, pair in asked]))
        return [pooled([part.weight for part in parts], [Score(*next(found)) for _ in parts]) for parts in blends]

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        """Generate for the batch that was tokenised last, the rows of an ensemble together."""
        blends = [self._blends[text].parts for text in self._batch]
        rows = torch.tensor([row for row, parts in enumerate(blends) for _ in parts], device=context.device)  # (R,)
        if len(rows) > len(blends):
            if kwargs.get("do_sample") or (kwargs.get("num_beams") or 1) > 1:
                raise SelectorError("an ensemble of prompts generates greedily: leave do_sample and num_beams out.")
            kwargs["logits_processor"] = LogitsProcessorList([PooledLogits([[p.weight for p in b] for b in blends])])
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = kwargs["attention_mask"][rows]
        choices = [part.prompt for parts in blends for part in parts]
        sequences = self._generate_under(choices, context[rows], max_length, stop, **kwargs)  # (R, T + new)
        firsts = torch.searchsorted(rows, torch.arange(len(blends), device=rows.device))  # (B,)
        return sequences[firsts]

    def _prompts_id(self, context: str) -> Any:
        parts = self._blends[context].parts
        if len(parts) == 1:
            return self.prompt_id(parts[0].prompt)
        return [[self.prompt_id(part.prompt), round(part.weight, 9)] for part in parts]

    def prompt_id(self, choice: int) -> str:
        """What a prompt that was made is."""
        return self._store.digest(choice)
