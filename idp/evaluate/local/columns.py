"""Rows of local files in the columns of the hub's data sets, which are what lm-eval's templates ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PARTS", "SOURCES", "Row", "Source", "source_of"]

Row = dict[str, Any]

_AG_NEWS = ["World", "Sports", "Business", "Sci/Tech"]
_TREC = ["abbreviation", "entity", "description", "human", "location", "number"]
_SENTENCE_END = re.compile(r"""(?<=[.!?]) |(?<=[.!?]["')]) """)


@dataclass(frozen=True)
class Source:
    """Where a task's items lie in a folder of data.

    Attributes:
        folder: that of the data set.
        columns: makes of a local row the hub's.
        part: the field that says which rows are those of one task, where a data set has several.
        splits: local files of the hub's splits, where they are called otherwise or are several.
    """

    folder: str
    columns: Callable[[Row], Row]
    part: str | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def files(self, split: str) -> tuple[str, ...]:
        """Names of the local files of one of the hub's splits, without their endings."""
        return self.splits.get(split, (split,))


def source_of(task: str) -> tuple[Source, str | None] | None:
    """Where the items of one of lm-eval's tasks lie, and which of several parts they are; None where that is unknown.

    Example:
        >>> source, part = source_of("mmlu_anatomy")
        >>> source.folder, part
        ('mmlu', 'anatomy')
    """
    if task in SOURCES:
        return SOURCES[task], None
    found = [(source, task.removeprefix(prefix)) for prefix, source in PARTS.items() if task.startswith(prefix)]
    return found[0] if found else None


def _right(row: Row) -> str:
    return str(row["choices"][row["answer"]])


def _arc(row: Row) -> Row:
    labels = ["A", "B", "C", "D", "E"][: len(row["choices"])]
    texts = {"text": row["choices"], "label": labels}
    return {"question": row["question"], "choices": texts, "answerKey": labels[row["answer"]]}


def _sciq(row: Row) -> Row:
    first, second, third = [text for place, text in enumerate(row["choices"]) if place != row["answer"]]
    wrong = {"distractor1": first, "distractor2": second, "distractor3": third}
    return {"question": row["question"], "support": row["context"], "correct_answer": _right(row), **wrong}


def _webqs(row: Row) -> Row:
    return {"question": row["question"], "answers": row["answers"]}


def _triviaqa(row: Row) -> Row:
    return {"question": row["question"], "answer": {"aliases": row["answers"]}}


def _piqa(row: Row) -> Row:
    first, second = row["choices"]
    return {"goal": row["question"], "sol1": first, "sol2": second, "label": row["answer"]}


def _hellaswag(row: Row) -> Row:
    """The local context is lm-eval's, but for the capital that it gives to an unfinished last sentence (`ctx_b`)."""
    label, _, context = row["context"].partition(": ")
    begun = "" if context.endswith((".", "!", "?", '"', "'", ")")) else _SENTENCE_END.split(context)[-1]
    begun = "" if begun[:1].isupper() else begun
    parts = {"ctx_a": context.removesuffix(begun).rstrip(" "), "ctx_b": begun}
    return {"activity_label": label, **parts, "endings": row["choices"], "label": str(row["answer"])}


def _lambada(row: Row) -> Row:
    return {"text": row["text"]}


def _wikitext(row: Row) -> Row:
    """Blanks around lines, and blank lines around headings, are lm-eval's to take away."""
    lines: list[str] = []
    for line in row["text"].split("\n"):
        heading = line.startswith("= ") and line.endswith(" =")
        lines += [" ", f" {line} ", " "] if heading else [f" {line} "]
    if lines[0] == " ":  # what stands before an article's title ends the article before
        del lines[0]
    return {"page": "\n".join([*lines, " "])}


def _boolq(row: Row) -> Row:
    """The hub has questions without capital and question mark."""
    asked = row["question"]
    question = (asked[:1].lower() + asked[1:]).removesuffix("?")
    return {"passage": row["context"], "question": question, "label": ["no", "yes"].index(_right(row))}


def _winogrande(row: Row) -> Row:
    first, second = row["choices"]
    return {"sentence": row["question"], "option1": first, "option2": second, "answer": str(row["answer"] + 1)}


def _storycloze(row: Row) -> Row:
    """The template joins the four sentences by blanks, so it does not matter at which blanks they are cut."""
    one, two, three, four = row["context"].split(" ", 3)
    story = {"input_sentence_1": one, "input_sentence_2": two, "input_sentence_3": three, "input_sentence_4": four}
    first, second = row["choices"]
    return {**story, "sentence_quiz1": first, "sentence_quiz2": second, "answer_right_ending": row["answer"] + 1}


def _sst2(row: Row) -> Row:
    """The hub's sentences end in a blank."""
    return {"sentence": f"{row['question']} ", "label": ["negative", "positive"].index(_right(row))}


def _ag_news(row: Row) -> Row:
    return {"text": row["question"], "label": _AG_NEWS.index(_right(row))}


def _trec(row: Row) -> Row:
    return {"text": row["question"], "coarse_label": _TREC.index(_right(row))}


def _rte(row: Row) -> Row:
    label = ["entailment", "not entailment"].index(_right(row))
    return {"sentence1": row["context"], "sentence2": row["question"], "label": label}


def _cola(row: Row) -> Row:
    return {"sentence": row["question"], "label": ["unacceptable", "acceptable"].index(_right(row))}


def _copa(row: Row) -> Row:
    first, second = row["choices"]
    asked = {"premise": row["context"], "question": row["question"]}
    return {**asked, "choice1": first, "choice2": second, "label": row["answer"]}


def _logiqa(row: Row) -> Row:
    asked = {"context": row["context"], "question": row["question"]}
    return {**asked, "options": row["choices"], "label": "abcd"[row["answer"]]}


def _gsm8k(row: Row) -> Row:
    return {"question": row["question"], "answer": f"{row['solution']}\n#### {row['answers'][0]}"}


def _blimp(row: Row) -> Row:
    return {"sentence_good": row["good"], "sentence_bad": row["bad"]}


def _mmlu(row: Row) -> Row:
    return {name: row[name] for name in ("question", "subject", "choices", "answer")}


def _bbh(row: Row) -> Row:
    return {"input": row["question"], "target": row["answers"][0]}


SOURCES = {
    "arc_easy": Source("arc_easy", _arc),
    "arc_challenge": Source("arc_challenge", _arc),
    "sciq": Source("sciq", _sciq),
    "webqs": Source("webqs", _webqs),
    "triviaqa": Source("triviaqa", _triviaqa),
    "piqa": Source("piqa", _piqa),
    "hellaswag": Source("hellaswag", _hellaswag),
    "lambada_openai": Source("lambada", _lambada),
    "wikitext": Source("wikitext2", _wikitext, splits={"train": ("validation_unk",)}),
    "boolq": Source("boolq", _boolq),
    "winogrande": Source("winogrande", _winogrande),
    "xstorycloze_en": Source("storycloze", _storycloze, splits={"eval": ("validation",)}),
    "sst2": Source("sst2", _sst2),
    "ag_news": Source("ag_news", _ag_news),
    "trec": Source("trec", _trec),
    "rte": Source("rte", _rte, splits={"validation": ("test",)}),
    # The hub's split is these two, one behind the other.
    "cola": Source("cola", _cola, splits={"validation": ("validation", "validation_ood")}),
    "copa": Source("copa", _copa),
    "logiqa": Source("logiqa", _logiqa),
    "gsm8k": Source("gsm8k", _gsm8k),
}
"""By lm-eval's names of tasks."""

PARTS = {
    "blimp_": Source("blimp", _blimp, part="paradigm", splits={"train": ("test",)}),
    "mmlu_": Source("mmlu", _mmlu, part="subject", splits={"dev": ("validation",)}),
    "bbh_zeroshot_": Source("bbh", _bbh, part="subtask"),
}
"""By what lm-eval's names of the tasks of a group begin with."""
