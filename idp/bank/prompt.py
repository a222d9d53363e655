"""A prompt: words, or vectors that stand in front of the words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, overload

import torch
from torch import Tensor

from idp.bank.tensor_file import Place, TensorFile
from idp.errors import BankError

__all__ = ["Prompt", "Stored"]

_NO_PROVENANCE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stored:
    """The embedding of a prompt that stays in the file of its bank until it is asked for.

    Attributes:
        file: the file.
        place: where in it, `(n, d)`.
        digest: what the prompt's digest has to be; None where nobody wrote it down.
    """

    file: TensorFile
    place: Place
    digest: str | None = None

    def read(self, name: str) -> Tensor:
        """Read the embedding of prompt `name` and check all that is checked of one in memory, and its digest.

        Raises:
            BankError: the file is damaged, or the embedding holds NaN or infinity.
        """
        values = _checked_embedding(name, self.file.read(self.place))  # (n, d)
        if self.digest not in (None, _digest(values)):
            raise BankError(f"{self.file.path} is damaged: prompt {name!r} does not have the numbers it was made of.")
        return values


class _Embedding:
    """The field of an embedding: a tensor that is kept, or one that is read whenever it is asked for."""

    @overload
    def __get__(self, prompt: None, owner: type) -> None: ...

    @overload
    def __get__(self, prompt: Prompt, owner: type) -> Tensor | None: ...

    def __get__(self, prompt: Prompt | None, owner: type) -> Tensor | None:
        if prompt is None:
            return None  # what a dataclass takes as the field's default
        kept: Tensor | Stored | None = prompt.__dict__["_kept"]
        return kept.read(prompt.name) if isinstance(kept, Stored) else kept

    def __set__(self, prompt: Prompt, value: Tensor | Stored | None) -> None:
        prompt.__dict__["_kept"] = value


@dataclass(frozen=True, eq=False)
class Prompt:
    """A named prompt: either a text, which fits any model, or a soft prompt tuned for one.

    Attributes:
        name: what the prompt is called in banks, messages and results.
        text: the words of a text prompt, kept as they are, spaces and line ends included.
        embedding: the `num_virtual_tokens` vectors of a soft prompt, `(n, d)`; kept detached, in fp32, on the CPU. One
            that is given as `Stored` is read from its file, and checked, each time that it is asked for.
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
    embedding: _Embedding = _Embedding()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the prompt and take its own copy of what may change."""
        if not isinstance(self.name, str) or not self.name.strip():
            raise BankError("a prompt needs a name: give it one that says what it does.")
        kept = self.__dict__["_kept"]
        if (self.text is None) == (kept is None):
            raise BankError(f"prompt {self.name!r} needs either a text or an embedding, and not both.")
        if kept is None:
            _check_text(self.name, self.text)
        elif isinstance(kept, Stored):
            _check_shape(self.name, kept.place.dtype, kept.place.shape)
        else:
            object.__setattr__(self, "embedding", _checked_embedding(self.name, kept))
        own = MappingProxyType(dict(self.provenance)) if self.provenance else _NO_PROVENANCE
        object.__setattr__(self, "provenance", own)

    @property
    def kind(self) -> Literal["text", "soft"]:
        """Whether the prompt is made of words or of vectors."""
        return "text" if self.shape is None else "soft"

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Length and width `(n, d)` of a soft prompt, for which nothing is read; None of a text."""
        kept = self.__dict__["_kept"]
        return kept.place.shape if isinstance(kept, Stored) else None if kept is None else tuple(kept.shape)

    @property
    def digest(self) -> str:
        """What the prompt does to a model, in 32 hexadecimal digits: its text or numbers, whatever it is called.

        Of an embedding in a file it is what the bank says, which is checked whenever the embedding is read.
        """
        kept = self.__dict__["_kept"]
        if isinstance(kept, Stored) and kept.digest is not None:
            return kept.digest
        values = self.embedding  # (n, d)
        return _hash(b"text" + str(self.text).encode()) if values is None else _digest(values)

    def __eq__(self, other: object) -> bool:
        """Compare by value: same name, kind, content and provenance."""
        if not isinstance(other, Prompt):
            return NotImplemented
        if (self.name, self.text, self.provenance) != (other.name, other.text, other.provenance):
            return False
        own, others = self.embedding, other.embedding
        return own is others if own is None or others is None else torch.equal(own, others)

    def __hash__(self) -> int:
        """Hash what equality compares and costs little."""
        return hash((self.name, self.text))


def _digest(embedding: Tensor) -> str:
    return _hash(f"soft{tuple(embedding.shape)}".encode() + embedding.numpy().tobytes())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _check_text(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise BankError(f"the text of prompt {name!r} is {text!r}, which is not a string.")
    if not text.strip():
        raise BankError(f'the text of prompt {name!r} is empty: for "no prompt" use index -1, not an empty prompt.')


def _checked_embedding(name: str, embedding: Tensor) -> Tensor:
    if not isinstance(embedding, Tensor):
        raise BankError(f"the embedding of prompt {name!r} is not a tensor of floating-point numbers.")
    _check_shape(name, embedding.dtype, tuple(embedding.shape))
    values = embedding.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()  # (n, d)
    if not bool(torch.isfinite(values).all()):
        raise BankError(f"the embedding of prompt {name!r} holds NaN or infinity: its tuning diverged.")
    return values


def _check_shape(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if not dtype.is_floating_point:
        raise BankError(f"the embedding of prompt {name!r} is not a tensor of floating-point numbers.")
    if len(shape) != 2 or 0 in shape:
        raise BankError(f"the embedding of prompt {name!r} has shape {shape}, not (n, d) with n > 0.")
