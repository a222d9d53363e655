"""Mixtures: more than one prompt for an input, by the scores of a selector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from idp.dynamic.made import MadeStore, Part, Recipe
from idp.errors import SelectorError, suggest
from idp.select.base import Selection, require_numbers
from idp.select.registry import get_selector
from idp.specs import parse_spec

if TYPE_CHECKING:
    from idp.bank.bank import PromptBank

__all__ = ["HOW", "MIX", "Blend", "Mixture", "attempt_weights", "is_mixture"]

MIX = "mix"
"""What mixtures are called where selectors are named: `mix:how=sum`."""

HOW = {
    "sum": "one prompt, the weighted sum of the prompts' vectors (ATTEMPT)",
    "concat": "the two best prompts, the better nearer to the input",
    "ensemble": "every prompt's predictions, averaged",
}
"""The kinds of mixtures."""

_WEIGHTS = ("scores", "uniform", "attempt")


class Blend(NamedTuple):
    """What one input is run behind.

    Attributes:
        parts: prompts of a `MadeStore` with their weights, which are 1 together; more than one in an ensemble only.
        label: what to call it in results; None where no prompt is used.
    """

    parts: tuple[Part, ...]
    label: str | None


def is_mixture(name: str) -> bool:
    """Whether a name of the command line means a mixture and no selector.

    Example:
        >>> is_mixture("mix:how=sum"), is_mixture("router")
        (True, False)
    """
    return name.split(":")[0] == MIX


@dataclass(frozen=True)
class Mixture:
    """How prompts are mixed for an input, by what a selector thinks of them.

    With the selector's scores `s` of the prompts and the `k` best of them,

        sum        one prompt, `sum_i a_i P_i`
        concat     one prompt, `[P_k; ...; P_2; P_1]`: the nearer to the input, the better
        ensemble   `P(y | x) = sum_i a_i P(y | P_i, x)`: predictions are averaged, see `idp.dynamic.pooling`

    where `a = softmax(s / temperature)` over these `k`; scores that are probabilities (`Selector.probabilities`) count
    by their logarithm, so that temperature 1 leaves them as they are. `weights="uniform"` makes all `a` equal.
    `weights="attempt"` (sums only) takes ATTEMPT's attention instead, `a = softmax(<x^, P^_i> / (temperature e d))`,
    with the largest value of each of `d` columns over the input's embeddings (`x^`) and over a prompt's vectors
    (`P^_i`). It is untrained: what ATTEMPT learns besides, a projection of `x^` down and up again and a target prompt
    that is a candidate and is added to the sum, is left out. The selector then only says which `k`, and whether any.

    Where a selector prefers "no prompt", a sum or concatenation is none; in an ensemble it is an arm like the others.
    A prompt with the score `-inf` takes no part.

    Attributes:
        how: `sum`, `concat` or `ensemble`.
        of: the selector, with its options.
        k: how many prompts take part; None: two in a concatenation, else all.
        temperature: the higher, the more alike the weights.
        weights: `scores`, `uniform` or `attempt`.

    Raises:
        SelectorError: an unknown word, a selector that cannot be mixed by, or a number that makes no sense.

    Source: ATTEMPT, arXiv 2205.11961 section 3.2 (`sum`); the top-k of SMoP (Choi et al., EMNLP 2023) is `sum` with
    `of="smop"`; `concat` is the order in which L2P (arXiv 2112.08654) puts its prompts, turned round.

    Example:
        >>> Mixture.parse("mix:how=concat,of=keys").size
        2
    """

    how: str
    of: str = "router"
    k: int | None = None
    temperature: float = 1.0
    weights: str = "scores"

    def __post_init__(self) -> None:
        """Check what everything later relies on."""
        _check_word("how", self.how, [*HOW])
        _check_word("weights", self.weights, _WEIGHTS)
        if self.k is not None and not (isinstance(self.k, int) and self.k >= 1):
            raise SelectorError(f"a mixture is of k = 1 or more prompts, not {self.k!r}.")
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < math.inf):
            raise SelectorError(f"the temperature of a mixture is a positive number, not {self.temperature!r}.")
        if self.how == "concat" and (self.weights, self.temperature) != ("scores", 1):
            raise SelectorError("prompts one behind the other have no weights: leave weights and temperature out.")
        if self.weights == "uniform" and self.temperature != 1:
            raise SelectorError("equal weights have no temperature: leave it out.")
        if self.how != "sum" and self.weights == "attempt":
            raise SelectorError("ATTEMPT's weights are those of a sum: use how=sum, or weights=scores.")
        if not isinstance(self.of, str) or self.of.split(":")[0] in (MIX, "oracle"):
            raise SelectorError(f"a mixture is of a selector that can be fitted, not of {self.of!r}.")
        get_selector(self.of)

    @classmethod
    def parse(cls, spec: str) -> Mixture:
        """Read `mix:how=sum,of=router,k=3`.

        Raises:
            SelectorError: it does not say how, an unknown option, or a value that does not fit.
        """
        _, options = parse_spec(spec)
        known = [each.name for each in fields(cls)]
        for name in options:
            _check_word("option", name, known)
        if "how" not in options:
            raise SelectorError(f"{spec!r} does not say how prompts are mixed: give mix:how=sum, concat or ensemble.")
        return cls(**options)

    @property
    def size(self) -> int | None:
        """How many prompts take part; None for all."""
        return 2 if self.how == "concat" and self.k is None else self.k

    def unfit(self, bank: PromptBank) -> str | None:
        """Why prompts of this bank cannot be mixed like this; None where they can."""
        arms = len(bank) + (self.how == "ensemble")
        if self.size is not None and self.size > arms:
            return f"it takes {self.size} prompts, and the bank has {len(bank)}"
        if self.how != "sum":
            return None
        if words := [prompt.name for prompt in bank if prompt.embedding is None]:
            return f"prompts of words cannot be added up, and {words[0]!r} is one"
        if len(lengths := {len(prompt.embedding) for prompt in bank if prompt.embedding is not None}) > 1:
            return f"prompts of different lengths {sorted(lengths)} cannot be added up"
        return None

    def longest(self, lengths: Sequence[int]) -> int:
        """Tokens of the longest prompt that can be made of prompts of these lengths."""
        return sum(sorted(lengths)[-(self.size or 1) :]) if self.how == "concat" else max(lengths)

    def passes(self, num_prompts: int) -> int:
        """Passes of the model beside the first that an answer takes."""
        return (self.size or num_prompts + 1) - 1 if self.how == "ensemble" else 0

    def blends(
        self,
        store: MadeStore,
        inputs: Sequence[Sequence[int]],
        selections: Sequence[Selection],
        *,
        probabilities: bool = False,
    ) -> list[Blend]:
        """Mix prompts for inputs, each as if it were alone.

        Args:
            store: of the bank; what is made is placed in it.
            inputs: token ids of `N` inputs.
            selections: what the selector says of each.
            probabilities: whether its scores are such.

        Returns:
            What each input is run behind.

        Raises:
            SelectorError: a score is NaN, or no prompt has a score.
        """
        if not inputs:
            return []
        scores = torch.tensor([choice.scores for choice in selections], dtype=torch.float64)  # (N, m + 1)
        require_numbers(scores)
        logs = scores.log() if probabilities else scores
        attended = self._attended(store, inputs) if self.weights == "attempt" else [None] * len(inputs)
        rows = zip(selections, logs, attended, strict=True)
        return [self._blend(store, *row) for row in rows]

    def _attended(self, store: MadeStore, inputs: Sequence[Sequence[int]]) -> list[Tensor | None]:
        lm = store.lm
        embedded = [lm.embed(torch.tensor([list(ids)], dtype=torch.long))[0] for ids in inputs]  # (T, d) each
        return [*attempt_weights(embedded, [lm.embed_prompt(prompt) for prompt in store.bank or ()])]

    def _blend(self, store: MadeStore, choice: Selection, logs: Tensor, attended: Tensor | None) -> Blend:
        """Mix for one input, by the logits of all arms `(m + 1,)`."""
        if self.how != "ensemble" and choice.index == -1:
            return Blend((Part(-1, 1.0),), None)
        among = logs if self.how == "ensemble" else logs[:-1]
        order = among.sort(descending=True, stable=True).indices[: self.size]
        best = order[among[order] > -torch.inf]  # (k,)
        if not len(best):
            raise SelectorError(f"selector {self.of!r} gave no arm a score, so there is nothing to mix.")
        weights = self._weights(among if attended is None else attended, best).tolist()
        arms = [-1 if arm == len(logs) - 1 else arm for arm in best.tolist()]
        parts = tuple(Part(arm, weight) for arm, weight in zip(arms, weights, strict=True) if weight)
        if self.how == "ensemble":
            return Blend(parts, store.label(parts[0].prompt) if len(parts) == 1 else self.how)
        recipe = Recipe("concat", parts[::-1]) if self.how == "concat" else Recipe("sum", parts)
        place = store.place(recipe)
        return Blend((Part(place, 1.0),), store.label(place))

    def _weights(self, logits: Tensor, best: Tensor) -> Tensor:
        """Weights of the best arms, `(k,)`, together 1; of those one behind the other each its own 1."""
        if self.how == "concat":
            return torch.ones(len(best), dtype=torch.float64)
        if self.weights == "uniform":
            return torch.full((len(best),), 1 / max(1, len(best)), dtype=torch.float64)
        return (logits[best] / self.temperature).softmax(dim=-1)


def _check_word(what: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise SelectorError(f"a mixture has no {what} {value!r}. {suggest(str(value), known)}")


def attempt_weights(inputs: Sequence[Tensor], prompts: Sequence[Tensor]) -> Tensor:
    """ATTEMPT's attention before its softmax, `<x^, P^_i> / (e d)`.

    Args:
        inputs: embeddings `(T, d)` of `N` inputs.
        prompts: embeddings `(n, d)` of `m` prompts.

    Returns:
        `(N, m)` in fp64 on the CPU; 0 for an empty input.

    Example:
        >>> attempt_weights([torch.tensor([[1.0], [3.0]])], [torch.tensor([[2.0]])]) * math.e
        tensor([[6.]], dtype=torch.float64)
    """
    peaks = torch.stack([_peak(prompt) for prompt in prompts])  # (m, d)
    queries = torch.stack([_peak(embedded) for embedded in inputs])  # (N, d)
    return queries @ peaks.T / (math.e * peaks.shape[1])


def _peak(rows: Tensor) -> Tensor:
    """The largest value of each column, `(T, d)` to `(d,)`; 0 where there are no rows."""
    found = rows.detach().double().cpu()
    return found.amax(dim=0) if len(found) else found.new_zeros(found.shape[1])
