"""What a prompt is tuned on: a context and its possible continuations, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idp.errors import TaskError
from idp.run.packing import Request

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Example", "encode"]


@dataclass(frozen=True)
class Example:
    """A context with one or more continuations, one of which is right.

    Attributes:
        context: token ids that are read; a running text has the prefix token only.
        continuations: token ids of each option, none of them empty.
        answer: index of the right one.
        group: the task it comes from.

    Raises:
        TaskError: no context, an empty continuation, or an answer that is none of them.

    Example:
        >>> Example((1, 7), ((4,), (5, 6)), answer=1, group="easy").right
        (5, 6)
    """

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    answer: int
    group: str

    def __post_init__(self) -> None:
        """Check what everything later relies on."""
        if not self.context:
            raise TaskError(f"an example of {self.group!r} has no context; begin it with the bos or eos token.")
        if not self.continuations or not all(self.continuations):
            raise TaskError(f"an example of {self.group!r} has an option without tokens; leave the example out.")
        if not 0 <= self.answer < len(self.continuations):
            raise TaskError(
                f"an example of {self.group!r} has answer {self.answer}, but only {len(self.continuations)} options."
            )

    @property
    def right(self) -> tuple[int, ...]:
        """Token ids of the right continuation."""
        return self.continuations[self.answer]

    @property
    def is_text(self) -> bool:
        """Whether this is running text: nothing to read but the prefix token, and nothing to choose."""
        return len(self.context) == 1 and len(self.continuations) == 1

    @property
    def request(self) -> Request:
        """The question to `idp.run.score`."""
        return Request(self.context, self.continuations)


def encode(lm: LanguageModel, context: str, continuations: Sequence[str], answer: int, group: str) -> Example:
    r"""Tokenize as lm-eval does, so that prompts are tuned on the very tokens they are measured on.

    `whole = tok(context + continuation)` is cut behind as many tokens as `tok(context)` has, both with the tokenizer's
    own special tokens; spaces that end the context go to the continuation. An empty context stands for running text:
    the prefix token (bos, else eos) is the context, and the text with its special tokens the continuation.

    Args:
        lm: the model whose tokenizer is used.
        context: the text that is read.
        continuations: the options, each with the space that separates it from the context.
        answer: index of the right option.
        group: the task.

    Returns:
        The example.

    Raises:
        TaskError: an option gives no tokens of its own, or the answer is none of the options.

    Source: `TemplateLM._encode_pair` and `HFLM.loglikelihood_rolling` of lm-eval 0.4.13.

    Example:
        >>> encode(lm, "Question: Is it?\nAnswer:", [" yes", " no"], 0, "easy").answer  # doctest: +SKIP
        0
    """
    if not context:
        return Example((lm.prefix_token_id,), tuple(_tokens(lm, text) for text in continuations), answer, group)
    kept = context.rstrip()
    read = _tokens(lm, kept)
    spaces = context[len(kept) :]
    options = tuple(_tokens(lm, kept + spaces + text)[len(read) :] for text in continuations)
    return Example(read or (lm.prefix_token_id,), options, answer, group)


def _tokens(lm: LanguageModel, text: str) -> tuple[int, ...]:
    # lm-eval adds no special tokens to a text that already begins with the prefix token.
    begun = text.startswith(lm.tokenizer.decode([lm.prefix_token_id]))
    return tuple(lm.tokenizer(text, add_special_tokens=not begun)["input_ids"])
