"""What compression cost, as measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from idp.evaluate.damage.probes import Accuracy
from idp.evaluate.damage.reading import Reading
from idp.evaluate.damage.weights import MatrixError, Uncompared, combined
from idp.files import finite
from idp.stats.resampling import Interval

__all__ = ["Damage"]


@dataclass(frozen=True)
class Damage:
    """What compression did to a model.

    Attributes:
        dense: name of the model before compression.
        compressed: name of the other.
        dtype: type of the activations of both, as `float32` or `bfloat16, float16`.
        seed: of everything random.
        text: what was read.
        asked: what was asked, or why nothing was.
        matrices: error of every matrix of every layer.
        uncompared: matrices that have no counterpart.
        reading: what both made of the text.
        knowledge: what both answered; empty where nothing was asked.
    """

    dense: str
    compressed: str
    dtype: str
    seed: int
    text: str
    asked: str
    matrices: Sequence[MatrixError] = field(repr=False)
    uncompared: Sequence[Uncompared]
    reading: Reading
    knowledge: Sequence[Accuracy] = field(repr=False)

    @property
    def layers(self) -> range:
        """The numbers of the decoder layers."""
        return range(len(self.reading.path))

    @property
    def kinds(self) -> list[str]:
        """The kinds of matrices, in the order in which they stand in a layer."""
        return list(dict.fromkeys(each.kind for each in self.matrices))

    def weight_error(self, layer: int | None = None, kind: str | None = None) -> float | None:
        """Relative error of the weights of a layer (None: of all), of a kind (None: of all), taken as one matrix.

        Returns:
            `√(Σ‖W − Ŵ‖²) / √(Σ‖W‖²)`, None where there is no such matrix.
        """
        chosen = [each for each in self.matrices if layer in (None, each.layer) and kind in (None, each.kind)]
        return combined(chosen) if chosen else None

    @property
    def is_none(self) -> bool:
        """Whether nothing differs: every matrix has its counterpart, and every error and divergence is 0."""
        errors = [each.distance for each in self.matrices]
        return not self.uncompared and not any((*errors, *self.reading.path, self.reading.kl.value))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it: what is no number (infinite, or not to be had) is null."""
        read = self.reading
        tables = {
            "layers": [self._layer(layer) for layer in self.layers],
            "uncompared": [asdict(each) for each in self.uncompared],
            "knowledge": [_accuracy(each) for each in self.knowledge],
        }
        known: dict[str, Any] = finite(
            {
                **{name: getattr(self, name) for name in ("dense", "compressed", "dtype", "seed", "text", "asked")},
                "rows": read.rows,
                "row_tokens": read.row_tokens,
                "weight_error": self.weight_error(),
                "kl_nats": _interval(read.kl),
                "same_first_choice": _interval(read.same),
                "perplexity": {"dense": read.dense_perplexity, "compressed": read.compressed_perplexity},
                "nothing_differs": self.is_none,
                **tables,
            }
        )
        return known

    def _layer(self, layer: int) -> dict[str, Any]:
        own = self.reading.own
        return {
            "layer": layer,
            "output_error": self.reading.path[layer],
            "own_error": None if own is None else own[layer],
            "weight_error": self.weight_error(layer),
            "matrices": {each.name: each.error for each in self.matrices if each.layer == layer},
        }


def _accuracy(row: Accuracy) -> dict[str, Any]:
    return {
        "labels": list(row.labels),
        "questions": row.questions,
        "dense": row.dense,
        "compressed": row.compressed,
        "difference": _interval(row.difference),
        "p": row.p,
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "ci95": [interval.low, interval.high]}
