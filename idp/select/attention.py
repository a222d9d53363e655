"""The selector of the IDP paper: the prompt that the input's tokens attend to most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.model.view import num_layers
from idp.select.attention_keys import PromptKeys, prompt_keys
from idp.select.attention_scores import Score, attention_scores
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration
from idp.select.layer_view import LayerView
from idp.select.prompt_scales import Scales, centered, fitted, zscored
from idp.select.question import QuestionFinder

__all__ = ["AttentionSelector"]

Queries = Literal["all", "last", "question"]
Calibrate = Literal["none", "center", "zscore", "fitted"]

_FROM_SCORES: dict[str, Callable[[Tensor], Scales]] = {"center": centered, "zscore": zscored}


class AttentionSelector(Selector):
    """Choose the prompt that gets the most attention from the input's tokens in the first decoder layer.

    With the layer's queries `q_t` of the input's tokens, keys `k_ij` of prompt `i` and keys `k_u` of the input, and one
    softmax over all prompts and the input up to `t`,

        A[h, t, i, j] = exp(q_ht . k_hij / sqrt(d_h)) / Z_ht,
        Z_ht = sum_ij exp(q_ht . k_hij / sqrt(d_h)) + sum_{u <= t} exp(q_ht . k_hu / sqrt(d_h)),
        s_i = mean over heads h, query tokens t and prompt tokens j of A[h, t, i, j].

    The largest `s_i` wins. Prompts end where the input begins. Where positions are rotary one pass sees them all;
    learned positions need one pass for each distinct length, in which prompts begin at position 0 and the input
    begins behind a prompt of that length: longer prompts then reach into its positions, and shorter ones leave a gap.

    In a layer above the first, the layers below are run on the prompts and the input together: a prompt sees itself
    only, the input sees all prompts and itself, causally. So what a prompt shows there does not depend on the others,
    but what the input asks for does. It costs these layers once more.

    This is the published rule, kept as the reference. It compares prompts that were tuned apart from each other and
    so are on no common scale: one prompt tends to win for all inputs. `calibrate` corrects that; the router does
    better still.

    Scores: `s_i`, or its calibrated log. "No prompt" is chosen for an empty input only and else has `-inf`, unless the
    calibration is `fitted`: then it has 0 and competes.

    Args:
        score: `joint_mean` as above; `joint_mass`, the sum over the prompt's tokens instead of their mean;
            `separate_mean`, with the other prompts left out of `Z`; `logit_mean`, the mean logit, no softmax.
        queries: attention of `all` tokens of the input, of the `last` one, or of those of its `question` alone; see
            `idp.select.question`.
        calibrate: `center` subtracts from `log s_i` its mean over the calibration inputs, `zscore` divides by its
            standard deviation too, `fitted` then fits a temperature and an offset of each prompt to losses; see
            `idp.select.prompt_scales`. `logit_mean` is a logarithm already and is taken as it is.
        layer: of which layer, from 0 on.

    Raises:
        SelectorError: an unknown option; on fitting, a layer that the model does not have or that cannot be seen.

    Source: arXiv 2310.00867; the choice of the first layer and the options are readings of it, since it gives no code.

    Example:
        >>> selector = AttentionSelector(calibrate="zscore").fit(bank, lm, calibration)  # doctest: +SKIP
        >>> selector.select([5, 6, 7]).index  # doctest: +SKIP
        1
    """

    name: ClassVar[str] = "attention"

    def __init__(
        self,
        *,
        score: Score = "joint_mean",
        queries: Queries = "all",
        calibrate: Calibrate = "none",
        layer: int = 0,
    ) -> None:
        """Check and keep the options."""
        check_option(self.name, "score", score, get_args(Score))
        check_option(self.name, "queries", queries, get_args(Queries))
        check_option(self.name, "calibrate", calibrate, get_args(Calibrate))
        if type(layer) is not int or layer < 0:
            raise SelectorError(f"selector 'attention' has no layer {layer!r}: count the layers from 0.")
        self.score: Score = score
        self.queries: Queries = queries
        self.calibrate: Calibrate = calibrate
        self.layer = layer
        self._prompts: PromptKeys | None = None
        self._questions: QuestionFinder | None = None
        self._scales: Scales | None = None

    @property
    def needs(self) -> Needs:
        """Losses for `fitted`, inputs without answers where scores are calibrated otherwise, else nothing."""
        needs: dict[str, Needs] = {"none": "nothing", "fitted": "losses"}
        return needs.get(self.calibrate, "inputs")

    @property
    def forwards(self) -> float:
        """The share of the layers that is run, in every pass; nothing for layer 0, of which only projections are."""
        return len(self._ready().starts) * (self.layer + 1) / num_layers(self.lm) if self.layer else 0.0

    def require(self, lm: LanguageModel) -> None:
        """Find out whether a layer's projections can be seen, with one token."""
        first = torch.zeros(1, 1, dtype=torch.long)  # (1, T)
        LayerView(lm, self.layer).project(lm.embed(first), first)

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the most attended prompt of each input."""
        scores = self._calibrated(self.raw_scores(inputs))  # (N, m)
        none = torch.full((len(inputs), 1), 0.0 if self.calibrate == "fitted" else -torch.inf)  # (N, 1)
        empty = torch.tensor([not len(ids) for ids in inputs], dtype=torch.bool)  # (N,)
        scores[empty], none[empty] = -torch.inf, 0.0
        return pick(torch.cat([scores, none], dim=1))

    def raw_scores(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Return the scores `s_i` before calibration, `(N, m)` in fp32; rows of empty inputs are 0.

        Raises:
            SelectorError: the selector was not fitted.
        """
        prompts = self._ready()
        scores = torch.zeros(len(inputs), len(self.bank))  # (N, m)
        for rows in prompts.batches(inputs):
            scores[torch.tensor(rows)] = self._scores_of([inputs[row] for row in rows], prompts)
        return scores

    def _scores_of(self, inputs: list[Sequence[int]], prompts: PromptKeys) -> Tensor:
        lengths = torch.tensor([len(ids) for ids in inputs])  # (B,)
        steps = torch.arange(int(lengths.max()))  # (T,)
        ids = torch.full((len(inputs), len(steps)), self.lm.pad_token_id)  # (B, T), padded on the right
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        firsts = torch.tensor([self._first_query(tokens) for tokens in inputs])  # (B,)
        counted = (steps >= firsts[:, None]) & (steps < lengths[:, None])  # (B, T)
        scores = torch.empty(len(inputs), len(prompts.lengths))  # (B, m)
        for start, members in prompts.starts.items():
            seen = prompts.project(self.lm.embed(ids), start)
            passed = attention_scores(seen, prompts.keys, prompts.lengths, counted.to(self.lm.device), self.score)
            scores[:, members] = passed[:, members].cpu()  # (B, members)
        return scores[:, prompts.twins]

    def _first_query(self, ids: Sequence[int]) -> int:
        """The first token whose attention counts; all behind it count too."""
        if self._questions is not None:
            return self._questions.start(ids)
        return len(ids) - 1 if self.queries == "last" else 0

    def _calibrated(self, scores: Tensor) -> Tensor:
        return scores if self._scales is None else self._scales.apply(self._log(scores))

    def _log(self, scores: Tensor) -> Tensor:
        return scores if self.score == "logit_mean" else scores.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _ready(self) -> PromptKeys:
        if self._prompts is None:
            raise SelectorError("selector 'attention' was not fitted: call fit or load_state first.")
        return self._prompts

    def _prepare(self) -> None:
        self._questions = QuestionFinder(self.lm) if self.queries == "question" else None
        self._prompts = prompt_keys(self.lm, [self.lm.embed_prompt(prompt) for prompt in self.bank], self.layer)

    def _fit(self, calibration: Calibration | None) -> None:
        self._prepare()
        self._scales = None
        if self.calibrate == "none" or calibration is None:
            return
        rows = [row for row, ids in enumerate(calibration.inputs) if len(ids)]
        if not rows:
            raise SelectorError("every calibration input is empty, so there is no attention to calibrate on.")
        log = self._log(self.raw_scores([calibration.inputs[row] for row in rows]))  # (N, m)
        if not bool(torch.isfinite(log).all()):
            raise SelectorError(f"attention scores of {self.lm.name} are NaN: its weights or a prompt are broken.")
        if self.calibrate == "fitted":
            self._scales = fitted(log, calibration.require_losses(len(self.bank))[rows])
        else:
            self._scales = _FROM_SCORES[self.calibrate](log)

    def _state(self) -> SelectorState:
        self._ready()
        config = {"score": self.score, "queries": self.queries, "calibrate": self.calibrate, "layer": self.layer}
        return SelectorState(config, {} if self._scales is None else self._scales._asdict())

    def _load(self, state: SelectorState) -> None:
        options = {key: state.config[key] for key in ("score", "queries", "calibrate")}
        kept = AttentionSelector(**options, layer=state.config.get("layer", 0))  # earlier states are all of layer 0
        self.score, self.queries, self.calibrate, self.layer = kept.score, kept.queries, kept.calibrate, kept.layer
        self._scales = None if self.calibrate == "none" else Scales(state.tensors["mean"], state.tensors["std"])
        if self._scales is not None and any(part.shape != (len(self.bank),) for part in self._scales):
            raise ValueError(f"scales of {len(self._scales.mean)} prompts for a bank of {len(self.bank)}")
        self._prepare()
