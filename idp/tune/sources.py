"""Gathering what a bank is built from: running text, questions, and items of other makers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idp.errors import TaskError
from idp.observer import Observer
from idp.tune.config import BuildConfig
from idp.tune.corpus import pack, read_documents
from idp.tune.examples import Example, fitting
from idp.tune.labels import label
from idp.tune.overlap import Overlap, overlaps
from idp.tune.questions import encode_questions, read_questions
from idp.tune.splits import split

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Data", "Gathered", "gather", "prepare", "text_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Data:
    """What a bank is built from.

    Attributes:
        tuning: what prompts are tuned on.
        held_out: what they are judged by and selectors are fitted on.
        about: where it comes from, JSON values only.
    """

    tuning: list[Example]
    held_out: list[Example]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gathered:
    """Examples of one source, or of several.

    Attributes:
        examples: not yet split.
        counts: how many come from each source.
    """

    examples: list[Example]
    counts: dict[str, int]


def gather(
    lm: LanguageModel, config: BuildConfig, dense: Callable[[], LanguageModel | None], observer: Observer
) -> Gathered:
    """Read the running text and the questions that a config names.

    Questions without an answer get the teacher's.

    Args:
        lm: the model whose tokenizer is used.
        config: `text`, `questions`, `template`, `row_tokens` and `limit` of it.
        dense: gives the dense model, if there is one; it is asked for only where answers are missing.
        observer: is told how far its answers are.

    Raises:
        TaskError: a source that is missing, empty, in another encoding or of another form, or unlabelled questions
            where there is no teacher.
    """
    examples: list[Example] = []
    counts: Counter[str] = Counter()
    for source in config.text:
        rows = pack(lm, read_documents(source), config.row_tokens, rows=config.limit or None)
        counts[Path(source).name] += len(rows)
        examples += rows
    for source in config.questions:
        found = _questions(lm, Path(source), config, dense, observer)
        counts[Path(source).name] += len(found)
        examples += found
    return Gathered(examples, dict(counts))


def _questions(
    lm: LanguageModel,
    path: Path,
    config: BuildConfig,
    dense: Callable[[], LanguageModel | None],
    observer: Observer,
) -> list[Example]:
    questions = read_questions(path, template=config.template)[: config.limit or None]
    if unanswered := sum(question.answer is None for question in questions):
        if (teacher := dense()) is None:
            raise TaskError(f"{path} has questions without answers; name the dense model, which can give them.")
        observer.stage(f"asking {teacher.name} about {path.name}", unanswered)
        questions = label(teacher, questions, advance=observer.advance)
    return encode_questions(lm, questions)


def prepare(
    lm: LanguageModel,
    gathered: Gathered,
    config: BuildConfig,
    evaluation: Iterable[str] = (),
    note: Callable[[str], None] = log.info,
) -> Data:
    """Check examples against what is evaluated on, leave out what does not fit, and hold a part of them out.

    Args:
        lm: the model.
        gathered: the examples.
        config: `lengths`, `held_out`, `row_tokens` and `seed` of it.
        evaluation: texts of evaluation items; a tuning item that overlaps with one is left out.
        note: is told how many were.

    Raises:
        TaskError: no examples, or too few to hold some out.
    """
    if not gathered.examples:
        raise TaskError("there is nothing to tune on: give --text, --questions or --tasks.")
    kept, overlap = _without(lm, gathered.examples, evaluation)
    if overlap is not None:
        note(f"{overlap.found} of {overlap.checked} tuning items overlap with evaluation items and are left out")
    fit = fitting(lm, kept, max(config.lengths), text_tokens=config.row_tokens)
    tuning, held_out = split(fit, config.held_out, config.seed)
    about: dict[str, Any] = {"sources": gathered.counts, "tuning": len(tuning), "held_out": len(held_out)}
    if overlap is not None:
        about["overlap"] = {**asdict(overlap), "examples": list(overlap.examples)}
    return Data(tuning, held_out, about)


def _without(
    lm: LanguageModel, examples: Sequence[Example], evaluation: Iterable[str]
) -> tuple[list[Example], Overlap | None]:
    """Leave out examples that overlap with evaluation texts; None where there are no such texts."""
    against = list(evaluation)
    if not against:
        return list(examples), None
    texts = [text_of(lm, example) for example in examples]
    found = overlaps(texts, against)
    gone = set(found)
    if len(gone) == len(texts):
        raise TaskError("every tuning item overlaps with an evaluation item: tune on other data.")
    kept = [example for place, example in enumerate(examples) if place not in gone]
    return kept, Overlap.of(texts, found)


def text_of(lm: LanguageModel, example: Example) -> str:
    """An example as words: what is read, and the right answer."""
    decoded: str = lm.tokenizer.decode([*example.context, *example.right], skip_special_tokens=True)
    return decoded
