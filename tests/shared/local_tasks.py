"""A row of every data set: as a local file has it, as the hub has it, and what a model is asked, all by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One item of a task.

    Attributes:
        file: of the split that is judged, in the folder of data.
        row: the item as that file has it.
        doc: the item as the hub has it.
        asked: what lm-eval asks a model: pairs of context and option, one context, or one text.
        target: what lm-eval holds to be right.
        training: the file of the training split, where there is one.
    """

    file: str
    row: Row
    doc: Row
    asked: tuple[Any, ...]
    target: Any
    training: str | None = None


def _options(context: str, *options: str) -> tuple[tuple[str, str], ...]:
    return tuple((context, option) for option in options)


_COLOURS = ["red", "green", "blue", "black"]
_SKY = {"question": "What colour is the sky?", "choices": _COLOURS, "answer": 2}
_ARC = {
    "question": "What colour is the sky?",
    "choices": {"text": _COLOURS, "label": ["A", "B", "C", "D"]},
    "answerKey": "C",
}
_ASKED_SKY = _options("Question: What colour is the sky?\nAnswer:", " red", " green", " blue", " black")

CASES = {
    "arc_easy": Case("arc_easy/test", _SKY, _ARC, _ASKED_SKY, 2, "arc_easy/train"),
    "arc_challenge": Case("arc_challenge/test", _SKY, _ARC, _ASKED_SKY, 2, "arc_challenge/train"),
    "sciq": Case(
        "sciq/test",
        {**_SKY, "context": "Air scatters light."},
        {
            "question": "What colour is the sky?",
            "support": "Air scatters light.",
            "distractor1": "red",
            "distractor2": "green",
            "distractor3": "black",
            "correct_answer": "blue",
        },
        _options(
            "Air scatters light.\nQuestion: What colour is the sky?\nAnswer:", " red", " green", " black", " blue"
        ),
        3,
        "sciq/train",
    ),
    "webqs": Case(
        "webqs/test",
        {"question": "who wrote faust?", "answers": ["Goethe", "Marlowe", "Goethe himself"]},
        {"question": "who wrote faust?", "answers": ["Goethe", "Marlowe", "Goethe himself"]},
        _options("Question: who wrote faust?\nAnswer:", " Goethe", " Marlowe"),
        [0, 1],
        "webqs/train",
    ),
    "triviaqa": Case(
        "triviaqa/validation",
        {"question": "Who wrote Faust?", "answers": ["Goethe", "J. W. Goethe"]},
        {"question": "Who wrote Faust?", "answer": {"aliases": ["Goethe", "J. W. Goethe"]}},
        ("Question: Who wrote Faust??\nAnswer:",),  # the template brings a mark of its own
        ["Goethe", "J. W. Goethe"],
        "triviaqa/train",
    ),
    "piqa": Case(
        "piqa/validation",
        {"question": "To open a jar", "choices": ["twist the lid", "eat the lid"], "answer": 0},
        {"goal": "To open a jar", "sol1": "twist the lid", "sol2": "eat the lid", "label": 0},
        _options("Question: To open a jar\nAnswer:", " twist the lid", " eat the lid"),
        0,
        "piqa/train",
    ),
    "hellaswag": Case(
        "hellaswag/validation",
        {
            "context": "Roof repair: A man is on a roof. he",
            "choices": ["falls.", "sings.", "eats.", "hums."],
            "answer": 1,
        },
        {
            "activity_label": "Roof repair",
            "ctx_a": "A man is on a roof.",
            "ctx_b": "he",
            "endings": ["falls.", "sings.", "eats.", "hums."],
            "label": "1",
        },
        _options("Roof repair: A man is on a roof. He", " falls.", " sings.", " eats.", " hums."),
        1,
        "hellaswag/train",
    ),
    "lambada_openai": Case(
        "lambada/test",
        {"text": 'Ann took the bread.\n\n"Good," said Ann'},
        {"text": 'Ann took the bread.\n\n"Good," said Ann'},
        (('Ann took the bread.\n\n"Good," said', " Ann"),),
        " Ann",
    ),
    "wikitext": Case(
        "wikitext2/test",
        {"text": "= Mills =\nA mill grinds , slowly .\nIt cost 1 @,@ 000 .\n= = Kinds = =\n= = = Wind = = =\nTall ."},
        {
            "page": " = Mills = \n \n A mill grinds , slowly . \n It cost 1 @,@ 000 . \n \n = = Kinds = = \n \n \n"
            " = = = Wind = = = \n \n Tall . \n "
        },
        ((" = Mills =\n\nA mill grinds, slowly.\nIt cost 1,000.\n\n== Kinds ==\n\n\n=== Wind ===\n\nTall.\n",),),
        " = Mills =\n\nA mill grinds, slowly.\nIt cost 1,000.\n\n== Kinds ==\n\n\n=== Wind ===\n\nTall.\n",
        "wikitext2/validation_unk",
    ),
    "boolq": Case(
        "boolq/validation",
        {
            "context": "Mill -- A mill grinds corn.",
            "question": "Do mills grind corn?",
            "choices": ["yes", "no"],
            "answer": 0,
        },
        {"passage": "Mill -- A mill grinds corn.", "question": "do mills grind corn", "label": 1},
        _options("Mill -- A mill grinds corn.\nQuestion: do mills grind corn?\nAnswer:", " no", " yes"),
        1,
        "boolq/train",
    ),
    "winogrande": Case(
        "winogrande/validation",
        {"question": "Ann paid Sam because _ was rich.", "choices": ["Ann", "Sam"], "answer": 0},
        {"sentence": "Ann paid Sam because _ was rich.", "option1": "Ann", "option2": "Sam", "answer": "1"},
        (("Ann paid Sam because Ann", " was rich."), ("Ann paid Sam because Sam", " was rich.")),
        "was rich.",
        "winogrande/train",
    ),
    "xstorycloze_en": Case(
        "storycloze/validation",
        {
            "context": "Ann woke. She was late. She ran. The bus was there.",
            "choices": ["She got on.", "She slept."],
            "answer": 0,
        },
        {
            "input_sentence_1": "Ann woke.",
            "input_sentence_2": "She was late.",
            "input_sentence_3": "She ran.",
            "input_sentence_4": "The bus was there.",
            "sentence_quiz1": "She got on.",
            "sentence_quiz2": "She slept.",
            "answer_right_ending": 1,
        },
        _options("Ann woke. She was late. She ran. The bus was there.", " She got on.", " She slept."),
        0,
        "storycloze/train",
    ),
    "sst2": Case(
        "sst2/validation",
        {"question": "a fine film", "choices": ["negative", "positive"], "answer": 1},
        {"sentence": "a fine film ", "label": 1},
        _options("a fine film \nQuestion: Is this sentence positive or negative?\nAnswer:", " negative", " positive"),
        1,
        "sst2/train",
    ),
    "ag_news": Case(
        "ag_news/test",
        {"question": "Mill sold. It closed.", "choices": ["World", "Sports", "Business", "Sci/Tech"], "answer": 2},
        {"text": "Mill sold. It closed.", "label": 2},
        _options(
            "Mill sold. It closed.\nQuestion: Is this news about World, Sports, Business or Sci/Tech?\nAnswer:",
            " World",
            " Sports",
            " Business",
            " Sci/Tech",
        ),
        2,
        "ag_news/train",
    ),
    "trec": Case(
        "trec/test",
        {
            "question": "Who wrote Faust ?",
            "choices": ["abbreviation", "description", "entity", "human", "location", "number"],
            "answer": 3,
        },
        {"text": "Who wrote Faust ?", "coarse_label": 3},
        _options(
            "Who wrote Faust ?\nQuestion: Does this ask for an abbreviation, an entity, a description, a human, a "
            "location or a number?\nAnswer:",
            " abbreviation",
            " entity",
            " description",
            " human",
            " location",
            " number",
        ),
        3,
        "trec/train",
    ),
    "rte": Case(
        "rte/test",
        {
            "context": "The mill was sold.",
            "question": "The mill was lost.",
            "choices": ["not entailment", "entailment"],
            "answer": 0,
        },
        {"sentence1": "The mill was sold.", "sentence2": "The mill was lost.", "label": 1},
        _options("The mill was sold.\nQuestion: The mill was lost. True or False?\nAnswer:", " True", " False"),
        1,
        "rte/train",
    ),
    "cola": Case(
        "cola/validation",
        {"question": "The mill grind.", "choices": ["unacceptable", "acceptable"], "answer": 0},
        {"sentence": "The mill grind.", "label": 0},
        _options("The mill grind.\nQuestion: Does this sentence make sense?\nAnswer:", " no", " yes"),
        0,
        "cola/train",
    ),
    "copa": Case(
        "copa/validation",
        {
            "context": "The tap was open.",
            "question": "effect",
            "choices": ["Water flowed.", "It rained."],
            "answer": 0,
        },
        {
            "premise": "The tap was open.",
            "question": "effect",
            "choice1": "Water flowed.",
            "choice2": "It rained.",
            "label": 0,
        },
        _options("The tap was open therefore", "  water flowed.", "  it rained."),  # lm-eval's own two blanks
        " water flowed.",
    ),
    "logiqa": Case(
        "logiqa/test",
        {"context": "All mills grind.", "question": "Which follows?", "choices": ["a1", "b2", "c3", "d4"], "answer": 3},
        {
            "context": "All mills grind.",
            "question": "Which follows?",
            "options": ["a1", "b2", "c3", "d4"],
            "label": "d",
        },
        _options(
            "Passage: All mills grind.\nQuestion: Which follows?\nChoices:\nA. a1\nB. b2\nC. c3\nD. d4\nAnswer:",
            " a1",
            " b2",
            " c3",
            " d4",
        ),
        3,
    ),
    "gsm8k": Case(
        "gsm8k/test",
        {"question": "2 and 2?", "answers": ["4"], "solution": "2 + 2 = 4."},
        {"question": "2 and 2?", "answer": "2 + 2 = 4.\n#### 4"},
        # Five examples, drawn of the training split, which here holds the same item over and over.
        ("Question: 2 and 2?\nAnswer: 2 + 2 = 4.\n#### 4\n\n" * 5 + "Question: 2 and 2?\nAnswer:",),
        "2 + 2 = 4.\n#### 4",
        "gsm8k/train",
    ),
    "blimp_adjunct_island": Case(
        "blimp/test",
        {"good": "Who sings?", "bad": "Who sing?", "paradigm": "adjunct_island", "phenomenon": "island_effects"},
        {"sentence_good": "Who sings?", "sentence_bad": "Who sing?"},
        _options("", " Who sings?", " Who sing?"),
        0,
    ),
    "mmlu_anatomy": Case(
        "mmlu/test",
        {**_SKY, "question": " What colour is blood? ", "answer": 0, "subject": "anatomy"},
        {**_SKY, "question": " What colour is blood? ", "answer": 0, "subject": "anatomy"},
        _options(
            "The following are multiple choice questions (with answers) about anatomy.\n\n"
            "What colour is blood?\nA. red\nB. green\nC. blue\nD. black\nAnswer:",
            " A",
            " B",
            " C",
            " D",
        ),
        0,
    ),
    "bbh_zeroshot_navigate": Case(
        "bbh/test",
        {"question": "Are you back?\nOptions:\n- Yes\n- No", "answers": ["No"], "subtask": "navigate"},
        {"input": "Are you back?\nOptions:\n- Yes\n- No", "target": "No"},
        (
            "Given a series of navigation instructions, determine whether one would end up back at the starting point."
            "\n\nQ: Are you back?\nOptions:\n- Yes\n- No\nA:",
        ),
        "No",
    ),
}
"""By lm-eval's names; of a group one task."""

FURTHER = {"cola": ["cola/validation_ood"], "mmlu_anatomy": ["mmlu/validation"]}
"""More files that a task needs."""


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a local task file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_cases(folder: Path, tasks: Iterable[str] = tuple(CASES)) -> Path:
    """Write the files of tasks, the same item six times in each."""
    for task in tasks:
        case = CASES[task]
        for file in filter(None, [case.file, case.training, *FURTHER.get(task, [])]):
            write_rows(folder / f"{file}.jsonl", [case.row] * 6)
    return folder
