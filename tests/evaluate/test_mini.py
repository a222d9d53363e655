"""The suite that travels with the package: what is in it, and what a model is asked."""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter

import datasets
import pytest

from idp.errors import TaskError
from idp.evaluate import tasks as tasks_module
from idp.evaluate.calibration import training_examples
from idp.evaluate.local.columns import SOURCES
from idp.evaluate.tasks import Packaged, _manager, load_tasks, packaged, quiet, suites, templates_compiled_once
from idp.resources import eval_dir

MINI = eval_dir() / "mini"
NAMES = suites()["suites"]["mini"]["tasks"]
FILES = {
    "arc_easy": ("test", "train"),
    "arc_challenge": ("test", "train"),
    "hellaswag": ("validation", "train"),
    "lambada_openai": ("test", "train"),
    "xstorycloze_en": ("validation", "train"),
    "boolq": ("validation", "train"),
}
"""By lm-eval's names: the file that is judged, and the one that is learned from."""

FISHING = "Ice fishing: A man is sitting on a bucket ice fishing. He"
TYLER = "Tyler went to a baseball game. He saw his favorite team! His team played hard. His team won!"
VISA = (
    "Visa policy of Iraq -- In accordance with the law, citizens of all countries require a visa to visit Iraq.\n"
    "Question: do i need a visa to visit iraq?\nAnswer:"
)
WOODS = (
    "'Yes, miss?'\n\n'Have you been out in the woods all morning?'\n\n'Oh, yes, miss.'\n\n'Have you seen Granny "
    "Weatherwax?'\n\n'Yes, miss.'\n\n'You have?'\n\n'Yes, miss.'\n\n'Where?'\n\n'Up in the woods over towards the "
    "border,"
)
ASKED = {
    "arc_easy": (
        93,
        "Question: Which organ is made mostly of muscle?\nAnswer:",
        [" heart", " lung", " ear", " brain"],
        0,
    ),
    "arc_challenge": (
        46,
        "Question: Which substance is a compound?\nAnswer:",
        [" butter", " nitrogen", " hydrogen", " ammonia"],
        3,
    ),
    "hellaswag": (
        85,
        FISHING,
        [
            " gets a fish and takes out a rope.",
            " stands up and pulls a fish out of the hole.",
            " is holding a fish on a string.",
            " grabs a large fish out of the ice.",
        ],
        1,
    ),
    "lambada_openai": (25, WOODS, [" miss"], " miss"),
    "xstorycloze_en": (149, TYLER, [" Tyler got depressed.", " Tyler was elated!"], 1),
    "boolq": (100, VISA, [" no", " yes"], 1),
}
"""By lm-eval's names: place of an item, what stands before its options, the options, and the right one."""

HASHES = {
    "mini_arc_easy": "200e453ce798dbf5",
    "mini_arc_challenge": "e827e327095edf09",
    "mini_hellaswag": "d8d2671293cab694",
    "mini_lambada_openai": "6b203e2906045d9e",
    "mini_xstorycloze_en": "a3e0fe38a83e36f8",
    "mini_boolq": "02f164f1c868b8b0",
}
"""Change with the items, and only with them: results that were published were got on these."""


def rows(task, file):
    path = MINI / SOURCES[task].folder / f"{file}.jsonl.xz"
    return [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode("utf-8").splitlines()]


def texts(row):
    """What identifies an item: its passage or story, and its question, without their punctuation."""
    return {
        " ".join(re.findall(r"\w+", row[name].casefold())) for name in ("context", "question", "text") if name in row
    }


@pytest.fixture(scope="module")
def mini():
    return {entry.name.removeprefix("mini_"): entry for entry in load_tasks(["mini"])}


def test_six_tasks_with_200_items_to_judge_and_200_to_learn_from(mini):
    assert list(mini) == list(FILES) and [f"mini_{task}" for task in FILES] == NAMES
    assert {task: (len(entry.task.eval_docs), len(entry.task.training_docs())) for task, entry in mini.items()} == {
        task: (200, 200) for task in FILES
    }


