"""A selector that learns while it is used: from what its choices were worth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.base import Needs, Selection, Selector, pick
from idp.select.calibration import Calibration
from idp.select.features import mean_embeddings

__all__ = ["BanditSelector"]

_WIDTH = 32


class BanditSelector(Selector):
    """Choose by Thompson sampling from a linear model of each arm's reward, and learn from feedback.

    With features `f(x)` of an input, the reward of arm `i` is taken to be `f(x) . w_i` plus noise of standard deviation
    `noise`, and `w_i` to be normal: before any feedback around 0, afterwards

        B_i = I + sum over feedback on i of f f^T,   mean_i = B_i^-1 sum f r,   w_i ~ N(mean_i, noise^2 B_i^-1).

    A `w_i` is drawn for every input and the arm with the largest `f(x) . w_i` is chosen, "no prompt" being one of them:
    arms about which little is known are tried, and those that disappoint are given up. Call `learn` with what a choice
    was worth; `state().save(path)` keeps what was learned.

    `f(x)` is the mean input embedding, projected at random to 32 numbers and scaled to length 1, and a constant. The
    draw depends on the seed, on the input and on how much feedback there was, so one history gives one choice.

    Fitting on losses counts every arm's `1 - loss` on every calibration input as feedback; without a calibration it
    begins from nothing.

    Scores: the rewards drawn.

    Args:
        noise: standard deviation of a reward about its mean; the larger, the longer arms are tried.
        seed: of projection and draws.

    Raises:
        SelectorError: noise that is no positive number.

    Source: linear Thompson sampling, arXiv 1209.3352 algorithm 1.

    Example:
        >>> bandit = BanditSelector().fit(bank, lm)  # doctest: +SKIP
        >>> choice = bandit.select([5, 6])  # doctest: +SKIP
        >>> bandit.learn([[5, 6]], [choice.index], [1.0])  # doctest: +SKIP
    """

    name: ClassVar[str] = "bandit"

    def __init__(self, *, noise: float = 0.25, seed: int = 0) -> None:
        """Check and keep the options."""
        if not 0 < noise < float("inf"):
            raise SelectorError(f"the noise of rewards is a positive number, not {noise}.")
        self.noise, self.seed = float(noise), seed
        self._precision: Tensor | None = None  # B, (m + 1, f, f)
        self._sums: Tensor | None = None  # sum of f r, (m + 1, f)
        self._feedback = 0

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Draw the rewards of all arms for each input, and choose the largest."""
        precision, sums = self._posterior()
        if not inputs:
            return []
        means = torch.linalg.solve(precision, sums[..., None])[..., 0]  # (m + 1, f)
        # With B = L L^T, L^-T z has the covariance B^-1.
        factors = torch.linalg.cholesky(precision).mT  # (m + 1, f, f)
        drawn = [self._drawn(ids, means, factors) for ids in inputs]
        return pick((self.features(inputs)[:, None] * torch.stack(drawn)).sum(dim=-1))  # (N, m + 1)

    def _drawn(self, ids: Sequence[int], means: Tensor, factors: Tensor) -> Tensor:
        """Weights of all arms for one input, `(m + 1, f)`."""
        key = f"{self.seed}:{self._feedback}:{','.join(map(str, ids))}".encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
        normal = torch.randn(means.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        spread: Tensor = torch.linalg.solve_triangular(factors, normal[..., None], upper=True)[..., 0]
        return means + self.noise * spread

    def features(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Return `f(x)` of each input, `(N, 33)` in fp64."""
        generator = torch.Generator().manual_seed(self.seed)
        directions = torch.randn(self.lm.hidden_size, _WIDTH, generator=generator, dtype=torch.float64)
        projected = torch.nan_to_num(mean_embeddings(self.lm, inputs)) @ directions  # (N, 32)
        scaled = torch.nn.functional.normalize(projected, dim=1)
        return torch.cat([scaled, torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)

    def learn(self, inputs: Sequence[Sequence[int]], choices: Sequence[int], rewards: Sequence[float]) -> None:
        """Take feedback in.

        Args:
            inputs: token ids that were chosen for.
            choices: the prompt that each ran under, -1 for none; it need not be the bandit's own choice.
            rewards: what each was worth, 0 to 1 as a rule; larger is better.

        Raises:
            SelectorError: not one choice and reward an input, a prompt that the bank does not have, or a reward that
                is no number.
        """
        precision, sums = self._posterior()
        values = torch.tensor(rewards, dtype=torch.float64)  # (N,)
        if not len(inputs) == len(choices) == len(values):
            raise SelectorError(
                f"{len(inputs)} inputs, {len(choices)} choices and {len(values)} rewards: give one each."
            )
        if not bool(torch.isfinite(values).all()):
            raise SelectorError("a reward is no finite number.")
        arms = len(self.bank) + 1
        unknown = next((choice for choice in choices if not -1 <= choice < arms - 1), None)
        if unknown is not None:
            raise SelectorError(f"feedback on prompt {unknown}, but the bank has {arms - 1} prompts; -1 is no prompt.")
        places = torch.tensor(choices, dtype=torch.long) % arms  # (N,)
        features = self.features(inputs)  # (N, f)
        self._precision = precision.index_add(0, places, features[:, :, None] * features[:, None])
        self._sums = sums.index_add(0, places, features * values[:, None])
        self._feedback += len(values)

    def _posterior(self) -> tuple[Tensor, Tensor]:
        if self._precision is None or self._sums is None:
            raise SelectorError("selector 'bandit' was not fitted: call fit or load_state first.")
        return self._precision, self._sums

    @property
    def needs(self) -> Needs:
        """Nothing: it learns while it is used."""
        return "nothing"

    def _fit(self, calibration: Calibration | None) -> None:
        arms, width = len(self.bank) + 1, _WIDTH + 1
        self._precision = torch.eye(width, dtype=torch.float64).repeat(arms, 1, 1)
        self._sums = torch.zeros(arms, width, dtype=torch.float64)
        self._feedback = 0
        if calibration is None or calibration.losses is None:
            return
        rewards = 1 - calibration.require_losses(arms - 1)  # (N, m + 1)
        for arm in range(arms):
            choice = arm if arm < arms - 1 else -1
            self.learn(calibration.inputs, [choice] * len(rewards), rewards[:, arm].tolist())

    def _state(self) -> SelectorState:
        precision, sums = self._posterior()
        config = {"noise": self.noise, "seed": self.seed, "feedback": self._feedback}
        return SelectorState(config, {"precision": precision, "sums": sums})

    def _load(self, state: SelectorState) -> None:
        precision, sums = state.tensors["precision"], state.tensors["sums"]
        arms, width = len(self.bank) + 1, _WIDTH + 1
        if precision.shape != (arms, width, width) or sums.shape != (arms, width):
            raise ValueError(f"tensors of shapes {tuple(precision.shape)} and {tuple(sums.shape)} for {arms} arms")
        self.noise, self.seed, self._feedback = (state.config[key] for key in ("noise", "seed", "feedback"))
        self._precision, self._sums = precision, sums
