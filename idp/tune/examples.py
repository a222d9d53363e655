"""What a prompt is tuned on: a context and its possible continuations, as token ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from idp.errors import TaskError
from idp.run.packing import Request

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Example", "amid", "as_text", "encode", "fitting", "reading"]

_LOG = logging.getLogger(__name__)


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

    @property
    def key(self) -> tuple[int, ...]:
        """What makes an input: its context, and of running text, whose context says nothing, the text."""
        return (*self.context, *self.right) if self.is_text else self.context

    def with_options(self, continuations: tuple[tuple[int, ...], ...], answer: int) -> Example:
        """The same context with other options."""
        return replace(self, continuations=continuations, answer=answer)


def reading(lm: LanguageModel, example: Example) -> tuple[int, ...]:
    """What a prompt is chosen by: the context, and of a row from the midst of running text the first half of the row.

    Of a text from its beginning only the prefix token is known, as where it is evaluated: rolling likelihoods have no
    context to choose by.

    Example:
        >>> reading(lm, Example((7,), ((8, 9, 4),), 0, "text"))  # doctest: +SKIP
        (7, 8)
    """
    prefix = lm.bos_token_id if lm.bos_token_id is not None else lm.eos_token_id
    if not example.is_text or example.context == (prefix,):
        return example.context
    return example.key[: (len(example.key) + 1) // 2]


def amid(example: Example, tokens: int) -> Example:
    """Return a row from the midst of a running text that begins at its beginning: it is read without its start.

    Example:
        >>> amid(Example((1,), ((7, 8, 9, 4, 5),), 0, "text"), tokens=4)
        Example(context=(7,), continuations=((8, 9, 4),), answer=0, group='text')
    """
    first, *rest = example.right[:tokens]
    return replace(example, context=(first,), continuations=(tuple(rest),))


def as_text(example: Example) -> Example:
    """Read a question and its right answer as one running text, whose first token is not predicted.

    Example:
        >>> as_text(Example((1, 7), ((4,), (5, 6)), answer=1, group="easy")).right
        (7, 5, 6)
    """
    first, *rest = (*example.context, *example.right)
    return Example((first,), (tuple(rest),), 0, example.group)


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


def fitting(
    lm: LanguageModel, examples: Sequence[Example], prompt_tokens: int, *, text_tokens: int | None = None
) -> list[Example]:
    """Keep the examples that fit into the model's context beside a prompt; running text is cut to its beginning.

    Args:
        lm: the model.
        examples: examples of any length.
        prompt_tokens: length of the longest prompt that will stand before them.
        text_tokens: how much of a running text is kept at most; None for all that fits.

    Returns:
        What fits, in the order it came in; how many examples were left out is logged.

    Raises:
        TaskError: nothing fits.

    Example:
        >>> [len(example.context) for example in fitting(lm, examples, prompt_tokens=16)]  # doctest: +SKIP
        [12, 9, 30]
    """
    room = lm.max_length - prompt_tokens
    kept = [cut for cut in (_cut(example, room, text_tokens) for example in examples) if _length(cut) <= room]
    if not kept:
        raise TaskError(
            f"none of {len(examples)} examples fits into the {lm.max_length} tokens of the context of {lm.name} beside "
            f"a prompt of {prompt_tokens}."
        )
    if len(kept) < len(examples):
        _LOG.warning("%d examples are too long beside a prompt and left out", len(examples) - len(kept))
    return kept


def _cut(example: Example, room: int, text_tokens: int | None) -> Example:
    left = room - len(example.context)
    if not example.is_text or left < 1:
        return example
    return example.with_options((example.right[: left if text_tokens is None else min(left, text_tokens)],), 0)


def _length(example: Example) -> int:
    return len(example.context) + max(len(option) for option in example.continuations)
