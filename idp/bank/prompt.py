"""A prompt: words, or vectors that stand in front of the words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from idp.errors import BankError

__all__ = ["Prompt"]


@dataclass(frozen=True, eq=False)
class Prompt:
    """A named prompt: either a text, which fits any model, or a soft prompt tuned for one.

    Attributes:
        name: what the prompt is called in banks, messages and results.
        text: the words of a text prompt, kept as they are, spaces and line ends included.
        embedding: the `num_virtual_tokens` vectors of a soft prompt, `(n, d)`; kept detached, in fp32, on the CPU.
        provenance: where the prompt comes from (init, corpus, objective, steps, seed ...), JSON values only.

    Raises:
        BankError: no name; neither or both of text and embedding; an empty text; an embedding that is not a
            matrix of at least one row, or holds NaN or infinity.

    Source: soft prompts, arXiv 2104.08691 (Lester et al. 2021), section 2.

    Example:
        >>> Prompt("polite", text="Answer politely. ").kind
        'text'
    """

    name: str
    text: str | None = None
    embedding: Tensor | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the prompt and take its own copy of what may change."""
        if not isinstance(self.name, str) or not self.name.strip():
            raise BankError("a prompt needs a name: give it one that says what it does.")
        if (self.text is None) == (self.embedding is None):
            raise BankError(f"prompt {self.name!r} needs either a text or an embedding, and not both.")
        if self.embedding is None:
            _check_text(self.name, self.text)
        else:
            object.__setattr__(self, "embedding", _checked_embedding(self.name, self.embedding))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    @property
    def kind(self) -> Literal["text", "soft"]:
        """Whether the prompt is made of words or of vectors."""
        return "text" if self.embedding is None else "soft"

    @property
    def digest(self) -> str:
        """What the prompt does to a model, in 32 hexadecimal digits: its text or numbers, whatever it is called."""
        content = b"text" + str(self.text).encode() if self.embedding is None else _bytes(self.embedding)
        return hashlib.sha256(content).hexdigest()[:32]

    def __eq__(self, other: object) -> bool:
        """Compare by value: same name, kind, content and provenance."""
        if not isinstance(other, Prompt):
            return NotImplemented
        if (self.name, self.text, self.provenance) != (other.name, other.text, other.provenance):
            return False
        if self.embedding is None or other.embedding is None:
            return self.embedding is other.embedding
        return torch.equal(self.embedding, other.embedding)

    def __hash__(self) -> int:
        """Hash what equality compares and costs little."""
        return hash((self.name, self.text))


def _bytes(embedding: Tensor) -> bytes:
    return f"soft{tuple(embedding.shape)}".encode() + embedding.numpy().tobytes()


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise BankError(f"the text of prompt {name!r} is {text!r}, which is not a string.")
    if not text.strip():
        raise BankError(f'the text of prompt {name!r} is empty: for "no prompt" use index -1, not an empty prompt.')


def _checked_embedding(name: str, embedding: Tensor) -> Tensor:
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        raise BankError(f"the embedding of prompt {name!r} is not a tensor of floating-point numbers.")
    if embedding.ndim != 2 or 0 in embedding.shape:
        raise BankError(f"the embedding of prompt {name!r} has shape {tuple(embedding.shape)}, not (n, d) with n > 0.")
    values = embedding.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()  # (n, d)
    if not bool(torch.isfinite(values).all()):
        raise BankError(f"the embedding of prompt {name!r} holds NaN or infinity: its tuning diverged.")
    return values
