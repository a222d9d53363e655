"""What a bank remembers of the model its prompts were tuned for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from idp.errors import BankError

__all__ = ["Fingerprint"]


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a model: soft prompts fit the model whose fingerprint they carry, and no other.

    Attributes:
        architecture: class name of the model, such as `LlamaForCausalLM`.
        hidden_size: width of an input embedding.
        vocab_size: number of tokens the model knows.
        tokenizer: hash of the vocabulary and special tokens, 16 hexadecimal digits.
        weights: hash of the weights, 16 hexadecimal digits.

    Example:
        >>> one = Fingerprint("LlamaForCausalLM", 64, 384, "0" * 16, "1" * 16)
        >>> one.differences(Fingerprint("LlamaForCausalLM", 32, 384, "0" * 16, "1" * 16))
        ['hidden_size 64 against 32']
    """

    architecture: str
    hidden_size: int
    vocab_size: int
    tokenizer: str
    weights: str

    def to_dict(self) -> dict[str, str | int]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Make a fingerprint from what `to_dict` returned.

        Raises:
            BankError: a field is missing, unknown, or of another type.
        """
        kinds = {field.name: int if field.type == "int" else str for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != set(kinds):
            raise BankError(f"a fingerprint has the fields {', '.join(kinds)}, but {values!r} was found.")
        for name, kind in kinds.items():
            if type(values[name]) is not kind:
                raise BankError(f"field {name!r} of a fingerprint is a {kind.__name__}, not {values[name]!r}.")
        return cls(**values)

    def describe(self) -> str:
        """Return the fingerprint in one phrase, for messages."""
        return (
            f"{self.architecture} of width {self.hidden_size}, {self.vocab_size} tokens "
            f"(tokenizer {self.tokenizer[:8]}, weights {self.weights[:8]})"
        )

    def differences(self, other: Fingerprint) -> list[str]:
        """Say field by field where two fingerprints differ; an empty list means they are the same."""
        pairs = zip(self.to_dict().items(), other.to_dict().values(), strict=True)
        return [f"{name} {mine} against {theirs}" for (name, mine), theirs in pairs if mine != theirs]
