from __future__ import annotations

import json

import pytest
from made_runs import choice_row

from idp.errors import OutputError, TaskError
from idp.report.run import SCHEMA, read_run


def test_items_are_read_as_they_were_judged(run):
    found = read_run(run(text=True))
    assert found.main_arm == "router" and found.tasks == ("easy", "hard", "text") and found.in_mean == ("easy", "hard")
    easy = found.items["compressed"]["easy"]
    assert [item.value for item in easy] == [1.0] * 20 + [0.0] * 20
    first, last = easy[0], easy[-1]
    assert (first.right, first.given, first.prompt) == ("east", "east", None)
    assert (last.right, last.given) == ("east", "north")
    assert last.question == "Question 39 of easy: where is the harbour?\nAnswer:" and last.id == "easy-39"
    [text] = found.items["router"]["text"]
    assert (text.value, text.prompt, text.question, text.given) == (-9.0, "one", "It was a long way.", "")
    assert found.values("dense")["hard"].tolist() == [1.0] * 30 + [0.0] * 10


def test_generated_answers_are_read(run):
    row = {**choice_row("easy", 0, True, None), "arguments": [["Where?", {"until": ["."]}]], "target": "east"}
    row["filtered_resps"] = [" due east "]
    [item] = asked(run, [row])
    assert (item.question, item.right, item.given) == ("Where?", "east", "due east")


@pytest.mark.parametrize("content", [None, "", "{", '{"acc": 1.0}'], ids=["gone", "empty", "broken", "of another form"])
def test_a_task_without_scores_of_its_items_is_known_as_such(run, content):
    folder = run()
    file = folder / "samples_hard_router.jsonl"
    file.unlink() if content is None else file.write_text(content)
    found = read_run(folder)
    assert found.without_items == ["hard"]
    assert set(found.values("router")) == {"easy"}


def test_a_folder_without_an_evaluation(tmp_path):
    with pytest.raises(TaskError, match="it holds no results.json"):
        read_run(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(TaskError, match="has not finished: idp eval --resume --output-dir"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results["idp"].pop("schema"), r"older version of idp \(schema 1, not 3\)"),
        (lambda results: results["idp"].update(schema=SCHEMA + 1), "newer version of idp"),
        (lambda results: results["idp"].update(schema="2"), "a schema that is no number"),
        (lambda results: results["idp"].pop("arms"), "is damaged"),
        (lambda results: results["idp"].update(main_arm="nobody"), "is damaged"),
        (lambda results: results.pop("idp"), "was not written by idp eval"),
    ],
    ids=["older", "newer", "no number", "no arms", "no main arm", "lm-eval's"],
)
def test_results_of_another_kind_are_refused(run, change, message):
    folder = run()
    results = json.loads((folder / "results.json").read_text())
    change(results)
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(TaskError, match=message):
        read_run(folder)


@pytest.mark.parametrize("content", ["{", "[]", '"idp"'])
def test_a_file_of_another_form_is_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises((TaskError, OutputError), match="results.json"):
        read_run(tmp_path)


def test_a_group_is_read_as_one_task_by_one_filter(run):
    folder = run()
    results = json.loads((folder / "results.json").read_text())
    idp = results["idp"]
    idp["groups"], idp["metrics"], idp["filters"] = {"both": ["easy", "hard"]}, {"both": "acc"}, {"both": "strict"}
    idp["in_mean"] = ["both"]
    (folder / "results.json").write_text(json.dumps(results))
    for file in folder.glob("samples_*"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        strict = [{**row, "filter": "strict"} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *strict]))
    found = read_run(folder)
    assert found.tasks == ("both",) and found.count("both") == 80 and found.higher_is_better("both")
    assert found.values("compressed")["both"].sum() == 30 and len(found.values("compressed")["both"]) == 80
    (folder / "samples_hard_dense.jsonl").unlink()
    assert read_run(folder).without_items == ["both"]


def test_items_of_a_correlation_are_right_where_both_labels_agree(run):
    row = {**choice_row("easy", 0, True, None), "acc": [1, 0]}
    assert [item.value for item in asked(run, [row, {**row, "acc": [1, 1]}])] == [0.0, 1.0]


def asked(run, rows, metric="acc", name="run"):
    """Items as they are read of some samples, which are all that a task has."""
    folder = run(name)
    results = json.loads((folder / "results.json").read_text())
    results["idp"]["metrics"]["easy"] = metric
    results["n-samples"]["easy"]["effective"] = len(rows)
    (folder / "results.json").write_text(json.dumps(results))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "samples_easy_router.jsonl").write_text(lines, encoding="utf-8")
    return read_run(folder).items["router"]["easy"]


def test_text_may_hold_whatever_ends_a_line_elsewhere(run):
    row = choice_row("easy", 0, True, None)
    question = "Where\u2028is it,\x85and why?"
    [item] = asked(run, [{**row, "arguments": [[question, " here"], [question, " there"], [question, " nowhere"]]}])
    assert item.question == question


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:-1], lambda lines: lines[::-1], lambda lines: [*lines, lines[0]]]
)
def test_items_that_are_not_those_of_the_other_arms_are_not_known(run, change):
    folder = run()
    file = folder / "samples_easy_router.jsonl"
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))
    found = read_run(folder)
    assert found.without_items == ["easy"] and "easy" in found.items["dense"]


def test_options_that_fill_a_blank_are_told_apart(run):
    contexts = ["The cup did not fit the box because the cup", "The cup did not fit the box because the box"]
    row = {
        **choice_row("easy", 0, False, None),
        "arguments": [[each, " was too big."] for each in contexts],
        "target": "was too big.",  # as lm-eval keeps it
    }
    [item] = asked(run, [{**row, "filtered_resps": [[-3.0, False], [-1.0, False]]}])
    assert item.question == "The cup did not fit the box because the _ was too big."
    assert (item.right, item.given) == ("cup", "box")
    [item] = asked(run, [{**row, "filtered_resps": [[-1.0, False], [-3.0, False]], "acc": 1.0}], name="right")
    assert (item.right, item.given) == ("cup", "cup")
    three = [*row["arguments"], ["The cup did not fit the box because the lid", " was too big."]]
    [item] = asked(
        run,
        [{**row, "arguments": three, "filtered_resps": [[-3.0, False], [-1.0, False], [-2.0, False]]}],
        name="three",
    )
    assert (item.right, item.given) == ("was too big.", "box")  # which of the two others it is cannot be told


def test_the_answer_given_is_the_one_that_was_judged(run):
    """By length, a long option may win that is less likely as a whole."""
    row = {**choice_row("easy", 0, True, None), "arguments": [["Where?", " a"], ["Where?", " far away from here"]]}
    row |= {"filtered_resps": [[-2.0, False], [-6.0, False]], "target": 1, "acc_norm": 1.0}
    [item] = asked(run, [row], "acc_norm")
    assert (item.right, item.given, item.value) == ("far away from here", "far away from here", 1.0)
