"""Documents as rows of equally many tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from idp.errors import TaskError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["token_rows"]

_LOG = logging.getLogger(__name__)


def token_rows(
    lm: LanguageModel,
    documents: Iterable[str],
    row_tokens: int,
    *,
    rows: int | None = None,
    special_tokens: bool = False,
) -> list[tuple[int, ...]]:
    """Cut documents into rows of equally many tokens, across their borders.

    Documents are joined by the end token (by an empty line where the tokenizer has none). Of a row of `L` tokens the
    first is read and not predicted, which leaves `L - 1` targets.

    Args:
        lm: the model whose tokenizer is used.
        documents: texts; no more of them are read than the rows need.
        row_tokens: length `L` of a row.
        rows: most rows; None for all.
        special_tokens: begin every document as the tokenizer begins a text, as a rule with the begin token.

    Returns:
        The rows; an incomplete one at the end is kept only where it is the only one.

    Raises:
        TaskError: less than two tokens of text, or a length that makes no row or does not fit into the model's context.

    Source: arXiv 2305.11186 (`compress-then-prompt`), which cuts its corpus so.

    Example:
        >>> len(token_rows(lm, ["The river runs past the mill."], 4))  # doctest: +SKIP
        1
    """
    if not 2 <= row_tokens <= lm.max_length:
        raise TaskError(f"rows of {row_tokens} tokens are not possible; {lm.name} can be given 2 to {lm.max_length}.")
    if rows is not None and rows < 1:
        raise TaskError(f"cannot make {rows} rows of text; ask for 1 or more.")
    tokens = _tokens(lm, documents, special_tokens)
    found: list[tuple[int, ...]] = []
    while (rows is None or len(found) < rows) and (row := tuple(islice(tokens, row_tokens))):
        if found and len(row) < row_tokens:
            break
        found.append(row)
    if not found or len(found[0]) < 2:
        raise TaskError("the text has less than two tokens, so there is nothing to predict; give more of it.")
    if rows is not None and len(found) < rows:
        _LOG.warning("the text is enough for %d of %d rows of %d tokens", len(found), rows, row_tokens)
    return found


def _tokens(lm: LanguageModel, documents: Iterable[str], special: bool) -> Iterator[int]:
    def tokenized(text: str, special: bool = special) -> list[int]:
        ids: list[int] = lm.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    between = tokenized("\n\n", False) if lm.eos_token_id is None else [lm.eos_token_id]
    for number, document in enumerate(documents):
        if number:
            yield from between
        yield from tokenized(document)
