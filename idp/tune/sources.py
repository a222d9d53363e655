"""Gathering what a bank is built from: running text, questions, and items of other makers."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idp.bank.bank import PromptBank
from idp.errors import TaskError
from idp.files import public_name
from idp.observer import Observer
from idp.run.store import PrefixStore
from idp.text.documents import read_documents
from idp.text.rows import token_rows
from idp.tune.config import BuildConfig
from idp.tune.examples import Example, as_text, fitting
from idp.tune.labels import label
from idp.tune.overlap import Overlap, overlaps
from idp.tune.questions import encode_questions, read_questions
from idp.tune.splits import split

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["Data", "Gathered", "gather", "prepare", "reported", "text_of"]

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
    lm: LanguageModel,
    config: BuildConfig,
    dense: Callable[[], LanguageModel | None],
    folder: Path,
    observer: Observer,
) -> Gathered:
    """Read the running text and the questions that a config names.

    Questions without an answer get the teacher's.

    Args:
        lm: the model whose tokenizer is used.
        config: `text`, `text_field`, `text_split`, `questions`, `template`, `row_tokens` and `limit` of it.
        dense: gives the dense model, if there is one; it is asked for only where answers are missing.
        folder: where its answers are kept.
        observer: is told how far they are.

    Raises:
        TaskError: a source that is missing, empty, in another encoding or of another form, or unlabelled questions
            where there is no teacher.
    """
    examples: list[Example] = []
    counts: Counter[str] = Counter()
    for source in config.text:
        documents = read_documents(source, field=config.text_field, split=config.text_split)
        rows = token_rows(lm, documents, config.row_tokens, rows=config.limit or None)
        counts[Path(source).name] += len(rows)
        examples += [Example(row[:1], (row[1:],), 0, "text") for row in rows]
    for source in config.questions:
        found = _questions(lm, Path(source), config, dense, folder, observer)
        counts[Path(source).name] += len(found)
        examples += found
    return Gathered(examples, dict(counts))


def _questions(
    lm: LanguageModel,
    path: Path,
    config: BuildConfig,
    dense: Callable[[], LanguageModel | None],
    folder: Path,
    observer: Observer,
) -> list[Example]:
    questions = read_questions(path, template=config.template)[: config.limit or None]
    if unanswered := sum(question.answer is None for question in questions):
        if (teacher := dense()) is None:
            raise TaskError(f"{path} has questions without answers; name the dense model, which can give them.")
        observer.stage(f"asking {public_name(teacher.name)} about {path.name}", unanswered)
        questions = label(teacher, questions, folder=folder, advance=observer.advance)
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
        config: `lengths`, `held_out`, `as_text`, `row_tokens` and `seed` of it.
        evaluation: texts of evaluation items; a tuning item that overlaps with one is left out.
        note: is told how many were.

    Raises:
        TaskError: no examples, or too few to hold some out.
    """
    if not gathered.examples:
        raise TaskError("there is nothing to tune on: give --text, --questions or --tasks.")
    gone, overlap = _overlapping(lm, gathered.examples, evaluation)
    if overlap:
        note(f"{len(gone)} of {overlap['checked']} tuning items overlap with evaluation items and are left out")
    kept = [example for place, example in enumerate(gathered.examples) if place not in gone]
    if not kept:
        raise TaskError("every tuning item overlaps with an evaluation item: tune on other data.")
    fit = fitting(lm, kept, _longest(lm, config), text_tokens=config.row_tokens)
    sides = split(fit, config.held_out, config.seed)
    tuning, held_out = ([*side, *_as_texts(side, config)] for side in sides)  # both forms of a question on one side
    about = {"sources": gathered.counts, "tuning": len(tuning), "held_out": len(held_out)}
    return Data(tuning, held_out, about | ({"overlap": overlap} if overlap else {}))


def _as_texts(examples: Sequence[Example], config: BuildConfig) -> list[Example]:
    """A share of the questions as running text: so their contexts are tuned on, too."""
    questions = [example for example in examples if not example.is_text]
    chosen = random.Random(config.seed).sample(range(len(questions)), round(config.as_text * len(questions)))
    texts = [replace(as_text(questions[place]), group="text") for place in sorted(chosen)]
    return [text for text in texts if len(text.right) > 1]


def _longest(lm: LanguageModel, config: BuildConfig) -> int:
    """Tokens of the longest prompt that will stand before the examples."""
    if config.method != "texts":
        return max(config.lengths)
    store = PrefixStore(lm, PromptBank.load(config.pool))
    return max(store.length(index) for index in range(len(store)))


def reported(lm: LanguageModel, data: Data, evaluation: Iterable[str], why: str) -> Data:
    """Say how much wording data shares with what is evaluated on, and leave it as it is.

    For data that is apart from it by construction; `why` says what is shared.
    """
    _, about = _overlapping(lm, [*data.tuning, *data.held_out], evaluation)
    return Data(data.tuning, data.held_out, {**data.about, "overlap": {**about, "kept": why}})


def _overlapping(
    lm: LanguageModel, examples: Sequence[Example], evaluation: Iterable[str]
) -> tuple[set[int], dict[str, Any]]:
    """Places of examples that overlap with evaluation texts, and what a bank says of it: nothing without texts."""
    against = list(evaluation)
    if not against:
        return set(), {}
    texts = [text_of(lm, example) for example in examples]
    found = overlaps(texts, against)
    overlap = Overlap.of(texts, found)
    return set(found), {**asdict(overlap), "examples": list(overlap.examples)}


def text_of(lm: LanguageModel, example: Example) -> str:
    """An example as words: what is read, and the right answer."""
    decoded: str = lm.tokenizer.decode([*example.context, *example.right], skip_special_tokens=True)
    return decoded
