"""What compressing a model came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from idp.files import finite

if TYPE_CHECKING:
    from idp.compress.flexround.block import Errors

__all__ = ["Compressed"]


@dataclass(frozen=True)
class Compressed:
    """What compressing a model came to.

    Attributes:
        dense: the model it was made from.
        recipe: name and options.
        about: what the recipe does.
        options: value of every option.
        calibration: source, rows, tokens a row and digest of the calibration text, and what perplexity is measured on.
        perplexity_before: of the dense model.
        perplexity_after: of the compressed one, as it is loaded from disk.
        bytes_before: of the dense model's weights on disk, in the type the compressed one is saved in.
        bytes_after: of the weights' files.
        kind: how the result is compressed, as its files tell.
        zeros: share of zeros among the weights of the linear layers.
        parameters: of the dense model.
        seconds: that the recipe took, without loading, saving and measuring.
        blocks: errors of each block's output, where they were measured (FlexRound).
        unquantised: linear layers that a quantisation left as they were.
        seed: of what is random.
        versions: of the libraries it was made with.
    """

    dense: str
    recipe: str
    about: str
    options: Mapping[str, Any]
    calibration: Mapping[str, Any]
    perplexity_before: float
    perplexity_after: float
    bytes_before: int
    bytes_after: int
    kind: str
    zeros: float
    parameters: int
    seconds: float
    blocks: tuple[Errors, ...]
    unquantised: tuple[str, ...]
    seed: int
    versions: Mapping[str, str]

    @property
    def seconds_per_million(self) -> float:
        """Seconds per million parameters, to estimate another size by."""
        return self.seconds / (self.parameters / 1e6)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values; null stands for what overflowed."""
        blocks = [each._asdict() for each in self.blocks]
        known: dict[str, Any] = finite(
            {**asdict(self), "seconds_per_million": self.seconds_per_million, "blocks": blocks}
        )
        return known
