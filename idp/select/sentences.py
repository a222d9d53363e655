"""What a small sentence model says an input is about: one vector a text."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from idp.errors import ModelError, needing
from idp.model.aliases import ModelSpec
from idp.model.attempt import attempt, quiet_progress
from idp.model.fingerprint import tensors_hash, tokenizer_hash
from idp.model.loaded import LanguageModel

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["SENTENCE_MODEL", "SentenceEncoder", "texts_of"]

SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""Hub id of the sentence model that is taken unless another is named: 22 million weights, 384 numbers a text."""

_PATIENCE = 10.0
"""Seconds to wait for the hub."""

_DIGITS = 16


class SentenceEncoder:
    """A sentence-transformers model: texts in, vectors out.

    Texts longer than the model reads (256 of its tokens for the default one) are cut at their end.

    Args:
        name: what it was loaded by.
        model: the model, in evaluation mode.

    Source: arXiv 1908.10084.

    Example:
        >>> SentenceEncoder.load().encode(["Who wrote it?", "Who is the author?"]).shape  # doctest: +SKIP
        torch.Size([2, 384])
    """

    def __init__(self, name: str, model: SentenceTransformer) -> None:
        """Keep the model."""
        self.name, self._model = name, model

    @classmethod
    def load(cls, name: str = SENTENCE_MODEL, device: torch.device | str = "cpu") -> SentenceEncoder:
        """Load a sentence model; the last two that a process loaded are kept.

        Only safetensors weights are read, and no code that comes with a model is run. A copy in the hub's cache is
        used without asking the hub. A hub that is not reached is given up after ten seconds.

        Args:
            name: a hub id, or the folder of a saved model.
            device: where it is to run.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ModelError: no such folder or model, the hub cannot be reached, or it cannot be read.
        """
        return _loaded(str(name), str(device))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: `N` texts, empty ones too.

        Returns:
            `(N, e)` in fp64 on the CPU, as the model gives them: not every model's have length 1.
        """
        if not texts:
            return torch.empty(0, self.dimension, dtype=torch.float64)
        found: Tensor = self._model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)  # (N, e)
        return found.to("cpu", torch.float64)

    @cached_property
    def dimension(self) -> int:
        """The width `e` of an embedding."""
        return int(self._model.get_embedding_dimension())

    @cached_property
    def fingerprint(self) -> str:
        """What tells models apart, 16 hexadecimal digits: weights, vocabulary, and how tokens are pooled.

        It is the same for a hub id and a folder that holds a copy, on any device and in any floating-point type.
        """
        steps = [(type(module).__name__, str(getattr(module, "pooling_mode", ""))) for module in self._model]
        parts = [tensors_hash(self._model.state_dict()), tokenizer_hash(self._model.tokenizer), steps]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:_DIGITS]


def texts_of(lm: LanguageModel, inputs: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts of token ids as `lm` reads them, without its special tokens.

    Example:
        >>> texts_of(lm, [[1, 15043]])  # doctest: +SKIP
        ['Hello']
    """
    rows = [list(ids) for ids in inputs]
    return list(lm.tokenizer.batch_decode(rows, skip_special_tokens=True)) if rows else []


@lru_cache(maxsize=2)
def _loaded(name: str, device: str) -> SentenceEncoder:
    with needing("embeddings of sentences need sentence-transformers", "embed"):
        import sentence_transformers  # noqa: F401  (takes seconds, and a model may take many more)
    with quiet_progress():
        return SentenceEncoder(name, _found(ModelSpec(name, name), device))


def _found(spec: ModelSpec, device: str) -> SentenceTransformer:
    """The model from a folder, from the hub's cache, or from the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(spec.source).is_dir():
        return _read(spec, device)
    try:
        cached = try_to_load_from_cache(spec.source, "modules.json") is not None
    except HFValidationError as error:
        raise ModelError(f"there is no folder {spec.source}; a hub id works as well.") from error
    if cached:
        with contextlib.suppress(ModelError):  # half a download is gone on with
            return _read(spec, device)
    _ask_hub(spec)
    return _read(spec, device, local_files_only=False)


def _ask_hub(spec: ModelSpec) -> None:
    """Find out whether the hub has the model: where it cannot be reached, loading would try again for a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        attempt(spec, "list of files", lambda: HfApi().model_info(spec.source, timeout=_PATIENCE))
    except ModelError as error:
        raise ModelError(
            f"{str(error).rstrip('.')} (it was looked for as a folder and in {HF_HUB_CACHE}). Where there is no hub, "
            "give a folder that holds the model: model=FOLDER."
        ) from error


def _read(spec: ModelSpec, device: str, *, local_files_only: bool = True) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    safe: dict[str, Any] = {"trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}
    return attempt(
        spec,
        "configuration and weights",
        lambda: SentenceTransformer(spec.source, device=device, local_files_only=local_files_only, **safe),
    )
