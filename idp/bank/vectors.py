"""Prompt vectors: what tuning did to a prompt, as something to add, scale, compare and put on another prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from idp.bank.agreement import common_fingerprint, require_same_embeddings
from idp.bank.fingerprint import Fingerprint
from idp.bank.prompt import Prompt
from idp.errors import BankError

__all__ = ["PromptVector", "is_vector", "require_no_vectors", "similarities"]


@dataclass(frozen=True, eq=False)
class PromptVector:
    """The difference between a tuned prompt and the prompt it was started from, `tau = theta - theta_0`.

    Vectors are added (`a + b`), subtracted (`a - b`), negated (`-a`) and scaled (`0.5 * a`), and put on any prompt of
    their shape with `apply`. What is combined has to have one shape and one model; `idp.bank.agreement` says how
    prompts of a dense and of a compressed model are brought together. In a bank a vector is a soft prompt whose
    provenance says `"vector": true`, and `of`, `plus`, `minus`, `times`: what it was made of.

    Attributes:
        name: what the vector is called; the result of an operation is called by its formula.
        delta: the numbers, `(n, d)`; kept detached, in fp32, on the CPU.
        fingerprint: the model the vector is for; None goes with any.
        provenance: how it was made, JSON values only.

    Raises:
        BankError: no name, or numbers that are not a finite matrix of at least one row.

    Source: task prompt vectors, arXiv 2408.01119 (Belanec et al. 2024).

    Example:
        >>> init = Prompt("init", embedding=torch.tensor([[1.0, 2.0]]))
        >>> tuned = Prompt("sums", embedding=torch.tensor([[1.5, 0.0]]))
        >>> vector = PromptVector.between(tuned, init)
        >>> vector.name, vector.delta.tolist(), (2 * vector).apply(init).embedding.tolist()
        ('sums - init', [[0.5, -2.0]], [[2.0, -2.0]])
    """

    name: str
    delta: Tensor
    fingerprint: Fingerprint | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers as those of the prompt that the vector is stored as."""
        stored = Prompt(self.name, embedding=self.delta, provenance={**self.provenance, "vector": True})
        object.__setattr__(self, "delta", stored.embedding)
        object.__setattr__(self, "provenance", stored.provenance)

    @classmethod
    def between(cls, tuned: Prompt, init: Prompt, fingerprint: Fingerprint | None = None) -> PromptVector:
        """Take what lies between two soft prompts of one shape: `tuned - init`.

        Args:
            tuned: the prompt `theta`, `(n, d)`.
            init: the prompt `theta_0` that its tuning started from, or any other, `(n, d)`.
            fingerprint: the model that the vector is for.

        Raises:
            BankError: a text, a vector, or prompts of different shapes.
        """
        theta, start = _rows_of(tuned), _rows_of(init)  # (n, d) each
        _require_same_shape(tuned.name, theta, init.name, start)
        made_of = {"of": tuned.name, "minus": init.name}
        return cls(f"{tuned.name} - {init.name}", _finite(theta - start, tuned.name), fingerprint, made_of)

    @classmethod
    def from_prompt(cls, prompt: Prompt, fingerprint: Fingerprint | None = None) -> PromptVector:
        """Read a vector that was stored as a prompt.

        Args:
            prompt: what `to_prompt` returned.
            fingerprint: the model that the vector is for, that of its bank.

        Raises:
            BankError: the prompt is not a vector.
        """
        if prompt.embedding is None or not is_vector(prompt):
            raise BankError(
                f"{prompt.name!r} is a prompt and not a vector; make one of it and its init with "
                "idp bank vector difference."
            )
        return cls(prompt.name, prompt.embedding, fingerprint, prompt.provenance)

    def to_prompt(self) -> Prompt:
        """Return the vector as a bank stores it, a soft prompt marked as a vector."""
        return Prompt(self.name, embedding=self.delta, provenance=self.provenance)

    def apply(self, init: Prompt, weight: float = 1.0) -> Prompt:
        """Put the vector on a prompt: `init + weight * delta`.

        Args:
            init: any soft prompt of the vector's shape, `(n, d)`; not necessarily the one it was tuned from.
            weight: how much of the vector; 0 gives the numbers of `init`.

        Returns:
            A soft prompt for the vector's model, to be used as it is or tuned further.

        Raises:
            BankError: a text, a vector, another shape, or a weight that is not a finite number.
        """
        start = _rows_of(init)  # (n, d)
        _require_same_shape(init.name, start, self.name, self.delta)
        rows = start + _checked_weight(weight) * self.delta  # (n, d)
        name = f"{init.name} + {_factor(weight)}{_term(self.name)}"
        provenance = {"init": init.name, "plus": self.name, "times": weight}
        return Prompt(name, embedding=_finite(rows, name), provenance=provenance)

    def similarity(self, other: PromptVector) -> float:
        """Return the cosine of the two vectors' means over tokens, between -1 and 1; see `similarities`."""
        return float(similarities([self, other])[0, 1])

    def __add__(self, other: PromptVector) -> PromptVector:
        return self._with(other, 1, f"{self.name} + {other.name}", "plus")

    def __sub__(self, other: PromptVector) -> PromptVector:
        return self._with(other, -1, f"{self.name} - {_term(other.name)}", "minus")

    def __neg__(self) -> PromptVector:
        return replace(self, name=f"-{_term(self.name)}", delta=-self.delta, provenance={"minus": self.name})

    def __mul__(self, weight: float) -> PromptVector:
        name = f"{_factor(_checked_weight(weight))}{_term(self.name)}"
        rows = _finite(weight * self.delta, name)  # (n, d)
        return replace(self, name=name, delta=rows, provenance={"of": self.name, "times": weight})

    __rmul__ = __mul__

    def _with(self, other: PromptVector, sign: int, name: str, word: str) -> PromptVector:
        _require_same_shape(self.name, self.delta, other.name, other.delta)
        model = common_fingerprint([(self.name, self.fingerprint), (other.name, other.fingerprint)])
        rows = _finite(torch.add(self.delta, other.delta, alpha=sign), name)  # (n, d)
        return PromptVector(name, rows, model, {"of": self.name, word: other.name})


