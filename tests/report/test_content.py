from __future__ import annotations

import json

import pytest
from made_runs import MODEL

from idp.errors import TaskError
from idp.report.content import report_of
from idp.report.markdown import to_markdown
from idp.report.run import read_run


def changed(folder, change):
    """A run whose results were changed by hand."""
    results = json.loads((folder / "results.json").read_text())
    change(results["idp"])
    (folder / "results.json").write_text(json.dumps(results))
    return read_run(folder)


def test_the_headline_says_what_is_given_back(run):
    [line] = report_of([read_run(run())]).headline
    before = "tiny: router has a mean accuracy of 60.0 %, the compressed model 37.5 %, the dense one 87.5 %: 45 % ["
    assert line.startswith(before) and line.endswith("] of what compression cost is given back.")


def test_the_headline_without_a_dense_model(run, right):
    arms = {name: right[name] for name in ("compressed", "router")}
    [line] = report_of([read_run(run(arms=arms))]).headline
    assert line.endswith("Without a dense model no share of the loss can be stated.")


def test_a_loss_that_may_be_none_is_told_of(run, right):
    arms = {**right, "compressed": right["dense"]}
    report = report_of([read_run(run(arms=arms))])
    assert "It cannot be told that compression cost anything" in report.headline[0]
    assert any("the interval touches nought, so no share of it can be stated" in note for note in report.notes)
    assert [row[2] for row in report.arms.rows] == ["-"] * 4


def test_a_single_item_a_task_has_no_interval_and_a_note(run, right):
    arms = {name: {task: values[:1] for task, values in found.items()} for name, found in right.items()}
    arms["compressed"] = {task: [0] for task in arms["compressed"]}
    report = report_of([read_run(run(arms=arms))])
    assert [row[1:3] for row in report.arms.rows[:2]] == [["100.00", "-"], ["0.00", "-"]]
    assert "no share of that is stated" in report.headline[0]
    assert any("Fewer than 10 items were asked of 2 of the tasks" in note for note in report.notes)
    assert any("no interval is known, so no share" in note for note in report.notes)


def test_arms_without_a_choice_are_no_prompts_that_regain(run, right):
    arms = {"dense": right["dense"], "compressed": right["compressed"], "random": right["router"]}
    report = report_of([read_run(run(arms=arms))])
    assert "No prompts were evaluated" not in report.headline[0] and report.fates == {}
    plain = report_of([read_run(run("plain", arms={name: right[name] for name in ("dense", "compressed")}))])
    assert plain.headline[0].endswith("No prompts were evaluated.")


def test_seeds_of_several_models_are_put_together_model_by_model(run):
    runs = [read_run(run(str(seed), seed=seed)) for seed in (0, 1)]
    runs += [read_run(run(f"b{seed}", seed=seed, model={**MODEL, "name": "other"})) for seed in (0, 1)]
    table = report_of(runs).seeds
    assert table is not None and {row[0] for row in table.rows} == {"tiny", "other"}


def test_an_arm_that_failed_has_a_row_and_a_note(run):
    report = report_of([read_run(run(failed={"attention": "lost its way"}))])
    assert report.arms.rows[-1] == ["attention", "failed: lost its way", "-", "-", "-"]
    assert "arm 'attention' failed: lost its way" in report.notes


def test_every_number_of_the_table_of_arms(run):
    rows = {row[0]: row[1:] for row in report_of([read_run(run())]).arms.rows}
    assert rows["compressed"][0].startswith("37.50 [") and rows["compressed"][1] == "0 % [0, 0]"
    assert rows["router"][2:] == ["16.0", "1.5"] and "oracle (bound)" in rows


def test_the_command_repeats_the_run(run):
    [command] = report_of([read_run(run(seed=3))]).repeat
    assert command.startswith("idp eval --model org/tiny --tasks ")
    assert "--seed 3" in command and "--arms dense,compressed,router,oracle" in command


def test_several_runs_share_a_table_and_notes(run):
    report = report_of([read_run(run("a")), read_run(run("b", seed=1, failed={"random": "no luck"}))])
    assert report.arms.headers[0] == "run" and len(report.arms.rows) == 9
    assert report.seeds is not None and ["dense", "compressed"] in [list(row[1:3]) for row in report.seeds.rows]
    assert sum(note.startswith("Accuracies in percent") for note in report.notes) == 1
    assert "tiny, seed 1: arm 'random' failed: no luck" in report.notes


def test_runs_of_different_items_are_refused(run):
    with pytest.raises(TaskError, match="cannot be compared"):
        report_of([read_run(run("a")), read_run(run("b", items=" of yesterday"))])


def test_markdown_holds_all_tables(run):
    text = to_markdown(report_of([read_run(run(text=True))]))
    for title in ("Arms", "Items", "Tasks", "Pairs of arms", "Prompts chosen", "What was compared", "Environment"):
        assert f"\n## {title}\n" in text
    assert "| router | compressed | +22.50 [" in text
    assert "| all | 40 | 22 (55 %) | 4 |" in text
    assert "| text * | word_perplexity | 1 | - | 6.00 | 6.00 | 6.00 | 6.00 |" in text
    assert "- router: one 41, two 40" in text


def test_a_bar_in_a_cell_does_not_end_it(run):
    report = report_of([changed(run(), lambda idp: idp.update(failed={"a|b": "c"}))])
    assert "| a\\|b | failed: c |" in to_markdown(report)


def test_without_any_prompts_the_headline_says_what_compression_cost(run, right):
    report = report_of([read_run(run(arms={name: right[name] for name in ("dense", "compressed")}))])
    assert report.headline[0].startswith(
        "tiny: the compressed model has a mean accuracy of 37.5 %; compression cost +50.00 ["
    )


def test_a_command_is_quoted(run):
    [command] = report_of([changed(run(), lambda idp: idp["settings"].update(data_dir="my data; rm x"))]).repeat
    assert "--data-dir 'my data; rm x'" in command


def test_where_compression_helped_nothing_is_given_back(run, right):
    report = report_of([read_run(run(arms={**right, "dense": right["compressed"], "compressed": right["dense"]}))])
    assert [row[2] for row in report.arms.rows] == ["-"] * 4
    assert any("it helped, so no share of it can be stated" in note for note in report.notes)
