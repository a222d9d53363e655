"""The text a model is compressed with, and the text it is judged by."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from idp.errors import RecipeError, TaskError
from idp.files import public_name
from idp.text.documents import read_documents
from idp.text.rows import token_rows

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["REFERENCE", "Calibration", "CalibrationText", "calibration_text"]

_LOG = logging.getLogger(__name__)

REFERENCE = "reference"
"""Names the text that comes along: what the reference model read, in a wording it never saw."""

_EPOCH = 10_000
"""Worded as no epoch of the reference model's training was."""

_USUAL_LENGTH = 2048
_LENGTH_OF_REFERENCE = 256
"""Its documents are short, and longer rows would only join more of them."""
_JUDGED_SHARE = 5


@dataclass(frozen=True)
class Calibration:
    """Which text to compress with, and how much of it.

    Attributes:
        source: a file, a folder or a data set (`idp.text.documents`), or `reference` for the text that comes along.
        rows: rows for calibration.
        row_tokens: length of a row; None for 2,048 (256 of the text that comes along), or the model's context if that
            is shorter.
        held_out: rows of the same text that perplexity is measured on.
        field: where records keep their text.
        split: of a data set.
    """

    source: str = REFERENCE
    rows: int = 128
    row_tokens: int | None = None
    held_out: int = 32
    field: str = "text"
    split: str = "train"


@dataclass(frozen=True)
class CalibrationText:
    """Rows of equally many tokens.

    Attributes:
        source: what was read.
        rows: for calibration.
        held_out: for perplexity; the rows that follow in the same text, or none where it was too short.
    """

    source: str
    rows: list[tuple[int, ...]]
    held_out: list[tuple[int, ...]]

    @property
    def digest(self) -> str:
        """SHA-256 of the calibration rows' token ids, the first 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Return what is worth remembering of it."""
        judged = f"{len(self.judged)} rows {'held out' if self.held_out else 'of calibration'}"
        about = {"source": self.source, "rows": len(self.rows), "row_tokens": len(self.rows[0])}
        return {**about, "digest": self.digest, "perplexity_on": judged}

    @property
    def judged(self) -> list[tuple[int, ...]]:
        """The rows perplexity is measured on: those held out, else those of calibration."""
        return self.held_out or self.rows


def calibration_text(lm: LanguageModel, wanted: Calibration) -> CalibrationText:
    """Read and cut calibration text; documents begin with the begin token, as those that a model was trained on.

    Args:
        lm: the model whose tokenizer is used.
        wanted: what to read, and how much of it.

    Raises:
        RecipeError: the text is shorter than one row, or no rows are asked for.
        TaskError: the source cannot be read.

    Example:
        >>> len(calibration_text(lm, Calibration("wiki.txt", rows=64)).rows)  # doctest: +SKIP
        64
    """
    source, rows, held_out = wanted.source, wanted.rows, wanted.held_out
    told = source == REFERENCE
    length = wanted.row_tokens or min(_LENGTH_OF_REFERENCE if told else _USUAL_LENGTH, lm.max_length)
    if rows < 1 or held_out < 0:
        raise RecipeError(f"cannot calibrate on {rows} rows and judge on {held_out}; ask for 1 or more, and 0 or more.")
    documents = _told() if told else read_documents(source, field=wanted.field, split=wanted.split)
    try:
        found = token_rows(lm, documents, length, rows=rows + held_out, special_tokens=True)
    except TaskError as error:
        raise RecipeError(f"calibration text {source}: {error}") from error
    if len(found[0]) < length:
        raise RecipeError(
            f"calibration text {source} has {len(found[0])} tokens, less than one row of {length}: give more text, or "
            "ask for shorter rows (--row-tokens)."
        )
    # Of a text that is too short for both, a fifth at most is held out.
    kept = min(rows, len(found) - min(held_out, len(found) // _JUDGED_SHARE))
    text = CalibrationText(public_name(source), found[:kept], found[kept:])
    if held_out and not text.held_out:
        _LOG.warning("the text is too short to hold some of it out: perplexity is that of the calibration text")
    return text


def _told() -> Iterator[str]:
    """The reference world's text, epoch after epoch."""
    from idp.reference.corpus import epoch_documents
    from idp.reference.world import build_world

    world = build_world(0)
    epochs: Iterable[int] = count(_EPOCH)
    return (document for epoch in epochs for document in epoch_documents(world, epoch))
