"""The selector of the IDP paper: the prompt that the input's tokens attend to most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration
from idp.select.layer0 import LayerZero, Projections

__all__ = ["AttentionSelector", "attention_scores"]

Score = Literal["joint_mean", "joint_mass", "separate_mean", "logit_mean"]
Queries = Literal["all", "last"]
Calibrate = Literal["none", "center", "zscore"]

_MAX_ROWS = 256
_MAX_LOGITS = 1 << 22
"""Attention logits held at once: 16 MB of fp32, which stay near the processor; larger tensors were slower."""

_SHIFT = 7
_SHIFT_TOLERANCE = 0.03


class AttentionSelector(Selector):
    """Choose the prompt that gets the most attention from the input's tokens in the first decoder layer.

    With layer-0 queries `q_t` of the input's tokens, keys `k_ij` of prompt `i` and keys `k_u` of the input, and one
    softmax over all prompts and the input up to `t`,

        A[h, t, i, j] = exp(q_ht . k_hij / sqrt(d_h)) / Z_ht,
        Z_ht = sum_ij exp(q_ht . k_hij / sqrt(d_h)) + sum_{u <= t} exp(q_ht . k_hu / sqrt(d_h)),
        s_i = mean over heads h, query tokens t and prompt tokens j of A[h, t, i, j].

    The largest `s_i` wins. Prompts end where the input begins. Where positions are rotary one pass sees them all;
    learned positions need one pass for each distinct length, in which prompts begin at position 0 and the input
    begins behind a prompt of that length.

    This is the published rule, kept as the reference. It compares prompts that were tuned apart from each other and
    so are on no common scale: one prompt tends to win for all inputs. `calibrate` corrects that; the router does
    better still.

    Scores: `s_i`, or its calibrated log; "no prompt" has `-inf` and is chosen for an empty input only.

    Args:
        score: `joint_mean` as above; `joint_mass`, the sum over the prompt's tokens instead of their mean;
            `separate_mean`, with the other prompts left out of `Z`; `logit_mean`, the mean logit, no softmax.
        queries: attention of `all` tokens of the input, or of the `last` one.
        calibrate: `center` subtracts from `log s_i` its mean over the calibration inputs, `zscore` divides by its
            standard deviation too. `logit_mean` is a logarithm already and is taken as it is.

    Raises:
        SelectorError: an unknown option; on fitting, an architecture whose first layer cannot be seen.

    Source: arXiv 2310.00867; the choice of the first layer and the options are readings of it, since it gives no code.

    Example:
        >>> selector = AttentionSelector(calibrate="zscore").fit(bank, lm, calibration)  # doctest: +SKIP
        >>> selector.select([5, 6, 7]).index  # doctest: +SKIP
        1
    """

    name: ClassVar[str] = "attention"

    def __init__(self, *, score: Score = "joint_mean", queries: Queries = "all", calibrate: Calibrate = "none") -> None:
        """Check and keep the options."""
        check_option(self.name, "score", score, get_args(Score))
        check_option(self.name, "queries", queries, get_args(Queries))
        check_option(self.name, "calibrate", calibrate, get_args(Calibrate))
        self.score: Score = score
        self.queries: Queries = queries
        self.calibrate: Calibrate = calibrate
        self._prompts: _PromptKeys | None = None
        self._mean: Tensor | None = None  # (m,)
        self._std: Tensor | None = None  # (m,)

    @property
    def needs(self) -> Needs:
        """Inputs without answers where scores are calibrated, else nothing."""
        return "nothing" if self.calibrate == "none" else "inputs"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the most attended prompt of each input."""
        scores = self._calibrated(self.raw_scores(inputs))  # (N, m)
        none = torch.full((len(inputs), 1), -torch.inf)  # (N, 1)
        empty = torch.tensor([not len(ids) for ids in inputs], dtype=torch.bool)  # (N,)
        scores[empty], none[empty] = -torch.inf, 0.0
        return pick(torch.cat([scores, none], dim=1))

    def raw_scores(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Return the scores `s_i` before calibration, `(N, m)` in fp32; rows of empty inputs are 0.

        Raises:
            SelectorError: the selector was not fitted.
        """
        prompts = self._keys()
        scores = torch.zeros(len(inputs), len(self.bank))  # (N, m)
        for rows in _batches(inputs, prompts):
            scores[torch.tensor(rows)] = self._scores_of([inputs[row] for row in rows], prompts)
        return scores

    def _scores_of(self, inputs: list[Sequence[int]], prompts: _PromptKeys) -> Tensor:
        lengths = torch.tensor([len(ids) for ids in inputs])  # (B,)
        steps = torch.arange(int(lengths.max()))  # (T,)
        ids = torch.full((len(inputs), len(steps)), self.lm.pad_token_id)  # (B, T), padded on the right
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        counted = _query_mask(lengths, self.queries).to(self.lm.device)  # (B, T)
        scores = torch.empty(len(inputs), len(prompts.lengths))  # (B, m)
        for start, members in prompts.starts.items():
            projections = prompts.layer.project(self.lm.embed(ids), (start + steps)[None])
            passed = attention_scores(projections, prompts.keys, prompts.lengths, counted, self.score)  # (B, m)
            scores[:, members] = passed[:, members].cpu()
        return scores[:, prompts.twins]

    def _calibrated(self, scores: Tensor) -> Tensor:
        if self._mean is None or self._std is None:
            return scores
        return (self._log(scores) - self._mean) / self._std

    def _log(self, scores: Tensor) -> Tensor:
        return scores if self.score == "logit_mean" else scores.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _keys(self) -> _PromptKeys:
        if self._prompts is None:
            raise SelectorError("selector 'attention' was not fitted: call fit or load_state first.")
        return self._prompts

    def _prepare(self) -> None:
        layer = LayerZero(self.lm)
        self._prompts = _prompt_keys(layer, [self.lm.embed_prompt(prompt) for prompt in self.bank])

    def _fit(self, calibration: Calibration | None) -> None:
        self._prepare()
        self._mean = self._std = None
        if self.calibrate == "none" or calibration is None:
            return
        inputs = [ids for ids in calibration.inputs if len(ids)]
        if not inputs:
            raise SelectorError("every calibration input is empty, so there is no attention to calibrate on.")
        log = self._log(self.raw_scores(inputs))  # (N, m)
        self._mean = log.mean(dim=0)
        self._std = _spread(log) if self.calibrate == "zscore" else torch.ones_like(self._mean)

    def _state(self) -> SelectorState:
        self._keys()
        config = {"score": self.score, "queries": self.queries, "calibrate": self.calibrate}
        if self._mean is None or self._std is None:
            return SelectorState(config)
        return SelectorState(config, {"mean": self._mean, "std": self._std})

    def _load(self, state: SelectorState) -> None:
        kept = AttentionSelector(**{key: state.config[key] for key in ("score", "queries", "calibrate")})
        self.score, self.queries, self.calibrate = kept.score, kept.queries, kept.calibrate
        self._mean = self._std = None
        if self.calibrate != "none":
            self._mean, self._std = state.tensors["mean"], state.tensors["std"]
            if self._mean.shape != (len(self.bank),) or self._std.shape != (len(self.bank),):
                raise ValueError(f"{len(self._mean)} means for a bank of {len(self.bank)}")
        self._prepare()


@dataclass(frozen=True)
class _PromptKeys:
    """The layer-0 keys of all prompts, computed once.

    Attributes:
        layer: the view of the model that made them.
        keys: `(H, sum n_i, d_h)`.
        lengths: `n_i` of each prompt.
        starts: position of an input's first token, and the prompts that are judged with it there.
        twins: for each prompt the first that equals it, itself as a rule. Twins get one score, since a sum over the
            same numbers in another place of a matrix may be rounded in another way, which would break their tie.
    """

    layer: LayerZero
    keys: Tensor
    lengths: tuple[int, ...]
    starts: dict[int, list[int]]
    twins: list[int]


def attention_scores(
    projections: Projections, keys: Tensor, lengths: Sequence[int], counted: Tensor, score: Score = "joint_mean"
) -> Tensor:
    """Score every prompt by the attention of the input's tokens.

    Args:
        projections: queries and keys of `B` inputs padded on the right.
        keys: keys of the `m` prompts one after another, `(H, N, d_h)` with `N = sum n_i`.
        lengths: `n_i` of each prompt.
        counted: `(B, T)`, True for the query tokens; at least one in a row.
        score: the rule; see `AttentionSelector`.

    Returns:
        `(B, m)` in fp32.
    """
    owner = _owner(lengths, keys)  # (N, m)
    to_prompts = projections.logits(projections.query, keys)  # (B, H, T, N)
    if score == "logit_mean":
        mass = to_prompts @ owner  # (B, H, T, m)
    elif score == "separate_mean":
        mass = _separate_mass(to_prompts, _to_input(projections), lengths)  # (B, H, T, m)
    else:
        mass = _joint_mass(to_prompts, _to_input(projections), owner)  # (B, H, T, m)
    mass = torch.where(counted[:, None, :, None], mass, 0.0).sum(dim=(1, 2))  # (B, m)
    mass = mass / (keys.shape[0] * counted.sum(dim=1, keepdim=True))
    return mass if score == "joint_mass" else mass / owner.sum(dim=0)


def _owner(lengths: Sequence[int], keys: Tensor) -> Tensor:
    """Return `(N, m)`, 1 where a key is a prompt's own: multiplying by it sums over each prompt's tokens."""
    prompts = torch.arange(len(lengths))
    return (torch.repeat_interleave(prompts, torch.tensor(lengths))[:, None] == prompts).to(keys)


def _to_input(projections: Projections) -> Tensor:
    """Return the input's logits on itself `(B, H, T, T)`, `-inf` on what comes later.

    Padding stands behind every token that counts, so looking back only is enough to miss it.
    """
    logits = projections.logits(projections.query, projections.key)  # (B, H, T, T)
    future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)  # (T, T)
    return logits.masked_fill_(future, -torch.inf)


def _joint_mass(to_prompts: Tensor, to_input: Tensor, owner: Tensor) -> Tensor:
    """Return what one softmax over all prompts and the input gives each prompt, `(B, H, T, m)`."""
    largest = torch.maximum(to_prompts.amax(dim=-1), to_input.amax(dim=-1))[..., None]  # (B, H, T, 1)
    # In place: these are the largest tensors of the whole rule.
    mass = to_prompts.sub_(largest).exp_() @ owner  # (B, H, T, m)
    own = to_input.sub_(largest).exp_().sum(dim=-1, keepdim=True)  # (B, H, T, 1)
    return mass / (mass.sum(dim=-1, keepdim=True) + own)


def _separate_mass(to_prompts: Tensor, to_input: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return what each prompt gets where it is alone with the input, `(B, H, T, m)`."""
    own = to_input.logsumexp(dim=-1)  # (B, H, T)
    # In logs, since a prompt may lie far below another that it has nothing to do with.
    each = [part.logsumexp(dim=-1) for part in torch.split(to_prompts, list(lengths), dim=-1)]
    return torch.sigmoid(torch.stack(each, dim=-1) - own[..., None])


def _prompt_keys(layer: LayerZero, embeddings: list[Tensor]) -> _PromptKeys:
    """Compute every prompt's keys where the prompt stands: before the input, or at position 0."""
    lengths = tuple(len(embedding) for embedding in embeddings)
    longest = max(lengths)
    if _shift_invariant(layer, embeddings[lengths.index(longest)]):
        offsets = [longest - length for length in lengths]
        starts = {longest: list(range(len(lengths)))}
    else:
        offsets = [0] * len(lengths)
        starts = {n: [i for i, length in enumerate(lengths) if length == n] for n in sorted(set(lengths))}
    keys = [
        layer.project(embedding[None], torch.arange(offset, offset + len(embedding))[None]).key[0]  # (H, n, d_h)
        for embedding, offset in zip(embeddings, offsets, strict=True)
    ]
    twins = [next(i for i, first in enumerate(embeddings) if torch.equal(first, one)) for one in embeddings]
    return _PromptKeys(layer, torch.cat(keys, dim=1), lengths, starts, twins)


def _shift_invariant(layer: LayerZero, embedding: Tensor) -> bool:
    """Measure whether logits depend on relative positions only: rotary ones do, learned ones do not."""
    positions = torch.arange(len(embedding))[None]  # (1, n)
    here, there = (layer.project(embedding[None], positions + shift) for shift in (0, _SHIFT))
    logits, shifted = here.logits(here.query, here.key), there.logits(there.query, there.key)  # (1, H, n, n)
    return bool((logits - shifted).norm() <= _SHIFT_TOLERANCE * logits.norm())


def _query_mask(lengths: Tensor, queries: Queries) -> Tensor:
    """Mark the tokens whose attention counts: `(B, T)` for inputs `(B,)` tokens long, padded on the right."""
    steps = torch.arange(int(lengths.max()))  # (T,)
    return steps == lengths[:, None] - 1 if queries == "last" else steps < lengths[:, None]


def _batches(inputs: Sequence[Sequence[int]], prompts: _PromptKeys) -> Iterator[list[int]]:
    """Group the rows of inputs that are not empty by length, as many as the memory for their logits allows."""
    heads, num_keys, _ = prompts.keys.shape
    batch: list[int] = []
    for row in sorted((row for row, ids in enumerate(inputs) if len(ids)), key=lambda row: len(inputs[row])):
        length = len(inputs[row])  # the longest so far
        logits = (len(batch) + 1) * heads * length * (num_keys + length)
        if batch and (len(batch) == _MAX_ROWS or logits > _MAX_LOGITS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _spread(log: Tensor) -> Tensor:
    """Return the standard deviation of each column `(m,)`, 1 where a column does not vary."""
    std = log.std(dim=0, correction=0)
    return torch.where(std > 1e-6, std, torch.ones_like(std))
