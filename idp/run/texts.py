"""From texts to the token ids that a model reads: questions with their options, and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, TypeAlias

from idp.errors import ModelError, TaskError
from idp.run.packing import Request

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Message", "Text", "encode_chat", "encode_question"]

Text: TypeAlias = "str | Sequence[int]"
"""Words, or their token ids."""

Message: TypeAlias = Mapping[str, str]
"""A turn of a conversation: `role` and `content`, as chat templates read them."""


def encode_question(lm: LanguageModel, context: Text, continuations: Sequence[Text]) -> Request:
    """Tokenize a context and its continuations, without assuming that the one's tokens begin the whole's.

    A tokenizer may merge the end of the context with the beginning of a continuation. What is read is therefore what
    `tok(context)` and every `tok(context + continuation)` have in common; all behind it is scored. So options differ
    in nothing but what they say, and the tokens are those the model would see of the whole text. Where nothing merges,
    this is what lm-eval does (but for a space at the end of a context, which lm-eval always moves behind it).

    Args:
        lm: the model whose tokenizer is used.
        context: a text, or token ids; an empty one stands for the prefix token (bos, else eos).
        continuations: texts with the space that separates them from the context, or token ids; all of one kind.

    Returns:
        The question.

    Raises:
        TaskError: texts and token ids are mixed.

    Example:
        >>> encode_question(lm, "The capital of France is", [" Paris", " Rome"])  # doctest: +SKIP
        Request(context=(1, 450, 7483, 310, 3444, 338), continuations=((3681,), (9184,)))
    """
    if len({isinstance(text, str) for text in (context, *continuations)}) > 1:
        raise TaskError("a context and its continuations are either all texts or all token ids.")
    if not isinstance(context, str):
        options = tuple(tuple(int(token) for token in option) for option in continuations)
        return Request(tuple(int(token) for token in context) or (lm.prefix_token_id,), options)
    read = lm.tokenizer(context)["input_ids"] if context else []
    wholes = [lm.tokenizer(f"{context}{option}")["input_ids"] for option in continuations]
    shared = min([_common(read, whole) for whole in wholes], default=len(read))
    return Request(tuple(read[:shared]) or (lm.prefix_token_id,), tuple(_behind(lm, whole, shared) for whole in wholes))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _behind(lm: LanguageModel, whole: Sequence[int], shared: int) -> tuple[int, ...]:
    """What is scored of a text: without the prefix token that stands for an empty context already."""
    begun = shared == 0 and whole[:1] == [lm.prefix_token_id]
    return tuple(whole[max(shared, int(begun)) :])


def encode_chat(lm: LanguageModel, messages: Sequence[Message]) -> list[int]:
    """Tokenize a conversation with the tokenizer's own chat template, up to where the answer begins.

    Args:
        lm: the model whose tokenizer is used.
        messages: the turns.

    Raises:
        ModelError: the tokenizer has no chat template, or its template does not take these messages.
    """
    if not getattr(lm.tokenizer, "chat_template", None):
        raise ModelError(
            f"the tokenizer of {lm.name} has no chat template, so it is not known how to write a conversation: "
            "use generate_text, or set tokenizer.chat_template."
        )
    try:
        text = lm.tokenizer.apply_chat_template([dict(m) for m in messages], add_generation_prompt=True, tokenize=False)
    except Exception as error:  # templates raise what they like
        raise ModelError(f"the chat template of {lm.name} does not take these messages: {error}") from error
    return list(lm.tokenizer(text, add_special_tokens=False)["input_ids"]) or [lm.prefix_token_id]
