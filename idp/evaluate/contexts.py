"""Contexts: how much of one is read, and what a prompt is chosen by where options have contexts of their own."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from lm_eval.api.instance import Instance

__all__ = ["context_of", "last", "seen_contexts", "stem"]

log = logging.getLogger(__name__)

_WHOLE_WORDS = re.compile(r".*(?=\s)", re.DOTALL)


def last(context: list[int], room: int) -> list[int]:
    """Cut a context from the left where it does not fit, as lm-eval's contract asks."""
    if len(context) > room:
        log.warning("a context of %d tokens was cut to its last %d to fit beside the prompt", len(context), room)
    return context[-room:]


def stem(contexts: Sequence[str]) -> str | None:
    """What contexts that differ have in common, in whole words; None where there is but one.

    A word that is begun is left out: its first letters would tell something of an option.

    Example:
        >>> stem(["Ann told Sam that Sam", "Ann told Sam that Sally"])
        'Ann told Sam that'
    """
    if len(set(contexts)) < 2:
        return None
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*contexts, strict=False))
    words = _WHOLE_WORDS.match("".join(letters[0] for letters in alike))
    return words.group().rstrip() if words else ""


def context_of(sample: Mapping[str, Any]) -> str:
    """What the prompt of one of lm-eval's samples was chosen by."""
    contexts = [str(arguments[0]) for arguments in sample["arguments"]]
    common = stem([context for context in contexts if context])
    return contexts[0] if common is None else common


def seen_contexts(requests: Sequence[Instance]) -> list[str | None]:
    """For each request the stem of its question's contexts, None where all options of the question have the same.

    An empty context beside others asks how likely an option is by itself, and is none of theirs.

    Args:
        requests: with all options of a question among them, as lm-eval gives them.
    """
    questions: dict[tuple[str | None, int], list[str]] = {}
    for request in requests:
        if request.doc_id is not None and request.args[0]:
            questions.setdefault((request.task_name, request.doc_id), []).append(str(request.args[0]))
    stems = {question: stem(contexts) for question, contexts in questions.items()}
    return [stems.get((request.task_name, request.doc_id)) if request.args[0] else None for request in requests]
