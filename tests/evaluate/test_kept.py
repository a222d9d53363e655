from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import idp.evaluate.run as run_module
from idp.errors import OutputError, SelectorError
from idp.evaluate import evaluate, write_report
from idp.evaluate.kept import RunFolder, TaskResult, samples_file
from idp.evaluate.report import footnotes
from idp.evaluate.settings import Settings

ARMS = ("compressed", "random", "static")
TASKS = ("atlas_easy", "atlas_text")
RESULT = TaskResult("easy", {"results": {"easy": {"acc,none": 0.5}}}, [{"doc_id": 0, "ü": None}], [0.5], 0.5, 3.0, 0.25)


def test_what_was_put_is_got_again(tmp_path):
    folder = RunFolder(tmp_path)
    folder.put("mix:how=sum", RESULT, "key")
    assert folder.get("mix:how=sum", "easy", "key") == RESULT
    assert (tmp_path / "samples_easy_mix-how-sum.jsonl").exists()


def test_what_was_found_under_other_circumstances_is_not_taken(tmp_path):
    folder = RunFolder(tmp_path)
    folder.put("static", RESULT, "key")
    assert folder.get("static", "easy", "another key") is None
    assert folder.get("router", "easy", "key") is folder.get("static", "hard", "key") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"key": "key"}'])
def test_a_damaged_result_is_not_taken(tmp_path, content):
    folder = RunFolder(tmp_path)
    folder.put("static", RESULT, "key")
    [file] = tmp_path.glob("arms/static/*.json")
    file.write_text(content)
    assert folder.get("static", "easy", "key") is None


@pytest.mark.parametrize(
    "change", [lambda file: file.unlink(), lambda file: file.write_text("{}\n")], ids=["gone", "other"]
)
def test_a_result_without_its_samples_is_not_taken(tmp_path, change):
    folder = RunFolder(tmp_path)
    folder.put("static", RESULT, "key")
    change(tmp_path / samples_file("static", "easy"))
    assert folder.get("static", "easy", "key") is None


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.held(), pytest.raises(OutputError, match="another run is writing"), folder.held():
        pass
    with folder.held():
        pass


def test_a_second_evaluation_of_a_folder_is_refused(settings, watcher):
    asked = settings(arms=("compressed",), tasks=("atlas_easy",))
    seen = watcher()
    with RunFolder(asked.output_dir).held(), pytest.raises(OutputError, match="another run is writing"):
        evaluate(asked, seen)
    assert seen.stages == []  # nothing was loaded


def test_results_are_written_while_the_folder_is_held(settings):
    asked = settings(arms=("compressed",), tasks=("atlas_easy",))

    def then(evaluation):
        with pytest.raises(OutputError, match="another run is writing"):
            evaluate(asked)
        write_report(evaluation)

    evaluate(asked, then=then)
    assert (asked.output_dir / "results.json").exists()
    with RunFolder(asked.output_dir).held():
        pass


@pytest.mark.parametrize("data_dir", [None, Path("data") / "tasks"])
def test_settings_are_found_again(settings, data_dir):
    asked = settings(arms=ARMS, tasks=TASKS, fresh=True, seed=3, data_dir=data_dir)
    asked.write()
    again = Settings.begun(asked.output_dir)
    assert again == replace(asked, fresh=False, resume=True)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "leave --resume out"), ("{", "cannot be read"), ('{"speed": 3}', "cannot be read")]
)
def test_without_settings_there_is_nothing_to_go_on_with(tmp_path, content, message):
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(OutputError, match=message):
        Settings.begun(tmp_path)


@pytest.fixture
def stopped(settings, monkeypatch):
    """A run that was interrupted in the middle of its second arm, and what was run by then."""
    asked, done, real = settings(arms=ARMS, tasks=TASKS), [], run_module.run_task

    def run_task(lm, entry, limit):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(entry.name)
        return real(lm, entry, limit)

    monkeypatch.setattr(run_module, "run_task", run_task)
    with pytest.raises(KeyboardInterrupt):
        evaluate(asked)
    done.clear()
    monkeypatch.setattr(
        run_module, "run_task", lambda lm, entry, limit: done.append(entry.name) or real(lm, entry, limit)
    )
    return asked, done


