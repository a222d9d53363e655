"""An ensemble of prompts: one distribution over texts, averaged from what the model says under each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from idp.errors import SelectorError
from idp.run.score import Score

__all__ = ["PooledLogits", "pooled"]


def pooled(weights: Sequence[float], scores: Sequence[Score]) -> Score:
    """Average what the model says of a continuation under several prompts.

    The likelihoods are averaged, `log sum_i w_i P_i(c)`, not their logarithms: a prompt under which the continuation is
    out of the question takes away no more than its weight. What the first choice is goes to the vote: the continuation
    is, where it is that of prompts with more than half of the weight.

    Args:
        weights: of each prompt, positive, together 1.
        scores: of the continuation under each prompt.

    Returns:
        The score of the ensemble; that of the prompt itself, bit for bit, where there is but one.

    Example:
        >>> pooled([0.5, 0.5], [Score(0.0, True), Score(float("-inf"), False)])
        Score(loglikelihood=-0.6931471805599453, is_greedy=False)
    """
    if len(scores) == 1:
        return scores[0]
    logs = torch.tensor([score.loglikelihood for score in scores], dtype=torch.float64)  # (k,)
    shares = torch.tensor(weights, dtype=torch.float64)  # (k,)
    votes = sum(weight for weight, score in zip(weights, scores, strict=True) if score.is_greedy)
    return Score(float((shares.log() + logs).logsumexp(0)), votes > 0.5)


class PooledLogits(LogitsProcessor):
    """Lets the rows of one input, each behind another prompt, continue it together.

    Every row of a group gets the log of the group's mean next-token probabilities, so greedy rows stay alike. The
    weights follow what was generated, `w_i P_i(tokens so far)`: this is the next token of `sum_i w_i P_i`, the very
    distribution that `pooled` measures.

    Args:
        blends: for each input the weights of its prompts, whose rows stand one behind the other.

    Raises:
        SelectorError: rows of a group went on with different tokens, as those that are sampled do.

    Example:
        >>> PooledLogits([[0.5, 0.5]])(torch.zeros(2, 1), torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()).exp()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(self, blends: Sequence[Sequence[float]]) -> None:
        """Begin with the weights as given."""
        self._groups = torch.tensor([group for group, blend in enumerate(blends) for _ in blend])  # (R,)
        self._weights = torch.tensor([weight for blend in blends for weight in blend], dtype=torch.float64).log()
        self._last: Tensor | None = None  # (R, V) what each row said of the token that was then chosen

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Pool the scores `(R, V)` of one step."""
        groups = self._groups.to(scores.device)
        logs = scores.double().log_softmax(-1)  # (R, V)
        weights = self._weights.to(scores.device)  # (R,)
        if self._last is not None:
            self._check(input_ids[:, -1], groups)
            weights = weights + self._last.gather(1, input_ids[:, -1:])[:, 0]
        self._weights, self._last = weights, logs
        weights = weights - _log_sums(weights[:, None], groups)[groups, 0]
        alone = torch.bincount(groups)[groups, None] == 1  # (R, 1), left as they are to the last bit
        return torch.where(alone, scores, _log_sums(weights[:, None] + logs, groups)[groups].to(scores.dtype))

    def _check(self, chosen: Tensor, groups: Tensor) -> None:
        """Rows of a group must have gone on with one token."""
        firsts = torch.searchsorted(groups, groups)  # (R,) the first row of each row's group
        if bool((chosen != chosen[firsts]).any()):
            raise SelectorError("the prompts of an ensemble can only continue a text greedily: leave do_sample out.")


def _log_sums(values: Tensor, groups: Tensor) -> Tensor:
    """The log of the sum of exponentials over the rows of each group: `(R, V)` to `(G, V)`."""
    count, places = int(groups.max()) + 1, groups[:, None].expand_as(values)
    highest = values.new_full((count, values.shape[1]), -torch.inf).scatter_reduce(0, places, values, "amax")
    highest = highest.clamp_min(torch.finfo(values.dtype).min)  # what is impossible for all stays so, and no NaN
    sums = torch.zeros_like(highest).index_add_(0, groups, (values - highest[groups]).exp())  # (G, V)
    return sums.log() + highest
