"""Tasks that count as one, metrics that are no mean, answers that are judged after a filter."""

from __future__ import annotations

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest
from lm_eval.api.task import Task
from local_tasks import CASES, write_cases, write_rows
from one_arm import run_arm

from idp.evaluate import IdpLM, evaluate, write_report
from idp.evaluate.arms import arm_result, each_once
from idp.evaluate.kept import TaskResult
from idp.evaluate.oracle import item_value
from idp.evaluate.report import footnotes, table
from idp.evaluate.tasks import _counted, columns, load_tasks

PAIRS = [("Who sings?", "Who sing?"), ("The mill turns.", "The mill turn.")]


@pytest.fixture(scope="module")
def paradigms(tmp_path_factory):
    """A folder with two items of each of BLiMP's paradigms, among other tasks."""
    from idp.evaluate.local.tasks import _leaves
    from idp.evaluate.tasks import _manager

    names = [leaf.removeprefix("blimp_") for leaf in _leaves(_manager(with_defaults=True), "blimp")]
    folder = write_cases(tmp_path_factory.mktemp("data"), ["piqa", "cola", "bbh_zeroshot_navigate", "gsm8k"])
    rows = [{"good": good, "bad": bad, "paradigm": name} for name in names for good, bad in PAIRS]
    write_rows(folder / "blimp" / "test.jsonl", rows)
    return folder


def test_a_group_is_one_column_of_many_tasks(paradigms):
    entries = load_tasks(["piqa", "blimp", "cola"], paradigms)
    assert len(entries) == 69
    assert [entry.column for entry in columns(entries)] == ["piqa", "blimp", "cola"]
    assert {entry.group for entry in entries} == {None, "blimp"}
    assert entries[1].chance == 0.5


def test_a_group_of_the_hub_is_one_column_too(monkeypatch):
    pairs = [{"sentence_good": good, "sentence_bad": bad} for good, bad in PAIRS]
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: {"train": datasets.Dataset.from_list(pairs)})
    entries = load_tasks(["blimp_causative", "blimp_passive_1"])
    assert [(entry.name, entry.group) for entry in entries] == [("blimp_causative", None), ("blimp_passive_1", None)]
    assert [entry.column for entry in columns(load_tasks(["blimp"]))] == ["blimp"]


def test_an_arm_has_the_items_of_a_group_together_and_lm_evals_results_apart(paradigms, lm):
    entries = load_tasks(["piqa", "blimp"], paradigms)
    arm = run_arm("dense", IdpLM(lm, selector="none"), entries, 2)
    assert {name: len(items) for name, items in arm.items.items()} == {"piqa": 2, "blimp": 134}
    assert arm.values["blimp"] == arm.items["blimp"].mean()
    assert arm.mean == pytest.approx((arm.values["piqa"] + arm.values["blimp"]) / 2)
    assert len(arm.results["results"]) == len(arm.samples) == 68
    alone = [arm.results["results"][entry.name]["acc,none"] for entry in entries if entry.group]
    assert np.mean(alone) == pytest.approx(arm.values["blimp"])


def test_items_weigh_the_same_within_a_group_and_groups_among_tasks(tasks):
    first, second, other = tasks("easy", "hard", "pair")
    entries = [replace(first, group="both"), replace(second, group="both"), other]
    found = [
        TaskResult(entry.name, {}, [{"doc_id": n} for n in range(len(items))], items, sum(items) / len(items), 1.0, 1.0)
        for entry, items in zip(entries, [[1.0], [0.0, 0.0, 0.0], [1.0, 1.0]], strict=True)
    ]
    arm = arm_result("mine", entries, found)
    assert arm.values == {"both": 0.25, other.name: 1.0}
    assert arm.mean == 0.625
    assert arm.prompt_tokens == 0.5


