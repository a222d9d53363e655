"""Drawing the items of the suite `mini`, from a made-up folder."""

from __future__ import annotations

import json
import lzma
import random

import pytest
from local_tasks import write_rows

from idp.errors import TaskError

WORDS = "tap mill road ship bird lamp rope wind corn salt frog tent wool clay moss drum".split()


@pytest.fixture
def module(script):
    return script("write_mini")


def text(rng, count):
    return " ".join(rng.choices(WORDS, k=count))


def quiz(rng, options, **parts):
    choices = [text(rng, 2) for _ in range(options)]
    return {**parts, "choices": choices, "answer": rng.randrange(options)}


def made(task, rng):
    if task == "lambada":
        return {"text": text(rng, 30)}
    if task == "boolq":
        return {"context": text(rng, 30), "question": text(rng, 9), "choices": ["yes", "no"], "answer": 0}
    if task == "storycloze":
        return quiz(rng, 2, context=text(rng, 30))
    return quiz(rng, 4, context=text(rng, 20)) if task == "hellaswag" else quiz(rng, 4, question=text(rng, 9))


SPLITS = {
    "arc_easy": ("test", "train"),
    "arc_challenge": ("test", "train"),
    "hellaswag": ("validation", "train"),
    "lambada": ("test",),
    "storycloze": ("validation", "train"),
    "boolq": ("validation", "train"),
}
"""By folder: the files there are."""


@pytest.fixture
def data(tmp_path):
    rng = random.Random(0)
    for folder, splits in SPLITS.items():
        for split in splits:
            write_rows(tmp_path / "data" / folder / f"{split}.jsonl", [made(folder, rng) for _ in range(30)])
    return tmp_path / "data"


def lines(path):
    return [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.xz")}


def test_the_same_seed_writes_the_same_bytes_and_another_other_items(module, data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        module.main(data, out=tmp_path / name, seed=seed, items=10)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    differing = {name for name, held in content(tmp_path / "c").items() if held != content(tmp_path / "a")[name]}
    assert differing == content(tmp_path / "a").keys()


def test_every_file_has_as_many_different_items_of_its_split(module, data, tmp_path):
    module.main(data, out=tmp_path / "out", seed=0, items=10)
    files = {f"{folder}/{split}" for folder, splits in SPLITS.items() for split in {*splits, "train"}}
    assert content(tmp_path / "out").keys() == {f"{file}.jsonl.xz" for file in files}
    for file in files - {"lambada/train"}:
        known = [json.loads(line) for line in (data / f"{file}.jsonl").read_text().splitlines()]
        drawn = lines(tmp_path / "out" / f"{file}.jsonl.xz")
        assert len(drawn) == 10 and all(row in known for row in drawn)
        assert len({json.dumps(row) for row in drawn}) == 10


def test_where_there_is_one_split_others_of_its_items_are_learned_from(module, data, tmp_path):
    module.main(data, out=tmp_path / "out", seed=0, items=15)
    judged, learned = (lines(tmp_path / "out" / "lambada" / f"{split}.jsonl.xz") for split in ("test", "train"))
    known = [json.loads(line) for line in (data / "lambada" / "test.jsonl").read_text().splitlines()]
    assert sorted(map(json.dumps, [*judged, *learned])) == sorted(map(json.dumps, known))


def test_no_item_is_learned_from_that_has_a_passage_or_question_of_a_judged_one(module, data, tmp_path):
    rng = random.Random(1)
    judged = [json.loads(line) for line in (data / "boolq" / "validation.jsonl").read_text().splitlines()]
    longer = [row | {"context": f"New {text(rng, 9)}. {row['context'].upper()}!", "question": "Why?"} for row in judged]
    asked_of_another = [row | {"context": text(rng, 30)} for row in judged]
    write_rows(data / "boolq" / "train.jsonl", [*longer, *asked_of_another, *(made("boolq", rng) for _ in range(10))])
    in_another_task = [quiz(rng, 4, question=row["question"]) for row in judged]
    write_rows(data / "arc_easy" / "train.jsonl", [*in_another_task, *(made("arc_easy", rng) for _ in range(10))])
    module.main(data, out=tmp_path / "out", seed=0, items=10)
    held_out = set().union(*map(module.runs, lines(tmp_path / "out" / "boolq" / "validation.jsonl.xz")))
    learned = [row for name in ("boolq", "arc_easy") for row in lines(tmp_path / "out" / name / "train.jsonl.xz")]
    assert len(learned) == 20 and all(held_out.isdisjoint(module.runs(row)) for row in learned)


def test_long_items_and_unusual_numbers_of_options_are_passed_over(module, data):
    rng = random.Random(2)
    fit = [quiz(rng, 4, question=text(rng, 72)) for _ in range(3)]
    long = quiz(rng, 4, question=text(rng, 73))
    odd = quiz(rng, 3, question=text(rng, 9))
    write_rows(data / "arc_easy" / "test.jsonl", [long, *fit, odd, fit[0]])
    assert module.words(fit[0]) == 80 and module.words(long) == 81
    assert module.candidates(data, "arc_easy", "test") == fit


def test_a_text_is_known_by_its_words_whatever_their_capitals_and_marks(module):
    assert module.runs({"question": "Who, then, sings?", "choices": ["a", "b"], "answer": 0}) == {
        ("who", "then", "sings")
    }
    long = " ".join(WORDS[:14])
    assert module.runs({"context": "", "text": long.title()}) == {tuple(WORDS[:13]), tuple(WORDS[1:14])}


def test_too_few_items_are_one_clear_line(module, data, tmp_path):
    with pytest.raises(TaskError, match="'arc_easy' has 30 items of at most 80 words where 31 are wanted"):
        module.main(data, out=tmp_path / "out", seed=0, items=31)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_missing_is_named(module, data, tmp_path):
    (data / "boolq" / "validation.jsonl").unlink()
    with pytest.raises(TaskError, match=r"there is no file .*boolq.validation\.jsonl \(plain, \.xz or \.gz\)"):
        module.main(data, out=tmp_path / "out", seed=0, items=5)


def test_a_broken_line_is_named(module, data, tmp_path):
    (data / "boolq" / "train.jsonl").write_text('{"context": 3}\n')
    with pytest.raises(TaskError, match=r"boolq.train\.jsonl, line 1.*'context' has to be a text"):
        module.main(data, out=tmp_path / "out", seed=0, items=5)
