"""Where the question of an input begins: behind its instructions, passage and worked examples."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from idp.errors import SelectorError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["QuestionFinder", "question_offset"]

_MARKER = re.compile(r"^[^\S\n]*(?=(?:question|q)[^\S\n]*\d*[^\S\n]*:)", re.IGNORECASE | re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


def question_offset(text: str) -> int:
    r"""Find the first character of the question that a text ends with.

    It begins at the last line that starts with `Question:` or `Q:` (in any case; a number may stand before the colon),
    else behind the last blank line, where worked examples and passages end as a rule, else at the beginning.

    Example:
        >>> text = "Question: Is it?\nAnswer: No.\n\nQuestion: Was it?\nAnswer:"
        >>> text[question_offset(text) :]
        'Question: Was it?\nAnswer:'
    """
    for pattern in (_MARKER, _BLANK_LINE):
        if ends := [match.end() for match in pattern.finditer(text.rstrip())]:
            return ends[-1]
    return 0


class QuestionFinder:
    r"""Finds the question in token ids.

    Every token is decoded alone, once, so that each character belongs to one token and an input costs no more than
    its length. A tokenizer may drop a space where a token stands alone and show part of a character as a replacement;
    neither hides a marker, a newline or their places.

    Args:
        lm: the model whose tokenizer made the ids.

    Raises:
        SelectorError: the model has no tokenizer.

    Example:
        >>> QuestionFinder(lm).start(lm.tokenizer("Some passage.\nQuestion: Why?")["input_ids"])  # doctest: +SKIP
        4
    """

    def __init__(self, lm: LanguageModel) -> None:
        """Keep the tokenizer."""
        if lm.tokenizer is None:
            raise SelectorError(
                f"{lm.name} has no tokenizer, so the question of an input cannot be found: use queries=all or last."
            )
        self._tokenizer = lm.tokenizer
        self._texts: dict[int, str] = {}

    def start(self, ids: Sequence[int]) -> int:
        """Return the place of the question's first token, behind special ones; 0 where no token is text."""
        texts = [self._text(token) for token in ids]
        ends = list(accumulate(map(len, texts)))  # of each token's characters
        place = bisect_right(ends, question_offset("".join(texts)))
        return place if place < len(ids) else 0

    def _text(self, token: int) -> str:
        if token not in self._texts:
            text = self._tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            self._texts[token] = str(text)
        return self._texts[token]
