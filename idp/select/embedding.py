"""Choosing by what a sentence model makes of the input: the nearest description, or the nearest example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select.base import Needs, Selection, Selector, check_option, pick
from idp.select.calibration import Calibration
from idp.select.keys import cosines
from idp.select.sentences import SENTENCE_MODEL, SentenceEncoder, texts_of

__all__ = ["EmbeddingSelector", "description_of"]


class EmbeddingSelector(Selector):
    """Choose the arm that has the sentence nearest to the input, `max_j cos(s_ij, s(x))`.

    `s` is a sentence-transformers model, which reads the input's text: its token ids decoded, without special tokens.
    It is a second model beside the compressed one, which is not run. So `cost` counts no pass; its time is measured by
    `idp select compare`. It cuts what is too long for it (256 tokens by default) at the end.

    Sentences of an arm, `by="description"`: the prompt's description (`description_of`). "No prompt" has none, and is
    chosen where no cosine exceeds `threshold`; never without one.

    By `"examples"`: calibration inputs that belong to the arm, by the hints of the calibration, else by their lowest
    loss (equal inputs by their mean); of more than `examples` those which gain most over the mean of all arms. "No
    prompt" has examples like any prompt, and an arm without is never chosen. With `take="mean"` an arm has one
    sentence, the normalised mean of its examples.

    By `"auto"`: descriptions where every prompt of the bank has one, else examples.

    Scores: the cosines.

    Args:
        model: hub id or folder of the sentence model; None takes that of the state, or for fitting
            `sentence-transformers/all-MiniLM-L6-v2`.
        by: `auto`, `description` or `examples`.
        take: `nearest` or `mean` of an arm's examples.
        examples: how many an arm may have.
        threshold: the least score of "no prompt", -1 to 1.

    Raises:
        SelectorError: an unknown option or a number out of range; on fitting, a prompt without a description, or
            neither hints nor losses; on loading, a state that was made with another sentence model.
        MissingExtraError: on fitting and loading, sentence-transformers is not installed.
        ModelError: likewise, the sentence model cannot be loaded.

    Source: nearest neighbours of sentence embeddings (arXiv 1908.10084) as retrieval of prompts, arXiv 2101.06804.

    Example:
        >>> EmbeddingSelector(by="description").fit(text_bank(), lm).select([5, 6]).index  # doctest: +SKIP
        2
    """

    name: ClassVar[str] = "embedding"

    def __init__(
        self,
        *,
        model: str | None = None,
        by: str = "auto",
        take: str = "nearest",
        examples: int = 32,
        threshold: float | None = None,
    ) -> None:
        """Check and keep the options."""
        check_option(self.name, "by", by, ("auto", "description", "examples"))
        check_option(self.name, "take", take, ("mean", "nearest"))
        if examples < 1:
            raise SelectorError(f"selector 'embedding' needs 1 or more examples of an arm, not {examples}.")
        if threshold is not None and not -1 <= threshold <= 1:
            raise SelectorError(f"threshold is a cosine, -1 to 1, and not {threshold}.")
        self.model, self.by, self.take, self.examples, self.threshold = model, by, take, examples, threshold
        self._encoder: SentenceEncoder | None = None
        self._keys = torch.empty(0, 0)  # (K, e) in fp32, as sentence models compute; rows of length 1
        self._arms = torch.empty(0, dtype=torch.long)  # (K,), whose they are

    @property
    def needs(self) -> Needs:
        """Losses, which hints can stand for, unless it goes by descriptions."""
        if self._bank is not None:
            return self.needs_for(self._bank)
        return "nothing" if self.by == "description" else "losses"

    def needs_for(self, bank: PromptBank) -> Needs:
        """Nothing for a bank of descriptions."""
        return "nothing" if self._way(bank) == "description" else "losses"

    def require(self, lm: LanguageModel) -> None:
        """Load the sentence model, which is then kept."""
        self._load_encoder(self.model)

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        """Choose the arm with the nearest sentence for each input."""
        if self._encoder is None:
            raise SelectorError("selector 'embedding' was not fitted: call fit or load_state first.")
        near = cosines(self._encoder.encode(texts_of(self.lm, inputs)), self._keys.double())  # (N, K)
        scores = torch.full((len(inputs), len(self.bank) + 1), -torch.inf, dtype=torch.float64)
        scores.scatter_reduce_(1, self._arms.expand(len(inputs), -1), near, "amax")  # (N, m + 1)
        if self.threshold is not None:
            scores[:, -1].clamp_(min=self.threshold)
        return pick(scores)

    def _way(self, bank: PromptBank) -> str:
        if self.by != "auto":
            return self.by
        return "description" if all(description_of(prompt) for prompt in bank) else "examples"

    def _load_encoder(self, model: str | None) -> SentenceEncoder:
        return SentenceEncoder.load(model or SENTENCE_MODEL, "cpu" if self._lm is None else self.lm.device)

    def _fit(self, calibration: Calibration | None) -> None:
        self._encoder = self._load_encoder(self.model)
        texts, arms = self._sentences(calibration)
        keys = normalize(self._encoder.encode(texts), dim=1)  # (K, e)
        if self.take == "mean":
            keys, arms = _means(keys, arms)
        self._keys, self._arms = keys.float(), arms

    def _sentences(self, calibration: Calibration | None) -> tuple[list[str], Tensor]:
        """`K` sentences, and the arm of each."""
        if self._way(self.bank) == "description":
            return _descriptions(self.bank), torch.arange(len(self.bank))
        assert calibration is not None  # noqa: S101  (fit has checked it)
        known = calibration.distinct()
        rows, arms = _examples(known, len(self.bank), self.examples)
        return texts_of(self.lm, [known.inputs[row] for row in rows]), arms

    def _state(self) -> SelectorState:
        if self._encoder is None:
            raise SelectorError("selector 'embedding' was not fitted, so it has no state to keep.")
        options = {
            "by": self._way(self.bank),
            "take": self.take,
            "examples": self.examples,
            "threshold": self.threshold,
        }
        model = {"model": self._encoder.name, "dimension": self._encoder.dimension, "digest": self._encoder.fingerprint}
        return SelectorState({**options, **model}, {"keys": self._keys, "arms": self._arms})

    def _load(self, state: SelectorState) -> None:
        options = {key: state.config[key] for key in ("by", "take", "examples", "threshold")}
        kept, model = EmbeddingSelector(**options), state.config["model"]
        keys, arms = state.tensors["keys"], state.tensors["arms"]
        if keys.shape != (len(arms), state.config["dimension"]) or not _are_arms(arms, len(self.bank) + 1):
            raise ValueError(
                f"keys of shape {tuple(keys.shape)} for {len(arms)} sentences of {len(self.bank) + 1} arms"
            )
        self._encoder = self._load_encoder(self.model or model)
        if self._encoder.fingerprint != state.config["digest"]:
            raise SelectorError(
                f"this state of 'embedding' was made with the sentence model {model}, and {self._encoder.name} is "
                "another one: give that one with model=, or fit the selector again."
            )
        self.by, self.take, self.examples, self.threshold = kept.by, kept.take, kept.examples, kept.threshold
        self._keys, self._arms = keys, arms


def description_of(prompt: Prompt) -> str:
    """What a prompt is for, in words: its `description`, else its text, else the text it was made from; or nothing.

    Example:
        >>> description_of(Prompt("polite", text="Answer politely. "))
        'Answer politely.'
    """
    about = prompt.provenance
    return str(about.get("description") or prompt.text or about.get("text") or "").strip()


def _descriptions(bank: PromptBank) -> list[str]:
    without = next((prompt.name for prompt in bank if not description_of(prompt)), None)
    if without is not None:
        raise SelectorError(
            f"prompt {without!r} has neither a text nor a description in its provenance: choose by=examples."
        )
    return [description_of(prompt) for prompt in bank]


def _examples(calibration: Calibration, num_prompts: int, most: int) -> tuple[list[int], Tensor]:
    """Rows of the calibration that are kept as examples, and the arm of each, `(K,)`."""
    owners = calibration.owners(num_prompts)  # (N,)
    gains = torch.zeros(len(owners), dtype=torch.float64)
    if calibration.losses is not None:
        losses = calibration.require_losses(num_prompts)  # (N, m + 1)
        gains = losses.mean(dim=1) - losses.gather(1, owners[:, None])[:, 0]
    order = gains.argsort(descending=True, stable=True)  # (N,)
    rows = torch.cat([order[owners[order] == arm][:most] for arm in range(num_prompts + 1)])  # (K,)
    return rows.tolist(), owners[rows]


def _means(keys: Tensor, arms: Tensor) -> tuple[Tensor, Tensor]:
    """One key for each arm that has any: `(K, e)` and `(K,)` to `(A, e)` and `(A,)`."""
    known, places = torch.unique(arms, return_inverse=True)  # (A,), (K,)
    sums = torch.zeros(len(known), keys.shape[1], dtype=keys.dtype).index_add(0, places, keys)
    return normalize(sums, dim=1), known


def _are_arms(arms: Tensor, count: int) -> bool:
    return (
        arms.ndim == 1 and len(arms) > 0 and arms.dtype == torch.long and bool((arms >= 0).all() & (arms < count).all())
    )
