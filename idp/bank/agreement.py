"""Whether prompts of several banks can be used together, and which model the result is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from idp.bank.fingerprint import Fingerprint
from idp.errors import BankError

__all__ = ["Labelled", "common_fingerprint", "mismatch", "require_same_embeddings"]

Labelled = tuple[str, Fingerprint | None]
"""What something is called in messages, and the model it was made for."""


def common_fingerprint(labelled: Sequence[Labelled], target: Fingerprint | None = None) -> Fingerprint | None:
    """Say which model the result of prompts of several banks is for.

    Prompts live in the space of input embeddings, so everything but the weights has to agree. Where the weights differ,
    as they do between a dense model and its compressed form, only the caller knows which of the models is meant.

    Args:
        labelled: names and fingerprints; a fingerprint of None goes with any other.
        target: the model that the result is for; needed where weights differ.

    Returns:
        `target` where it is given, else the fingerprint that all have, else None.

    Raises:
        BankError: models that differ in more than weights, or in weights with no target; both are named.

    Example:
        >>> dense = Fingerprint("LlamaForCausalLM", 64, 384, "0" * 16, "1" * 16)
        >>> sparse = replace(dense, weights="2" * 16)
        >>> common_fingerprint([("dense:task", dense), ("sparse:static", sparse)], target=sparse) == sparse
        True
    """
    require_same_embeddings([*labelled, ("the target", target)])
    if target is not None:
        return target
    known = _known(labelled)
    for name, other in known[1:]:
        if other != known[0][1]:
            raise BankError(f"{mismatch(*known[0], name, other)} Say which of the two the result is for (--for BANK).")
    return known[0][1] if known else None


def require_same_embeddings(labelled: Sequence[Labelled]) -> None:
    """Check that models agree in everything but weights; a fingerprint of None goes with any other.

    Raises:
        BankError: two do not; both are named.
    """
    known = _known(labelled)
    for name, other in known[1:]:
        first, model = known[0]
        if replace(other, weights=model.weights) != model:
            raise BankError(f"{mismatch(first, model, name, other)} Only prompts of one kind of model can be combined.")


def mismatch(name: str, model: Fingerprint, other_name: str, other: Fingerprint) -> str:
    """Name two things that were made for different models, and what differs, in one sentence."""
    return (
        f"{name} was made for {model.describe()}, but {other_name} for {other.describe()}: "
        f"{'; '.join(model.differences(other))}."
    )


def _known(labelled: Sequence[Labelled]) -> list[tuple[str, Fingerprint]]:
    return [(name, fingerprint) for name, fingerprint in labelled if fingerprint is not None]