def test_the_folder_is_small_and_holds_nothing_else():
    found = {str(path.relative_to(MINI)) for path in MINI.rglob("*") if path.is_file()}
    assert found == {
        "README.md",
        *(f"{SOURCES[task].folder}/{file}.jsonl.xz" for task, files in FILES.items() for file in files),
    }
    assert sum((MINI / name).stat().st_size for name in found) < 400_000


def test_no_item_is_judged_and_learned_from():
    judged = [row for task, (file, _) in FILES.items() for row in rows(task, file)]
    learned = [row for task, (_, file) in FILES.items() for row in rows(task, file)]
    assert len({json.dumps(row) for row in judged}) == len(judged) == 1200
    assert len({json.dumps(row) for row in learned}) == len(learned) == 1200
    assert set().union(*map(texts, judged)).isdisjoint(set().union(*map(texts, learned)))


def test_no_item_is_longer_than_the_suite_says_and_none_is_of_wikihow(script):
    assert "80 words" in suites()["suites"]["mini"]["about"]
    everything = {task: [row for file in files for row in rows(task, file)] for task, files in FILES.items()}
    longest = {task: max(map(script("write_mini").words, items)) for task, items in everything.items()}
    assert max(longest.values()) == 80 and min(longest.values()) > 60
    assert not [row for row in everything["hellaswag"] if re.search(r": How to ", row["context"])]


def test_the_right_answer_may_stand_anywhere():
    for task in ("arc_easy", "arc_challenge", "hellaswag", "xstorycloze_en", "boolq"):
        for file in FILES[task]:
            counts = Counter(row["answer"] for row in rows(task, file))
            assert len(counts) == len(rows(task, file)[0]["choices"]) and max(counts.values()) < 125, (task, counts)
    assert Counter(row["answer"] for row in rows("boolq", "validation")) == {0: 122, 1: 78}  # as docs/suites.md says


def test_the_items_are_those_of_every_earlier_run(mini):
    assert {entry.name: entry.items_hash(None) for entry in mini.values()} == HASHES


@pytest.mark.parametrize("task", FILES)
def test_a_model_is_asked_what_is_written_here_by_hand(task, mini):
    place, context, options, right = ASKED[task]
    entry = mini[task].task
    entry.build_all_requests()
    asked = [instance.args for instance in entry.instances if instance.doc_id == place]
    assert asked == [(context, option) for option in options]
    assert entry.doc_to_target(entry.eval_docs[place]) == right


def theirs(task, docs):
    """lm-eval's own task, found among all of its tasks, on documents as the hub has them."""
    split = {name: datasets.Dataset.from_list(docs) for name in ("train", "validation", "eval", "test")}
    changed = {"task": task, "custom_dataset": lambda **_: split, "dataset_kwargs": {}}
    with quiet():
        return _manager(with_defaults=True).load({"group": "hub", "task": [changed]})["tasks"][task]


def rendered(task, docs):
    options = task.doc_to_choice if task.OUTPUT_TYPE == "multiple_choice" else lambda _: None
    return [(task.doc_to_text(doc), options(doc), task.doc_to_target(doc)) for doc in docs]


@pytest.mark.parametrize("task", FILES)
def test_every_item_is_rendered_by_lm_evals_own_template(task, mini):
    ours = mini[task].task
    for docs, file in zip((ours.eval_docs, ours.training_docs()), FILES[task], strict=True):
        hub = theirs(task, [SOURCES[task].columns(row) for row in rows(task, file)])
        with templates_compiled_once():
            assert rendered(ours, docs) == rendered(hub, hub.eval_docs)
    kept = ("metric_list", "filter_list", "num_fewshot", "description", "output_type", "repeats", "target_delimiter")
    assert [ours.config[name] for name in kept] == [hub.config[name] for name in kept]
    assert (ours.VERSION, ours.OUTPUT_TYPE, ours.higher_is_better()) == (
        hub.VERSION,
        hub.OUTPUT_TYPE,
        hub.higher_is_better(),
    )


