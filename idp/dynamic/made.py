"""Prompts that are made of those of a bank for one input, or for few: weighted sums, and one behind the other."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from idp.bank.prompt import Prompt
from idp.errors import SelectorError
from idp.run.store import PrefixStore

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank
    from idp.model.loaded import LanguageModel

__all__ = ["MadeStore", "Part", "Recipe", "summed"]


class Part(NamedTuple):
    """A prompt's share in something.

    Attributes:
        prompt: its place in the bank, or in a `MadeStore`; -1 is "no prompt".
        weight: its share.
    """

    prompt: int
    weight: float


class Recipe(NamedTuple):
    """How a prompt is made.

    Attributes:
        how: `sum` adds the parts up by their weights, `concat` puts one behind the other, each with the weight 1.
        parts: prompts of the bank, in the order in which they stand.
    """

    how: Literal["sum", "concat"]
    parts: tuple[Part, ...]


def summed(weights: Tensor, embeddings: Tensor) -> Tensor:
    """Add prompts up: weights `(N, m)` and embeddings `(m, n, d)` to `(N, n, d)`, `sum_i w_i P_i`.

    Example:
        >>> summed(torch.tensor([[0.5, 0.5]]), torch.tensor([[[2.0]], [[4.0]]]))
        tensor([[[3.]]])
    """
    return torch.einsum("nm,mld->nld", weights.to(embeddings.dtype), embeddings)


class MadeStore(PrefixStore):
    """The prompts of a bank, and behind them those that are made of them.

    What is kept of a made prompt is its recipe: one for every input would fill the memory. Its embeddings are made when
    it is run, and compiled prompts are kept within the budget like those of the bank, so that inputs that share one
    seldom pay for it twice.

    Args:
        lm: the model.
        bank: the prompts that others are made of.

    Example:
        >>> store = MadeStore(lm, bank)  # doctest: +SKIP
        >>> store.length(store.place(Recipe("concat", (Part(2, 0.4), Part(0, 0.6)))))  # doctest: +SKIP
        32
    """

    def __init__(self, lm: LanguageModel, bank: PromptBank) -> None:
        """Know no recipe yet."""
        super().__init__(lm, bank)
        self._own = bank
        self._places: dict[Recipe, int] = {}
        self._made: list[Recipe] = []

    def place(self, recipe: Recipe) -> int:
        """The place of a made prompt; where it would be made of one alone, that of this one.

        Raises:
            SelectorError: nothing to make a prompt of.
        """
        if not recipe.parts:
            raise SelectorError("a prompt cannot be made of no prompts.")
        if len(recipe.parts) == 1 and recipe.parts[0].weight == 1:
            return recipe.parts[0].prompt
        if recipe not in self._places:
            self._places[recipe] = len(self._own) + len(self._made)
            self._made.append(recipe)
        return self._places[recipe]

    def __len__(self) -> int:
        """Number of prompts, made ones included."""
        return len(self._own) + len(self._made)

    def embedding(self, index: int) -> Tensor | None:
        """Return the embeddings of prompt `index`, `(n, d)`, those of a made one anew; None for -1."""
        return super().embedding(index) if index < len(self._own) else self.lm.embed_prompt(self._prompt(index))

    def length(self, index: int) -> int:
        """Number of tokens of prompt `index`; 0 for -1."""
        if index < len(self._own):
            return super().length(index)
        how, parts = self._recipe(index)
        lengths = [self.length(part.prompt) for part in parts]
        return sum(lengths) if how == "concat" else lengths[0]

    def digest(self, index: int) -> str:
        """What a prompt does to a model, in a word that is the same in every run; "none" for -1.

        Weights count up to nine digits: what a selector scored in another batch differs in the last ones.
        """
        if index == -1:
            return "none"
        if index < len(self._own):
            return self._own[index].digest
        how, parts = self._recipe(index)
        made_of = [(self._own[part.prompt].digest, round(part.weight, 9)) for part in parts]
        return hashlib.sha256(repr((how, made_of)).encode()).hexdigest()[:32]

    def label(self, index: int) -> str | None:
        """What to call a prompt in results; sums are too many to have names of their own."""
        if index < len(self._own):
            return None if index == -1 else self._own[index].name
        how, parts = self._recipe(index)
        return "sum" if how == "sum" else " + ".join(self._own[part.prompt].name for part in parts)

    def _recipe(self, index: int) -> Recipe:
        if not 0 <= index - len(self._own) < len(self._made):
            raise SelectorError(f"there is no prompt {index}: {len(self)} are known; -1 means no prompt.")
        return self._made[index - len(self._own)]

    def _prompt(self, index: int) -> Prompt:
        if index < len(self._own):
            return super()._prompt(index)
        how, parts = self._recipe(index)
        embeddings = [self.lm.embed_prompt(self._own[part.prompt]).float() for part in parts]  # (n_i, d) each
        if how == "concat":
            made = torch.cat(embeddings)  # (sum n_i, d)
        else:
            weights = torch.tensor([[part.weight for part in parts]], device=embeddings[0].device)  # (1, k)
            made = summed(weights, torch.stack(embeddings))[0]  # (n, d)
        return Prompt(self.label(index) or how, embedding=made)
