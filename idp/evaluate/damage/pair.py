"""Two models that can be laid side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from idp.errors import ModelError
from idp.model.view import decoder_layers, num_layers

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["layer_pairs", "require_alike"]


def require_alike(dense: LanguageModel, compressed: LanguageModel) -> None:
    """Check that one model can be a compressed form of the other.

    Raises:
        ModelError: another architecture, depth, width, vocabulary or tokenizer; the message says what differs.
    """
    ours, theirs = _facts(dense), _facts(compressed)
    for name, value in ours.items():
        if theirs[name] != value:
            raise ModelError(
                f"{dense.name} and {compressed.name} are not the same model twice: the {name} is {value} in one and "
                f"{theirs[name]} in the other. Give a model and what compression made of it."
            )


def _facts(lm: LanguageModel) -> dict[str, object]:
    return {
        "architecture": lm.fingerprint.architecture,
        "number of layers": num_layers(lm),
        "width": lm.hidden_size,
        "number of token embeddings": lm.vocab_size,
        "tokenizer (its hash)": lm.fingerprint.tokenizer,
    }


def layer_pairs(dense: LanguageModel, compressed: LanguageModel) -> list[tuple[nn.Module, nn.Module]]:
    """The decoder layers of two alike models, side by side.

    Raises:
        ModelError: the architecture has no list of decoder layers.
    """
    return list(zip(decoder_layers(dense), decoder_layers(compressed), strict=True))