def test_tasks_that_cannot_be_taken_together_count_alone(tasks):
    easy, text, short = (replace(entry, group="mine") for entry in tasks("easy", "text", "short"))
    assert _counted(easy, [easy]).group == "mine"
    assert _counted(easy, [easy, text]).group is None  # not in the mean
    assert _counted(easy, [easy, short]).group is None  # another metric


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # of a correlation over so few items
def test_the_report_shows_a_group_as_one_task(paradigms, settings, tmp_path):
    asked = settings(tasks=("blimp", "cola", "piqa"), data_dir=paradigms, arms=("compressed",), limit=1)
    evaluation = evaluate(asked)
    headers, [row] = table(evaluation)
    assert headers[3:-2] == ["blimp", "cola *", "piqa"] and len(row) == len(headers)
    told = "\n".join(footnotes(evaluation))
    assert "blimp is 67 tasks taken together, and one in the mean." in told
    assert "cola: mcc of all items together" in told
    ours = json.loads(write_report(evaluation)["results"].read_text())
    assert ours["idp"]["arms"]["compressed"]["tasks"].keys() == {"blimp", "cola", "piqa"}
    assert len(ours["idp"]["groups"]["blimp"]) == 67 and ours["idp"]["chance"]["blimp"] == 0.5
    assert ours["idp"]["in_mean"] == ["blimp", "piqa"]
    assert ours["idp"]["settings"]["data_dir"] == str(paradigms)
    assert "blimp_adjunct_island" in ours["results"]


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # of a correlation over so few items
def test_a_correlation_is_beside_the_mean(paradigms, lm):
    [cola] = load_tasks(["cola"], paradigms)
    arm = run_arm("dense", IdpLM(lm, selector="none"), [cola], 4)
    assert (cola.metric, cola.higher_is_better, cola.in_mean) == ("mcc", True, False)
    assert arm.items == {} and arm.mean is None and arm.values.keys() == {"cola"}
    assert cola.chance is None
    assert item_value(cola, {"mcc": (0, 1)}) == 0.0
    assert item_value(cola, {"mcc": (0, 0)}) == item_value(cola, {"mcc": (1, 1)}) == 1.0


def test_an_item_counts_once_however_many_filters_it_goes_through(paradigms, lm):
    [navigate] = load_tasks(["bbh_zeroshot_navigate"], paradigms)
    [sums] = load_tasks(["gsm8k"], paradigms)
    arm = run_arm("dense", IdpLM(lm, selector="none"), [navigate, sums], 2)
    for entry in (navigate, sums):
        assert entry.filter == "strict-match"
        assert len(arm.samples[entry.name]) == 4
        assert [row["doc_id"] for row in each_once(arm.samples[entry.name])] == [0, 1]
        assert len(arm.items[entry.name]) == 2
        assert arm.values[entry.name] == arm.results["results"][entry.name]["exact_match,strict-match"]


def test_a_group_may_be_judged_by_another_filter_than_the_first(tmp_path):
    from idp.evaluate.local.tasks import _leaves
    from idp.evaluate.tasks import _manager

    names = [leaf.removeprefix("bbh_zeroshot_") for leaf in _leaves(_manager(with_defaults=True), "bbh_zeroshot")]
    write_rows(tmp_path / "bbh" / "test.jsonl", [CASES["bbh_zeroshot_navigate"].row | {"subtask": n} for n in names])
    entries = load_tasks(["bbh_zeroshot"], tmp_path)
    assert {entry.filter for entry in entries} == {"flexible-extract"} and len(entries) == 27
    for entry in entries:
        assert "flexible-extract" in [each["name"] for each in entry.task.config.filter_list]


def test_every_arm_gets_the_same_examples(tmp_path):
    case = CASES["gsm8k"]
    write_rows(tmp_path / "gsm8k" / "test.jsonl", [case.row])
    write_rows(tmp_path / "gsm8k" / "train.jsonl", [case.row | {"question": f"{n} and 0?"} for n in range(50)])
    [entry] = load_tasks(["gsm8k"], tmp_path)

    def context() -> str:
        entry.seed_examples()
        entry.task.build_all_requests()
        return str(entry.task.instances[0].args[0])

    first = context()
    assert first.count("Question: ") == 6
    assert context() == first
    Task.set_fewshot_seed(entry.task, 4321)
    entry.task.build_all_requests()
    assert entry.task.instances[0].args[0] != first
