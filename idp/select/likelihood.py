"""Selectors that run the model under every prompt and choose by what it then says: strong, and expensive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.answers import FIRST_TOKEN, Answers, kind_of
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration, Options
from idp.select.probabilities import OF_A_PROMPT, cbm, certainty, global_entropy

__all__ = ["LikelihoodSelector"]

_GLOBAL = {"mi-l": False, "mi-gl": True}
"""Rules that add a global entropy, and whether that counts likeliest answers."""


@dataclass(frozen=True, eq=False)
class _Averages:
    """What prompts do to inputs of one kind on average.

    Attributes:
        mean: probability of each answer, `(m + 1, Y)`.
        bonus: what the rule adds to an input's certainty, `(m + 1,)`.
    """

    mean: Tensor
    bonus: Tensor


class LikelihoodSelector(Selector):
    """Choose the prompt under which the model is least surprised by the input, or surest of its answer.

    With `p[t, x]` the probabilities of the answers to input `x` under prompt `t` ("no prompt" is one of them) and `H`
    their entropy, the prompt with the largest score wins:

        ppl     mean log-likelihood of the input's own tokens: the smallest perplexity
        mdl     -H(p[t, x])
        mi-l    H(mean over x' of p[t, x']) - H(p[t, x])
        mi-gl   H(how often each answer is the likeliest one under t) - H(p[t, x])

    Answers are the options of a question where they are known (`select_among`), by the mean log-likelihood of their
    tokens; else the first token, any of the vocabulary. Averages are over calibration inputs with as many options.

    With `per="task"` prompts are scored once, over unlabelled calibration inputs, and the best one is chosen for all:
    by any of `idp.select.probabilities.OF_A_PROMPT`, such as `mi` or the agreement scores `zlp` and `zpm`.

    Per input, every prompt is run on it: `m + 1` passes before the one that answers. It is a yardstick for selectors
    that run nothing.

    Scores: as above; "no prompt" is scored like a prompt.

    Args:
        score: one of the above; `mdl` unless told.
        per: `input` or `task`.
        calibrate: `cbm` divides every answer's probability by what the prompt gives it on average; or `none`.

    Raises:
        SelectorError: an unknown option; on fitting, no inputs where they are needed.

    Source: arXiv 2305.14877 (TACL 2024), whose repository takes the largest perplexity of a prompt for a task.

    Example:
        >>> LikelihoodSelector(score="mi-l").fit(bank, lm, calibration).select([5, 6]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "likelihood"

    def __init__(self, *, score: str = "mdl", per: str = "input", calibrate: str = "none") -> None:
        """Check and keep the options."""
        rules = ("mdl", "mi-gl", "mi-l", "ppl") if per == "input" else tuple(OF_A_PROMPT)
        check_option(self.name, "per", per, ("input", "task"))
        check_option(self.name, "score", score, rules)
        check_option(self.name, "calibrate", calibrate, ("cbm", "none"))
        self.score, self.per, self.calibrate = score, per, calibrate
        self._model: Answers | None = None
        self._averages: dict[int, _Averages] = {}
        self._of_prompts: Tensor | None = None  # (m + 1,)

    @property
    def needs(self) -> Needs:
        """Inputs without answers, where something is averaged over them."""
        averages = self.per == "task" or self.calibrate == "cbm" or self.score in _GLOBAL
        return "inputs" if averages else "nothing"

    @property
    def forwards(self) -> float:
        """A pass under every prompt and one without, unless it chose once for all."""
        return len(self.bank) + 1 if self.per == "input" else 0

    @property
    def answers(self) -> bool:
        """It looks at the options of an input, unless it judges the input itself or chose once for all."""
        return self.per == "input" and self.score != "ppl"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose for inputs whose possible answers are not known."""
        return self.select_among(inputs, [()] * len(inputs))

    def select_among(self, inputs: Sequence[Sequence[int]], options: Sequence[Options]) -> list[Selection]:
        """Choose for inputs with the possible answers of each; none where they are not known."""
        model = self._ready()
        if self._of_prompts is not None:
            return pick(self._of_prompts[None]) * len(inputs)
        scores = torch.empty(len(inputs), model.arms, dtype=torch.float64)  # (N, m + 1)
        for kind, rows in self._kinds(options).items():
            for part in model.parts(rows, kind):
                read, given = [inputs[row] for row in part], [options[row] for row in part]
                columns = [self._scores(model, arm, kind, read, given) for arm in range(model.arms)]
                scores[part] = torch.stack(columns, dim=1)
        return pick(scores)

    def _kinds(self, options: Sequence[Options]) -> dict[int, list[int]]:
        """Rows by kind; a number of options that nothing was averaged for counts as none."""
        kinds: dict[int, list[int]] = {}
        for row, given in enumerate(options):
            kind = kind_of(given) if self.answers else FIRST_TOKEN
            known = not self._averages or kind in self._averages
            kinds.setdefault(kind if known else FIRST_TOKEN, []).append(row)
        return kinds

    def _scores(
        self, model: Answers, arm: int, kind: int, inputs: list[Sequence[int]], options: list[Options]
    ) -> Tensor:
        """Scores of one arm, `(N,)`."""
        if self.score == "ppl":
            return model.likelihoods(arm, inputs)
        p = model.probabilities(arm, kind, inputs, options)  # (N, Y)
        if not self._averages:
            return certainty(p)
        averages = self._averages[kind]
        if self.calibrate == "cbm":
            p = cbm(p[None], averages.mean[None, arm])[0]
        return certainty(p) + averages.bonus[arm]

    def _ready(self) -> Answers:
        if self._model is None:
            raise SelectorError("selector 'likelihood' was not fitted: call fit or load_state first.")
        return self._model

    def _fit(self, calibration: Calibration | None) -> None:
        self._model, self._averages, self._of_prompts = Answers(self.lm, self.bank), {}, None
        if calibration is None or self.needs == "nothing":
            return
        found = {kind: self._measured(kind, rows, calibration) for kind, rows in _by_kind(calibration).items()}
        if self.per == "task":
            self._of_prompts = self._judged(list(found.values()))
            return
        if FIRST_TOKEN not in found:  # inputs without options may come all the same
            found[FIRST_TOKEN] = self._measured(FIRST_TOKEN, list(range(len(calibration.inputs))), calibration)
        self._averages = {kind: _Averages(p.mean(dim=1), self._bonus(p)) for kind, p in found.items()}

    def _measured(self, kind: int, rows: list[int], calibration: Calibration) -> Tensor:
        """Probabilities of the answers to inputs of one kind, `(m + 1, X, Y)`; of as many as memory holds."""
        model = self._ready()
        kept = rows[:: -(-len(rows) // model.most(kind))]
        inputs = [calibration.inputs[row] for row in kept]
        options = [calibration.options[row] if calibration.options else () for row in kept]
        return torch.stack([model.probabilities(arm, kind, inputs, options) for arm in range(model.arms)])

    def _judged(self, measured: list[Tensor]) -> Tensor:
        """Scores of the prompts over all inputs, `(m + 1,)`: a mean over the kinds, each by its inputs."""
        total = sum(p.shape[1] for p in measured)
        scores = [OF_A_PROMPT[self.score](self._calibrated(p)) * p.shape[1] / total for p in measured]
        return torch.stack(scores).sum(dim=0)

    def _bonus(self, p: Tensor) -> Tensor:
        """What the rule adds to an input's certainty, `(m + 1,)`."""
        if self.score not in _GLOBAL:
            return torch.zeros(len(p), dtype=p.dtype)
        return global_entropy(self._calibrated(p), hard=_GLOBAL[self.score])

    def _calibrated(self, p: Tensor) -> Tensor:
        return cbm(p) if self.calibrate == "cbm" else p

    def _state(self) -> SelectorState:
        self._ready()
        tensors = {
            f"{kind}/{name}": tensor for kind, known in self._averages.items() for name, tensor in vars(known).items()
        }
        if self._of_prompts is not None:
            tensors["scores"] = self._of_prompts
        return SelectorState({"score": self.score, "per": self.per, "calibrate": self.calibrate}, tensors)

    def _load(self, state: SelectorState) -> None:
        kept = LikelihoodSelector(**{key: state.config[key] for key in ("score", "per", "calibrate")})
        self.score, self.per, self.calibrate = kept.score, kept.per, kept.calibrate
        self._model, self._averages = Answers(self.lm, self.bank), {}
        self._of_prompts = state.tensors["scores"] if self.per == "task" else None
        kinds = {int(name.split("/")[0]) for name in state.tensors if name != "scores"}
        for kind in sorted(kinds):
            self._averages[kind] = _Averages(state.tensors[f"{kind}/mean"], state.tensors[f"{kind}/bonus"])
        if self.per == "input" and self.needs != "nothing" and FIRST_TOKEN not in kinds:
            raise ValueError("no averages")
        self._check(kept_arms=len(self.bank) + 1)

    def _check(self, kept_arms: int) -> None:
        tensors = [tensor for known in self._averages.values() for tensor in vars(known).values()]
        tensors += [] if self._of_prompts is None else [self._of_prompts]
        if any(len(tensor) != kept_arms for tensor in tensors):
            raise ValueError(f"not {kept_arms} arms")


def _by_kind(calibration: Calibration) -> dict[int, list[int]]:
    """Rows of the calibration by how their answers are told apart."""
    kinds: dict[int, list[int]] = {}
    for row in range(len(calibration.inputs)):
        kind = kind_of(calibration.options[row]) if calibration.options else FIRST_TOKEN
        kinds.setdefault(kind, []).append(row)
    return kinds
