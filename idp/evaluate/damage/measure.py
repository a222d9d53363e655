"""From two models to what lies between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idp.evaluate.damage.material import Material, material
from idp.evaluate.damage.pair import require_alike
from idp.evaluate.damage.probes import Accuracy, ask
from idp.evaluate.damage.reading import Reading, read_both
from idp.evaluate.damage.result import Damage
from idp.evaluate.damage.weights import weight_errors
from idp.model.view import num_layers
from idp.observer import Observer, Silent
from idp.text.rows import token_rows

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["ROWS", "ROW_TOKENS", "damage"]

ROWS = 32
ROW_TOKENS = 256


def damage(
    dense: LanguageModel,
    compressed: LanguageModel,
    given: Material | None = None,
    *,
    rows: int = ROWS,
    row_tokens: int | None = None,
    own: bool = True,
    seed: int = 0,
    observer: Observer | None = None,
) -> Damage:
    """Measure what compression did to a model: weights, activations, predictions, knowledge. Nothing is changed.

    Args:
        dense: the model before compression.
        compressed: the model after it. Both are in memory at once.
        given: what is read and asked; None for text and facts of the reference world, which its models know.
        rows: rows of text.
        row_tokens: tokens of a row; None for 256, or less where the models cannot read so many.
        own: also run each compressed block on the dense model's input.
        seed: which facts of the world are asked, and of bootstrap and permutations.
        observer: is told of progress.

    Raises:
        ModelError: models that are not alike, one that computes NaN, or one without a list of decoder layers.
        TaskError: no text, too short a text, or questions that cannot be used.

    Example:
        >>> damage(load("reference-dense"), load("reference-sparse")).weight_error(layer=0)  # doctest: +SKIP
        0.39
    """
    require_alike(dense, compressed)
    given = given or material(dense.tokenizer)
    told = observer or Silent()
    shorter = min(dense, compressed, key=lambda lm: lm.max_length)
    text = token_rows(shorter, given.documents, row_tokens or min(ROW_TOKENS, shorter.max_length), rows=rows)
    told.stage("comparing weights", num_layers(dense))
    matrices, uncompared = weight_errors(dense, compressed, told.advance)
    return Damage(
        dense=dense.name,
        compressed=compressed.name,
        dtype=", ".join(dict.fromkeys(str(lm.dtype).removeprefix("torch.") for lm in (dense, compressed))),
        seed=seed,
        text=given.text,
        asked=given.asked,
        matrices=matrices,
        uncompared=uncompared,
        reading=_read(dense, compressed, text, own, seed, told),
        knowledge=_ask(dense, compressed, given, seed, told),
    )


def _read(
    dense: LanguageModel,
    compressed: LanguageModel,
    text: list[tuple[int, ...]],
    own: bool,
    seed: int,
    observer: Observer,
) -> Reading:
    observer.stage("reading the text with both", len(text))
    return read_both(dense, compressed, text, own=own, seed=seed, advance=observer.advance)


def _ask(
    dense: LanguageModel, compressed: LanguageModel, given: Material, seed: int, observer: Observer
) -> list[Accuracy]:
    probes = given.probes(dense, seed)
    if not probes:
        return []
    observer.stage("asking both", 2 * len(probes))
    return ask(dense, compressed, probes, seed=seed, advance=observer.advance)