def test_each_task_is_judged_by_its_metric_and_knows_what_guessing_brings(mini):
    metrics = suites()["metrics"]
    assert {task: entry.metric for task, entry in mini.items()} == {task: metrics.get(task, "acc") for task in FILES}
    assert {task: entry.chance for task, entry in mini.items()} == {
        **dict.fromkeys(("arc_easy", "arc_challenge", "hellaswag"), 0.25),
        **dict.fromkeys(("xstorycloze_en", "boolq"), 0.5),
        "lambada_openai": None,
    }
    assert all(entry.in_mean and entry.group is None for entry in mini.values())


def test_tasks_have_names_of_their_own_wherever_they_are_named(mini):
    assert {entry.name: (entry.task.task_name, entry.task.config.task) for entry in mini.values()} == {
        name: (name, name) for name in NAMES
    }


def test_a_task_can_be_named_alone_among_others_and_in_any_order():
    names = ["mini_boolq", "atlas_easy", "mini_arc_easy"]
    assert [entry.name for entry in load_tasks(names)] == names


def test_a_folder_of_the_user_takes_the_place_of_other_data_only(tmp_path, mini):
    (tmp_path / "arc_easy").mkdir()
    row = {"question": "Which is wet?", "choices": ["fire", "sand", "rain", "wood"], "answer": 2}
    (tmp_path / "arc_easy" / "test.jsonl").write_text(json.dumps(row) + "\n")
    packed, given = load_tasks(["mini_arc_easy", "arc_easy"], tmp_path)
    assert packed.items_hash(None) == mini["arc_easy"].items_hash(None)
    assert [doc["question"] for doc in given.task.eval_docs] == ["Which is wet?"]


def test_lm_evals_thousands_of_tasks_are_not_read_for_six(monkeypatch):
    monkeypatch.setattr(tasks_module, "_manager", lambda **_: pytest.fail("read an index that is not needed"))
    assert [entry.name for entry in load_tasks(["mini"])] == NAMES


def test_a_task_that_lm_eval_has_moved_is_found_among_all(monkeypatch):
    moved = Packaged("boolq", MINI, ("no such folder",))
    monkeypatch.setattr(tasks_module, "packaged", lambda: {"mini_boolq": moved})
    [entry] = load_tasks(["mini_boolq"])
    assert entry.items_hash(None) == HASHES["mini_boolq"]


def test_a_file_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        tasks_module, "packaged", lambda: {"mini_boolq": Packaged("boolq", tmp_path, ("super_glue/boolq",))}
    )
    with pytest.raises(TaskError, match=r"'boolq' has no data: looked for .*boolq.validation\.jsonl"):
        load_tasks(["mini_boolq"])


@pytest.mark.parametrize(("name", "meant"), [("mini_arc_esay", "mini_arc_easy"), ("mni", "mini")])
def test_an_unknown_name_near_one_of_these_is_refused(name, meant):
    with pytest.raises(TaskError, match=rf"unknown task '{name}'.*Did you mean .*'{meant}'"):
        load_tasks([name])


def test_selectors_learn_from_training_items_of_all_six(lm, mini):
    examples = training_examples(lm, list(mini.values()), 60)
    assert Counter(example.group for example in examples) == dict.fromkeys(NAMES, 10)
    decode = lm.tokenizer.decode
    read = {decode(example.context, skip_special_tokens=True) for example in examples}
    trained = {entry.task.doc_to_text(doc) for entry in mini.values() for doc in entry.task.training_docs()}
    judged = {entry.task.doc_to_text(doc) for entry in mini.values() for doc in entry.task.eval_docs}
    assert len(read) == 60 and read <= trained and read.isdisjoint(judged)


def test_the_folder_tells_of_every_task_whose_it_is_and_under_which_licence():
    page = (MINI / "README.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(mini_\w+)` \| `(\w+)` \|.*\| (?=[^|]*(?:CC BY|MIT))[^|]+ \|$", page, re.MULTILINE))
    assert table == {name: SOURCES[of.task].folder for name, of in packaged().items()}
    assert "Copyright (c) 2019 Rowan Zellers" in page and "Copyright (c) 2019 OpenAI" in page  # MIT asks for them
    for changed in ("200 items", "80 words", "scripts/write_mini.py"):  # CC BY-SA asks for what was changed
        assert changed in page
