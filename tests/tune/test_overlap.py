from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.tune.overlap import COMMON, RUN, Overlap, overlaps

WORDS = [f"{letter}{letter}" for letter in string.ascii_lowercase]
LONG = " ".join(WORDS)


def quiz(question, answer):
    return f"Question: {question}\nAnswer: {answer}"


def test_thirteen_words_in_a_row_overlap_and_twelve_do_not():
    item = f"x y z {' '.join(WORDS[:RUN])} x y z"
    assert overlaps([item], [f"before {' '.join(WORDS[:RUN])} behind"]) == [0]
    assert overlaps([item], [f"before {' '.join(WORDS[: RUN - 1])} behind {WORDS[RUN - 1]}"]) == []


def test_case_and_punctuation_do_not_matter():
    assert overlaps([LONG], [LONG.upper().replace(" ", ", \n-- ")]) == [0]
    assert overlaps(["Don't lock the door_"], ["dont lock THE door!"]) == [0]
    assert overlaps(["Größe und Maß"], ["GRO\u0308SSE, und Maß."]) == [0]


def test_a_short_item_has_to_be_found_whole():
    items = [quiz("What is two plus two?", "four"), quiz("What is two plus two?", "five"), quiz("Who?", "four")]
    assert overlaps(items, [quiz("What is two plus two?", "Four.")]) == [0]
    assert overlaps(items, [f"Sums. {quiz('What is two plus two?', 'five')} That is wrong."]) == [1]
    assert overlaps(items, [quiz("Who wrote it?", "four")]) == []


def test_what_stands_around_every_question_finds_nothing():
    around = "The following is a question about general knowledge which you should answer with one word only. "
    items = [around + quiz(f"What is the capital of country {n}?", f"city {n}") for n in range(COMMON + 1)]
    assert overlaps(items, [around + quiz("Who wrote Faust?", "Goethe")]) == []
    assert overlaps(items[:COMMON], [around + quiz("Who wrote Faust?", "Goethe")]) == list(range(COMMON))
    assert overlaps(items, [items[3]]) == [3]


def test_an_item_repeated_often_is_one_item():
    assert overlaps([LONG] * (COMMON + 5), [f"so {LONG}"]) == list(range(COMMON + 5))


def test_an_equal_item_is_found_even_if_all_its_runs_are_common():
    """Two words apart in a long frame: each run holds one of them at most, and many items have it."""
    frame = " ".join(WORDS[:RUN])
    items = [f"{a} {frame} {b}" for a in WORDS[13:] for b in WORDS[13:]]
    assert overlaps(items, [items[40]]) == [40]


def test_texts_without_words_overlap_with_nothing():
    assert overlaps(["", "?!", "a"], ["", "...", "b"]) == []
    assert overlaps([], ["a"]) == []
    assert overlaps(["a"], []) == []


@given(
    items=st.lists(st.lists(st.sampled_from("abc"), max_size=20).map(" ".join), max_size=COMMON),
    evaluation=st.lists(st.lists(st.sampled_from("abc"), max_size=20).map(" ".join), max_size=5),
)
def test_the_same_as_looking_for_every_run(items, evaluation):
    def stands_in(run, text):
        return f" {run} " in f" {text} "

    def is_found(item):
        words = item.split()
        length = min(RUN, len(words))
        runs = [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)] if words else []
        return any(stands_in(run, text) for run in runs for text in evaluation)

    assert overlaps(items, iter(evaluation)) == [place for place, item in enumerate(items) if is_found(item)]


@pytest.mark.parametrize("count", [0, 2, 9])
def test_a_report_shows_a_few_lines(count):
    items = [quiz(f"What is {n} plus {n}?\n" + "Think of it. " * 20, n) for n in range(9)]
    report = Overlap.of(items, list(range(count)))
    assert (report.checked, report.found, len(report.examples)) == (9, count, min(count, 3))
    assert all(len(line) <= 100 and "\n" not in line and line.endswith("...") for line in report.examples)