def test_a_run_is_gone_on_with_where_it_was_interrupted(stopped):
    asked, done = stopped
    resumed = evaluate(Settings.begun(asked.output_dir))
    assert done == ["atlas_text", "atlas_easy", "atlas_text"]
    whole = evaluate(replace(asked, output_dir=asked.output_dir.with_name("whole")))
    assert {name: arm.values for name, arm in resumed.arms.items()} == {n: a.values for n, a in whole.arms.items()}
    ours, theirs = (json.loads(write_report(each)["results"].read_text()) for each in (resumed, whole))
    for key in ("results", "configs", "n-samples"):
        assert ours[key] == theirs[key]


def test_what_was_reported_before_goes_when_a_run_begins(settings, monkeypatch):
    asked = settings(arms=("compressed",), tasks=("atlas_easy",))
    files = write_report(evaluate(asked))

    def interrupt(lm, entry, limit):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run_task", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(replace(asked, seed=5))
    assert not files["results"].exists() and not files["report"].exists()
    assert not (asked.output_dir / "arms").exists()


def test_what_models_may_do_is_not_taken_from_a_folder(settings):
    asked = settings(allow_pickle=True, trust_remote_code=True)
    asked.write()
    assert "true" not in (asked.output_dir / "settings.json").read_text().replace('"fit": true', "")
    begun = Settings.begun(asked.output_dir)
    assert not begun.allow_pickle and not begun.trust_remote_code
    assert Settings.begun(asked.output_dir, trust_remote_code=True).trust_remote_code


def test_results_judged_in_another_way_are_not_gone_on_with(stopped, monkeypatch):
    import idp.evaluate.bench as bench_module

    asked, done = stopped
    load = bench_module.load_tasks

    def judged(*names):
        return [replace(each, metric="acc_norm") if each.name == "atlas_easy" else each for each in load(*names)]

    monkeypatch.setattr(bench_module, "load_tasks", judged)
    evaluate(Settings.begun(asked.output_dir))
    assert len(done) == 6


def test_results_of_other_settings_are_not_gone_on_with(stopped):
    asked, done = stopped
    evaluate(replace(asked, seed=1, resume=True))
    assert len(done) == 6


def test_an_arm_that_fails_is_shown_as_such_and_the_others_are_kept(settings, monkeypatch):
    real = run_module.run_task

    def run_task(lm, entry, limit):
        if lm.prompted.selector.name == "random" and entry.name == "atlas_text":
            raise SelectorError("lost its way")
        return real(lm, entry, limit)

    monkeypatch.setattr(run_module, "run_task", run_task)
    evaluation = evaluate(settings(arms=ARMS, tasks=TASKS))
    assert set(evaluation.arms) == {"compressed", "static"}
    assert evaluation.failed == {"random": "lost its way"}
    assert any("'random' failed: lost its way" in line for line in footnotes(evaluation))
    files = write_report(evaluation)
    assert json.loads(files["results"].read_text())["idp"]["failed"] == {"random": "lost its way"}
    assert (files["samples"] / samples_file("random", "atlas_easy")).exists()


def test_where_every_arm_fails_the_first_reason_is_raised(settings, monkeypatch):
    def fail(lm, entry, limit):
        raise SelectorError(f"no {entry.name}")

    monkeypatch.setattr(run_module, "run_task", fail)
    with pytest.raises(SelectorError, match="no atlas_easy"):
        evaluate(settings(arms=ARMS, tasks=TASKS))


def test_a_full_disk_ends_a_run(settings, monkeypatch):
    def full(self, arm, result, key):
        raise OutputError("no space left")

    monkeypatch.setattr(RunFolder, "put", full)
    with pytest.raises(OutputError, match="no space left"):
        evaluate(settings(arms=ARMS, tasks=TASKS))


def test_neither_batch_size_nor_order_moves_results(settings):
    one = evaluate(settings(arms=ARMS, tasks=TASKS, batch_size=1))
    other = settings(arms=ARMS[::-1], tasks=TASKS[::-1], batch_size=7)
    other = evaluate(replace(other, output_dir=other.output_dir.with_name("other")))
    for name, arm in one.arms.items():
        for task, value in arm.values.items():
            assert other.arms[name].values[task] == pytest.approx(value, rel=1e-4)
        for row, again in zip(arm.samples["atlas_easy"], other.arms[name].samples["atlas_easy"], strict=True):
            assert row["idp_prompt"] == again["idp_prompt"]
            scores, others = ([float(pair[0][0]) for pair in each["resps"]] for each in (row, again))
            assert scores == pytest.approx(others, abs=1e-4)
