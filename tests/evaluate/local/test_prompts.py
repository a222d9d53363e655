"""What a model is asked about a local row is what lm-eval asks it about the hub's."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from local_tasks import CASES, write_cases

from idp.evaluate.local.columns import PARTS, SOURCES, source_of
from idp.evaluate.tasks import _manager, columns, load_tasks, quiet, suites, templates_compiled_once

DATA = Path(__file__).parents[4] / "shared" / "data" / "tasks"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark data are not beside the repository")


class AllSplits(dict):
    """The same documents whatever the split is called."""

    def __missing__(self, split):
        return self["all"]


def from_the_hub(task, doc):
    """lm-eval's own task, as if the hub held one document six times."""
    held = AllSplits(all=datasets.Dataset.from_list([doc] * 6))
    changed = {"task": task, "custom_dataset": lambda **_: held, "dataset_kwargs": {}}
    with quiet():
        return _manager(with_defaults=True).load({"group": "hub", "task": [changed]})["tasks"][task]


def asked(task):
    """What a model is asked about the first item: all that it is given but the settings of generation."""
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=1)
    args = [instance.args for instance in task.instances]
    return tuple(pair[0] if isinstance(pair[-1], dict) else pair for pair in args)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = write_cases(tmp_path_factory.mktemp("data"))
    return {entry.name: entry for entry in load_tasks(list(CASES), folder)}


@pytest.mark.parametrize("task", CASES)
def test_a_local_row_is_asked_for_as_lm_eval_asks_for_the_hubs(task, local):
    case, entry, theirs = CASES[task], local[task], from_the_hub(task, CASES[task].doc)
    assert asked(entry.task) == asked(theirs) == case.asked
    ours, doc = entry.task.eval_docs[0], theirs.eval_docs[0]
    assert entry.task.doc_to_target(ours) == theirs.doc_to_target(doc) == case.target
    kept = ("metric_list", "filter_list", "generation_kwargs", "num_fewshot", "description", "output_type", "repeats")
    assert [entry.task.config[name] for name in kept] == [theirs.config[name] for name in kept]


@pytest.mark.parametrize("task", CASES)
def test_a_local_row_makes_the_hubs_document(task):
    source, _ = source_of(task)
    made, doc = source.columns(CASES[task].row), CASES[task].doc
    if task != "xstorycloze_en":  # whose four sentences are one again before anybody reads them
        assert made == doc


@pytest.mark.parametrize(
    ("context", "begun"),
    [
        ("Mills: A mill turns. It grinds.", ""),
        ('Mills: A mill turns. "It grinds."', ""),
        ("Mills: It turns! the miller", "the miller"),
        ('Mills: He says "Go." the miller', "the miller"),
        ("Mills: Turn the wheel", ""),  # a heading, which is not to lose its capitals
        ("Mills: the miller", "the miller"),
    ],
)
def test_an_unfinished_sentence_is_what_lm_eval_gives_a_capital(context, begun):
    made = SOURCES["hellaswag"].columns({"context": context, "choices": [], "answer": 0})
    assert made["ctx_b"] == begun
    whole = f"{made['activity_label']}: {made['ctx_a']} {begun}".strip().replace("  ", " ")
    assert whole == context


def test_every_task_of_the_suites_has_a_case_and_every_source_a_task():
    known = suites()["suites"]
    listed = {*known["paper"]["tasks"], *known["wide"]["tasks"]}
    groups = {"blimp": "blimp_adjunct_island", "mmlu": "mmlu_anatomy", "bbh_zeroshot": "bbh_zeroshot_navigate"}
    assert {groups.get(name, name) for name in listed} == set(CASES)
    assert {name for name in listed if name not in groups} == set(SOURCES)
    assert all(any(task.startswith(prefix) for task in groups.values()) for prefix in PARTS)


def test_training_splits_are_there_where_their_files_are(local):
    assert {name for name, entry in local.items() if entry.task.has_training_docs()} == {
        name for name, case in CASES.items() if case.training
    }


@needs_data
@pytest.mark.parametrize(("suite", "judged", "beside"), [("paper", 8, ["wikitext"]), ("wide", 13, ["cola"])])
def test_the_whole_data_can_be_read(suite, judged, beside):
    entries = load_tasks([suite], DATA)
    shown = columns(entries)
    assert [entry.column for entry in shown] == suites()["suites"][suite]["tasks"]
    assert [entry.column for entry in shown if not entry.in_mean] == beside
    assert len(shown) == judged + 1
    for entry in entries:
        entry.seed_examples()
        with templates_compiled_once():
            entry.task.build_all_requests(limit=2)
        assert {instance.doc_id for instance in entry.task.instances} == {0, 1}


@needs_data
def test_sizes_are_those_of_the_data():
    sizes = {entry.name: len(entry.task.eval_docs) for entry in load_tasks(["cola", "rte", "wikitext"], DATA)}
    assert sizes == {"cola": 1043, "rte": 2400, "wikitext": 62}  # CoLA's two local files are the hub's one split