def similarities(vectors: Sequence[PromptVector]) -> Tensor:
    """Compare vectors: the cosines of their means over tokens, `cos(mean_rows a, mean_rows b)`.

    Vectors of models that differ in weights only may be compared.

    Args:
        vectors: of one shape, `k` of them.

    Returns:
        `(k, k)` in fp64: symmetric, 1 on the diagonal.

    Raises:
        BankError: no vectors, different shapes or models, or a vector whose mean is zero and points nowhere.

    Source: task prompt vectors, arXiv 2408.01119.

    Example:
        >>> a = PromptVector("a", torch.tensor([[1.0, 0.0]]))
        >>> b = PromptVector("b", torch.tensor([[3.0, 4.0]]))
        >>> similarities([a, b]).tolist()
        [[1.0, 0.6], [0.6, 1.0]]
    """
    if not vectors:
        raise BankError("there are no vectors to compare.")
    for vector in vectors[1:]:
        _require_same_shape(vectors[0].name, vectors[0].delta, vector.name, vector.delta)
    require_same_embeddings([(vector.name, vector.fingerprint) for vector in vectors])
    means = torch.stack([vector.delta.double().mean(dim=0) for vector in vectors])  # (k, d)
    norms = means.norm(dim=1, keepdim=True)  # (k, 1)
    for vector, norm in zip(vectors, norms.flatten().tolist(), strict=True):
        if norm == 0:
            raise BankError(f"the mean of vector {vector.name!r} is zero, so there is no direction to compare.")
    directions = means / norms  # (k, d)
    table: Tensor = (directions @ directions.T).clamp(-1, 1).fill_diagonal_(1)  # (k, k)
    return table


def is_vector(prompt: Prompt) -> bool:
    """Whether a prompt of a bank is a stored vector, which no model should be given as a prompt."""
    return prompt.provenance.get("vector") is True


def require_no_vectors(prompts: Iterable[Prompt]) -> None:
    """Refuse vectors where prompts are needed: in front of a model, as an adapter, as a start.

    Raises:
        BankError: one of them is a vector.
    """
    for prompt in prompts:
        if is_vector(prompt):
            raise BankError(
                f"{prompt.name!r} is a vector, where a prompt is needed: add it to one (idp bank vector apply)."
            )


def _rows_of(prompt: Prompt) -> Tensor:
    """The numbers of a soft prompt, `(n, d)`."""
    if prompt.embedding is None:
        raise BankError(f"prompt {prompt.name!r} is a text; only soft prompts have vectors between them.")
    require_no_vectors([prompt])
    return prompt.embedding


def _require_same_shape(name: str, rows: Tensor, other_name: str, other: Tensor) -> None:
    if rows.shape != other.shape:
        raise BankError(
            f"{name!r} has {_size(rows)} and {other_name!r} has {_size(other)}: only what has one length and one "
            "width can be combined."
        )


def _size(rows: Tensor) -> str:
    return f"{rows.shape[0]} tokens of width {rows.shape[1]}"


def _checked_weight(weight: float) -> float:
    if not math.isfinite(weight):
        raise BankError(f"the weight of a vector is a finite number, not {weight}.")
    return weight


def _finite(rows: Tensor, name: str) -> Tensor:
    """Blame the calculation, since each of its operands was finite."""
    if not bool(torch.isfinite(rows).all()):
        raise BankError(f"the numbers of {name!r} do not fit into fp32: scale down what it is made of.")
    return rows


def _factor(weight: float) -> str:
    return "" if weight == 1 else f"{weight:g} "


def _term(name: str) -> str:
    """A formula as a part of a longer one."""
    return f"({name})" if " + " in name or " - " in name else name
