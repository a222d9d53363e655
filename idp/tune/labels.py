"""Answers to questions that have none: what the dense model says."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from idp.dynamic.wrap import prepare
from idp.errors import TaskError
from idp.files import atomic_write_text, json_text
from idp.run.batching import BatchSize, run_batches
from idp.run.inputs import pad_left
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.run.ways import bears_padding
from idp.tune.questions import Question, encoded

if TYPE_CHECKING:
    from idp.dynamic.model import DynamicPromptModel
    from idp.model.loaded import LanguageModel

__all__ = ["label"]

_LOG = logging.getLogger(__name__)

_LINE_END = "\n"
_SHARD = 512  # questions of a file, which is what an interruption costs


def label(
    teacher: LanguageModel,
    questions: Sequence[Question],
    *,
    max_new_tokens: int = 16,
    batch_size: int | None = None,
    folder: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Question]:
    """Answer questions without an answer as the dense model does, without any prompt.

    Of several options it says the most likely one, by the sum of its log-probabilities; without options, its greedy
    continuation up to the end of the line.

    Args:
        teacher: the dense model.
        questions: with and without answers; the former stay as they are.
        max_new_tokens: longest continuation.
        batch_size: rows run at once; None finds a size.
        folder: where the answers are kept; a later call with the same arguments reads them.
        advance: called with the number of questions just asked; those that do not fit into the context are not.

    Returns:
        Questions with answers, in their order. Those that the model says nothing to, and those that do not fit into its
        context, are left out, with a warning.

    Raises:
        TaskError: no question is left, or a number below 1.
        ModelError: the model computed NaN, or a single row does not fit into memory.
        OutputError: the folder cannot be written to.

    Source: tuning on what the model itself answers is distillation with hard targets, arXiv 1606.07947 section 3.2.

    Example:
        >>> label(dense, [Question("Who wrote Faust?", (), None, "books")])[0].options  # doctest: +SKIP
        (' Goethe',)
    """
    if max_new_tokens < 1:
        raise TaskError(f"an answer of {max_new_tokens} tokens is not possible; give 1 or more.")
    answered: list[Question] = []
    for begin in range(0, len(questions), _SHARD):
        shard = questions[begin : begin + _SHARD]
        path = None if folder is None else folder / f"answers-{_key(teacher, shard, max_new_tokens)}.json"
        if path is not None and path.exists():
            answered += _read(path)
            if advance:
                advance(sum(question.answer is None for question in shard))
            continue
        new = _answered(teacher, shard, max_new_tokens, batch_size, advance)
        if path is not None:
            atomic_write_text(path, json_text([asdict(question) for question in new]))
        answered += new
    if silent := len(questions) - len(answered):
        _LOG.warning("%s has no answer to %d questions, which are left out", teacher.name, silent)
    if questions and not answered:
        raise TaskError(f"{teacher.name} has no answer to any of {len(questions)} questions; look at how they are put.")
    return answered


def _key(teacher: LanguageModel, questions: Sequence[Question], max_new_tokens: int) -> str:
    """What identifies the answers to some questions."""
    asked = repr((teacher.fingerprint, teacher.dtype, max_new_tokens, list(questions)))
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _read(path: Path) -> list[Question]:
    """Questions with the answers that were kept."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return [Question(**{**one, "options": tuple(one["options"])}) for one in kept]


def _answered(
    teacher: LanguageModel,
    questions: Sequence[Question],
    max_new_tokens: int,
    batch_size: int | None,
    advance: Callable[[int], None] | None,
) -> list[Question]:
    """Questions with answers, without those that the model says nothing to."""
    asked = {place: question for place, question in enumerate(questions) if question.answer is None}
    choices = {place: question for place, question in asked.items() if question.options}
    said = _choose(teacher, choices, batch_size, advance)
    contexts = {place: question.context for place, question in asked.items() if not question.options}
    for place, text in _continue(teacher, contexts, max_new_tokens, batch_size, advance).items():
        said[place] = replace(asked[place], options=(text,), answer=0)
    answered = [said.get(place, question) for place, question in enumerate(questions)]
    return [question for question in answered if question.answer is not None]


def _choose(
    lm: LanguageModel,
    questions: Mapping[int, Question],
    batch_size: int | None,
    advance: Callable[[int], None] | None,
) -> dict[int, Question]:
    """Let the model choose among options."""
    examples = {place: encoded(lm, question) for place, question in questions.items()}
    requests = {place: example.request for place, example in examples.items() if example is not None}
    requests = {place: request for place, request in requests.items() if request.span <= lm.max_length}
    store = PrefixStore(lm, None)
    scored = score(store, [*requests.values()], [-1] * len(requests), batch_size=batch_size, advance=advance)
    chosen: dict[int, Question] = {}
    for place, row in zip(requests, scored, strict=True):
        likelihoods = [option.loglikelihood for option in row.scores]
        chosen[place] = replace(questions[place], answer=likelihoods.index(max(likelihoods)))
    return chosen


def _continue(
    lm: LanguageModel,
    contexts: Mapping[int, str],
    new: int,
    batch_size: int | None,
    advance: Callable[[int], None] | None,
) -> dict[int, str]:
    """Let the model go on behind contexts, up to the end of the line; what stays empty is left out."""
    rows = {place: lm.tokenizer(text)["input_ids"] or [lm.prefix_token_id] for place, text in contexts.items()}
    order = sorted((p for p in rows if len(rows[p]) + new <= lm.max_length), key=lambda p: (-len(rows[p]), p))
    size = BatchSize(batch_size if not order or bears_padding(lm) else 1)
    prompted = prepare(lm, None, "none")
    said: dict[int, str] = {}
    for batch, texts, _ in run_batches(
        order,
        lambda place: len(rows[place]) + new,
        lambda places: _continuations(prompted, [rows[place] for place in places], new),
        size,
        lm,
    ):
        said.update((place, text) for place, text in zip(batch, texts, strict=True) if text)
        if advance:
            advance(len(batch))
    return said


def _continuations(prompted: DynamicPromptModel, rows: list[list[int]], new: int) -> list[str]:
    ids, mask = pad_left(rows, prompted.lm.pad_token_id)  # (B, T) each
    output = prompted.generate(
        ids.to(prompted.device),
        attention_mask=mask.to(prompted.device),
        max_new_tokens=new,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        stop_strings=_LINE_END,
        tokenizer=prompted.tokenizer,
        pad_token_id=prompted.lm.pad_token_id,
    )  # (B, T + new)
    added = output[:, ids.shape[1] :].tolist()
    return [_line(prompted.lm, row, more) for row, more in zip(rows, added, strict=True)]


def _line(lm: LanguageModel, row: list[int], more: list[int]) -> str:
    """The text of new tokens up to the end of the line.

    Some tokenizers leave the space of a first token out, so what was read is decoded too. A character that the last
    token begins and does not end is no part of an answer.
    """

    def text(ids: list[int]) -> str:
        return str(lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return text([*row, *more])[len(text(row)) :].partition(_LINE_END)[0].rstrip("\ufffd").rstrip()
