"""Questions with their answers, as a user writes them down."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idp.errors import TaskError, suggest
from idp.text.files import read_records
from idp.tune.config import BuildConfig
from idp.tune.examples import Example, encode

if TYPE_CHECKING:
    import os

    from idp.model.loaded import LanguageModel

__all__ = ["TEMPLATE", "Question", "encode_questions", "encoded", "read_questions"]

_LOG = logging.getLogger(__name__)

TEMPLATE = BuildConfig.template
"""How a question is put unless told otherwise."""

_PLACE = "{question}"
_FIELDS = ("answer", "answers", "choices", "context", "continuations", "group", "kind", "question")
_FORMS = (
    {"question"},
    {"question", "answer"},
    {"question", "answers"},
    {"question", "choices"},
    {"question", "choices", "answer"},
    {"context", "continuations"},
    {"context", "continuations", "answer"},
)


@dataclass(frozen=True)
class Question:
    """A context, what may follow it, and which of that is right.

    Attributes:
        context: what is read.
        options: what may follow, each with the space that separates it from the context; none where the answer is not
            known and not to be chosen from anything.
        answer: index of the right option, None where it is not known.
        group: the task it comes from.
        kind: the kind of fact it asks, by which `idp model damage` tells its questions apart; may be empty.

    Raises:
        TaskError: an empty text, or an answer that is none of the options.

    Example:
        >>> Question("Two and two are", (" four", " five"), 0, "sums").options[0]
        ' four'
    """

    context: str
    options: tuple[str, ...]
    answer: int | None
    group: str
    kind: str = ""

    def __post_init__(self) -> None:
        """Check what everything later relies on."""
        for name, text in (("context", self.context), ("group", self.group), *(("option", o) for o in self.options)):
            if not text.strip():
                raise TaskError(f"the {name} is empty.")
        if self.answer is not None and not 0 <= self.answer < len(self.options):
            raise TaskError(f"answer {self.answer} is none of the {len(self.options)} options, counted from 0.")


def read_questions(
    path: str | os.PathLike[str], *, template: str = TEMPLATE, group: str | None = None
) -> list[Question]:
    r"""Read questions from JSON lines.

    A line is one of these; `group` and `kind` may stand beside any of them, and a `context`, which is put before the
    question on lines of its own, beside any `question`:

        {"question": ..., "answer": "text"}                             or "answers": [...], the first of which counts
        {"question": ..., "choices": [...], "answer": 1}                 counted from 0
        {"context": ..., "continuations": [...], "answer": 1}            taken as it is, without the template
        {"question": ...}                                                also with choices: the answer is not known

    A field that is null counts as left out. An option gets a space before it unless it begins with white space.

    Args:
        path: the file, compressed with gzip, bzip2 or xz or not.
        template: how a question is put; `{question}` in it stands for the question.
        group: the task of those that name none; None for the file's name.

    Returns:
        The questions in their order.

    Raises:
        TaskError: the file cannot be read, has no questions, or has a line that is none; the message names the line.

    Example:
        >>> read_questions("questions.jsonl")[0].context  # doctest: +SKIP
        'Question: Who wrote Faust?\nAnswer:'
    """
    if _PLACE not in template:
        raise TaskError(f"the template {template!r} has no {_PLACE}, where the question is to stand.")
    file = Path(path)
    default = file.name.split(".")[0] or file.name if group is None else group
    questions = []
    for number, row in read_records(file):
        try:
            questions.append(_question(row, template, default))
        except TaskError as error:
            raise TaskError(f"{file}, line {number}: {error}") from None
    if not questions:
        raise TaskError(f"{file} holds no questions.")
    return questions


def _question(row: dict[str, Any], template: str, group: str) -> Question:
    row = {name: value for name, value in row.items() if value is not None}
    _check_fields(row)
    group, kind = (_text(row, name) if name in row else default for name, default in (("group", group), ("kind", "")))
    return replace(_asked(row, template, group), kind=kind)


def _asked(row: dict[str, Any], template: str, group: str) -> Question:
    if "continuations" in row:
        return Question(_text(row, "context"), tuple(_texts(row, "continuations")), _index(row), group)
    context = template.replace(_PLACE, _text(row, "question"))
    if "context" in row:
        context = f"{_text(row, 'context')}\n{context}"
    if "choices" in row:
        return Question(context, _spaced(_texts(row, "choices")), _index(row), group)
    if "answers" in row:
        return Question(context, _spaced(_texts(row, "answers")[:1]), 0, group)
    if "answer" in row:
        return Question(context, _spaced([_text(row, "answer")]), 0, group)
    return Question(context, (), None, group)


def _check_fields(row: dict[str, Any]) -> None:
    # A misspelt field would turn an answered question into one without an answer, so none is passed over.
    if unknown := sorted(row.keys() - set(_FIELDS)):
        raise TaskError(f"unknown field {unknown[0]!r}. {suggest(unknown[0], _FIELDS)}")
    fields = row.keys() - {"group", "kind"}
    if fields not in _FORMS and not ("question" in fields and fields - {"context"} in _FORMS):
        raise TaskError(
            f"the fields {', '.join(sorted(row)) or '(none)'} make no question: give question with answer, answers, "
            "choices or choices and answer, or context with continuations and answer."
        )


def _text(row: dict[str, Any], name: str) -> str:
    text = row[name]
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{name!r} has to be a text that is not empty, not {text!r}.")
    return text


def _texts(row: dict[str, Any], name: str) -> list[str]:
    texts = row[name]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise TaskError(f"{name!r} has to be a list of one or more texts, none of them empty.")
    return texts


def _index(row: dict[str, Any]) -> int | None:
    answer = row.get("answer")
    if answer is None or (isinstance(answer, int) and not isinstance(answer, bool)):
        return answer
    raise TaskError(f"'answer' has to be the number of an option, counted from 0, not {answer!r}.")


def _spaced(options: Iterable[str]) -> tuple[str, ...]:
    return tuple(option if option[0].isspace() else f" {option}" for option in options)


def encode_questions(lm: LanguageModel, questions: Sequence[Question]) -> list[Example]:
    """Tokenize questions as lm-eval does; see `idp.tune.examples.encode`.

    Args:
        lm: the model whose tokenizer is used.
        questions: questions with an answer.

    Returns:
        The examples, in their order; questions with an option that gives no tokens are left out, with a warning.

    Raises:
        TaskError: a question without an answer, or none that can be used.

    Example:
        >>> encode_questions(lm, read_questions("questions.jsonl"))[0].group  # doctest: +SKIP
        'questions'
    """
    if unknown := sum(question.answer is None for question in questions):
        raise TaskError(f"{unknown} questions have no answer; let the dense model answer them first.")
    found = [encoded(lm, question) for question in questions]
    examples = [example for example in found if example is not None]
    if not examples:
        raise TaskError("there is no question whose options give tokens.")
    if len(examples) < len(questions):
        _LOG.warning("%d questions have an option without tokens and are left out", len(questions) - len(examples))
    return examples


def encoded(lm: LanguageModel, question: Question) -> Example | None:
    """Tokenize one question; None where an option gives no tokens. Without an answer the first option stands for it."""
    try:
        return encode(lm, question.context, question.options, question.answer or 0, question.group)
    except TaskError:
        return None
