"""`idp eval` from the command line to the files, on a tiny random model."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_tasks import CASES, write_cases

from idp.cli.eval import default_folder, default_suite
from idp.errors import TaskError
from idp.evaluate.arms import ARMS as ALL_ARMS
from idp.evaluate.tasks import suites
from idp.model.aliases import resolve

Run = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]

TASKS = ("atlas_easy", "atlas_trivia", "atlas_text")
ARMS = ("dense", "compressed", "random", "oracle")
PATIENCE = 300.0  # seconds; a busy machine may take long to import torch


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def answers(folder: Path) -> dict[bytes, float]:
    """Key -> seconds of every answer that is kept."""
    file = folder / "answers.sqlite"
    if not file.exists():
        return {}
    connection = sqlite3.connect(file)
    try:
        return dict(connection.execute("SELECT key, seconds FROM answers"))
    except sqlite3.OperationalError:  # just being made
        return {}
    finally:
        connection.close()


@pytest.fixture
def options(model_folder: Path, other_model_folder: Path, bank_folder: Path, tmp_path: Path) -> list[object]:
    models = ["--model", model_folder, "--dense", other_model_folder, "--bank", bank_folder, "--dtype", "float32"]
    return [*models, "--device", "cpu", "--output-dir", tmp_path / "out"]


@pytest.mark.slow
def test_end_to_end(idp_command: Run, start_idp: Start, options: list[object], tmp_path: Path) -> None:
    what = ["--limit", 4, "--tasks", ",".join(TASKS), "--arms", ",".join(ARMS)]
    process = start_idp("eval", *options, *what, "--json")
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    results = read_json(tmp_path / "out" / "results.json")
    assert json.loads(stdout) == results
    check_progress(stderr)
    check_results(results)
    check_samples(tmp_path / "out")
    kept = answers(tmp_path / "out")

    again = idp_command("eval", *options, *what)
    assert again.exit_code == 0, again.output
    check_screen(again.stdout, tmp_path / "out")
    assert answers(tmp_path / "out") == kept
    assert without_times(read_json(tmp_path / "out" / "results.json")) == without_times(results)


def test_mixtures_are_rows(idp_command: Run, options: list[object], tmp_path: Path) -> None:
    """The bank is of words: what can be added up is left out, with a note; the other two need nothing."""
    arms = "random,mix:how=sum,of=random,mix:how=concat,of=random,mix:how=ensemble,of=random"
    told = idp_command("eval", *options, "--limit", 2, "--tasks", "atlas_easy,atlas_trivia,atlas_text", "--arms", arms)
    assert told.exit_code == 0, told.output
    assert "'mix:how=sum,of=random' is left out: prompts of words cannot be added up" in told.stderr
    ours = read_json(tmp_path / "out" / "results.json")["idp"]
    assert [*ours["arms"]] == ["random", "mix:how=concat,of=random", "mix:how=ensemble,of=random"]
    for arm in ours["arms"].values():
        assert arm["tasks"].keys() == {"atlas_easy", "atlas_trivia", "atlas_text"} and arm["seconds"] > 0
    assert ours["arms"]["mix:how=ensemble,of=random"]["prompts_chosen"] == {"ensemble": 6}
    assert set(ours["arms"]["mix:how=concat,of=random"]["prompts_chosen"]) <= {"none", "river + town", "town + river"}
    assert "averaged" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    alone = idp_command("eval", *options, "--tasks", "atlas_easy", "--arms", "mix:how=concat,k=3")
    assert alone.exit_code != 0 and "it takes 3 prompts, and the bank has 2" in alone.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"), CASES)


def test_a_suite_with_local_data_and_a_task_more(
    idp_command: Run, options: list[object], tmp_path: Path, data: Path
) -> None:
    what = [
        "--suite",
        "paper",
        "--tasks",
        "winogrande",
        "--data-dir",
        data,
        "--limit",
        2,
        "--arms",
        "compressed,random",
    ]
    told = idp_command("eval", *options, *what)
    assert told.exit_code == 0, told.output
    assert "winogrande" in told.stdout and "wikitext *" in told.stdout
    results = read_json(tmp_path / "out" / "results.json")
    assert [*results["idp"]["metrics"]] == [*suites()["suites"]["paper"]["tasks"], "winogrande"]
    assert results["n-samples"]["hellaswag"] == {"original": 6, "effective": 2}
    assert results["idp"]["settings"]["data_dir"] == str(data)
    rows = (tmp_path / "out" / "samples_piqa_random.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0])["arguments"][0] == ["Question: To open a jar\nAnswer:", " twist the lid"]

    resumed = idp_command("eval", "--output-dir", tmp_path / "out", "--resume", "--json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["idp"]["arms"] == results["idp"]["arms"]


def test_tasks_that_come_with_the_package_run_on_the_embedded_model(idp_command: Run, tmp_path: Path) -> None:
    what = ["--tasks", "mini_arc_easy", "--limit", 4, "--arms", "compressed,router", "--device", "cpu"]
    done = idp_command("eval", "--model", "reference", *what, "--json", "--output-dir", tmp_path / "out")
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert results["idp"]["metrics"] == {"mini_arc_easy": "acc"}
    assert results["n-samples"] == {"mini_arc_easy": {"original": 200, "effective": 4}}
    assert results["idp"]["chance"] == {"mini_arc_easy": 0.25}
    rows = (tmp_path / "out" / "samples_mini_arc_easy_router.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["arguments"][0][0].startswith("Question: ") for row in rows] == [True] * 4


def test_several_suites_are_put_together(idp_command: Run, options: list[object], data: Path) -> None:
    """Known by what is missing: the folder has three tasks of the groups of hundreds."""
    told = idp_command("eval", *options, "--suite", "paper,wide", "--data-dir", data)
    assert told.exit_code == 1
    assert "holds no row with the paradigm" in " ".join(told.stderr.split())


@pytest.mark.slow
def test_the_files_are_written_though_nobody_reads_the_table(
    start_idp: Start, options: list[object], tmp_path: Path
) -> None:
    process = start_idp("eval", *options, "--limit", 2, "--tasks", "atlas_easy", "--arms", "compressed,random")
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    process.stdout = None
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert read_json(tmp_path / "out" / "results.json")["idp"]["arms"].keys() == {"compressed", "random"}
    assert (tmp_path / "out" / "report.md").exists()


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """Everything of ours but seconds, which hold the time of choosing too and so differ between runs."""
    arms = results["idp"]["arms"]
    kept = {name: {key: value for key, value in arm.items() if key != "seconds"} for name, arm in arms.items()}
    return {**results["idp"], "arms": kept}


def check_progress(stderr: str) -> None:
    """Plain lines, each a stage or a note, and nothing from any library."""
    lines = stderr.splitlines()
    assert any(line.startswith("loading") for line in lines)
    assert any(line.startswith("random (") for line in lines)
    assert not any(word in stderr for word in ("Warning", "WARNING", "it/s", "bootstrapping", "Traceback"))


def check_results(results: dict[str, Any]) -> None:
    assert {"results", "configs", "versions", "n-shot", "n-samples", "idp"} <= results.keys()
    assert set(TASKS) == results["results"].keys()
    ours = results["idp"]
    assert {"model", "bank", "seed", "arms", "gap_recovered", "paired"} <= ours.keys()
    assert ours["arms"].keys() == set(ARMS)
    for arm in ours["arms"].values():
        assert {"mean", "tasks", "prompt_tokens", "seconds"} <= arm.keys()
        assert arm["tasks"].keys() == set(TASKS)
        assert arm["seconds"] > 0
    means = {name: arm["mean"] for name, arm in ours["arms"].items()}
    assert means["oracle"] >= max(means["compressed"], means["random"])
    assert ours["arms"]["compressed"]["prompt_tokens"] == ours["arms"]["dense"]["prompt_tokens"] == 0
    assert ours["arms"]["random"]["prompt_tokens"] > 0
    assert all({"value", "ci95"} == gap.keys() for gap in ours["gap_recovered"].values())
    assert ours["gap_recovered"].keys() <= set(ARMS)
    assert ours["paired"]
    assert all({"a", "b", "difference", "ci95", "p", "mcnemar", "holm"} <= pair.keys() for pair in ours["paired"])
    assert ours["seed"] == 0


def check_samples(folder: Path) -> None:
    for task in TASKS:
        lines = (folder / f"samples_{task}_random.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == 4
        assert all(row["idp_prompt"] in {"river", "town", None} for row in rows)
        assert all(len(row["idp_scores"]) == 3 for row in rows)


def check_screen(stdout: str, folder: Path) -> None:
    assert all(arm in stdout for arm in ARMS)
    assert "gap recovered" in stdout
    assert "Paired differences" in stdout
    assert "text *" in stdout
    joined = stdout.replace("\n", "")  # a long path may be wrapped
    assert str(folder / "results.json") in joined
    assert str(folder / "report.md") in joined
    assert "…" not in stdout


@pytest.mark.slow
def test_interrupted_run_goes_on(idp_command: Run, start_idp: Start, options: list[object], tmp_path: Path) -> None:
    what = ["--limit", 500, "--tasks", "atlas_easy,atlas_support", "--arms", "compressed,random", "--batch-size", 1]
    process = start_idp("eval", *options, *what)
    deadline = time.monotonic() + PATIENCE
    while not (kept := answers(tmp_path / "out")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert stdout == ""
    last = "interrupted; what was computed is kept, run the same command again to go on"
    assert stderr.splitlines()[-1] == last
    assert "Traceback" not in stderr
    assert kept
    assert not (tmp_path / "out" / "results.json").exists()

    resumed = idp_command("eval", "--output-dir", tmp_path / "out", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert read_json(tmp_path / "out" / "results.json")["n-samples"]["atlas_support"]["effective"] > 400
    after = answers(tmp_path / "out")
    assert len(after) > len(kept)
    assert {key: after[key] for key in kept} == kept  # answered from the file: their times are those of the first run


def test_a_run_is_gone_on_with_as_it_was_begun(idp_command: Run, tmp_path: Path) -> None:
    result = idp_command("eval", "--output-dir", tmp_path / "out", "--resume", "--limit", 3)
    assert result.exit_code == 2
    assert "--limit cannot be changed" in " ".join(result.stderr.split())
    result = idp_command("eval", "--output-dir", tmp_path / "out", "--resume", "--model", "reference-gptq")
    assert result.exit_code == 2
    assert "--model cannot be changed" in " ".join(result.stderr.split())


def test_there_has_to_be_a_run_to_resume(idp_command: Run, tmp_path: Path) -> None:
    result = idp_command("eval", "--output-dir", tmp_path / "out", "--resume")
    assert result.exit_code == 1
    assert "leave --resume out" in " ".join(result.stderr.split())


def test_fresh_forgets_answers(idp_command: Run, options: list[object], tmp_path: Path) -> None:
    what = ["--limit", 2, "--tasks", "atlas_easy", "--arms", "compressed"]
    assert idp_command("eval", *options, *what).exit_code == 0
    first = answers(tmp_path / "out")
    assert idp_command("eval", *options, *what, "--arms", "nosuch", "--fresh").exit_code != 0
    assert answers(tmp_path / "out") == first  # a mistyped option costs nothing
    assert idp_command("eval", *options, *what, "--fresh").exit_code == 0
    second = answers(tmp_path / "out")
    assert first.keys() == second.keys()
    assert first != second


def test_without_dense_the_gap_column_says_so(idp_command: Run, options: list[object]) -> None:
    what = ["--limit", 2, "--tasks", "atlas_easy", "--arms", "dense,compressed,random", "--dense", "none"]
    result = idp_command("eval", *options, *what)
    assert result.exit_code == 0, result.output
    assert "the dense model was not asked for" in " ".join(result.stdout.split())


def test_no_fit_leaves_out_what_learns_from_answers(idp_command: Run, options: list[object]) -> None:
    what = ["--limit", 2, "--tasks", "atlas_easy", "--arms", "compressed,router", "--no-fit", "--json"]
    result = idp_command("eval", *options, *what)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["idp"]["arms"].keys() == {"compressed"}
    assert "'router' is left out" in result.stderr


def test_fits_what_the_bank_does_not_hold_and_keeps_it(idp_command: Run, options: list[object], tmp_path: Path) -> None:
    # Texts of atlas_text are longer than this model's context.
    what = ["--limit", 2, "--tasks", "atlas_easy,atlas_text", "--arms", "static,router", "--fit-items", 8, "--json"]
    first = idp_command("eval", *options, *what)
    assert first.exit_code == 0, first.output
    assert "fitting selectors (24 steps)" in first.stderr
    assert json.loads(first.stdout)["idp"]["arms"].keys() == {"static", "router"}
    assert list((tmp_path / "cache").rglob("bank.json"))
    assert "fitting" not in idp_command("eval", *options, *what).stderr


@pytest.mark.parametrize(
    ("model", "tasks"),
    [
        ("reference", "atlas"),
        ("reference-sparse", "atlas"),
        ("smollm2-135m-3bit", "mini"),
        ("opt-6.7b-4bit", "paper"),
        ("org/model", "paper"),
    ],
)
def test_the_default_suite_is_the_one_of_the_alias(model: str, tasks: str) -> None:
    assert default_suite(resolve(model)) == tasks


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("reference", "reference"),
        ("org/model-4bit", "org-model-4bit"),
        ("/home/me/my model/", "home-me-my-model"),
        ("../tiny", "tiny"),
        ("..", "model"),
    ],
)
def test_default_folder(model: str, name: str) -> None:
    assert default_folder(model) == Path("idp-results") / name


def test_where_nothing_is_named_a_real_model_is_run_on_a_bounded_suite(idp_command, monkeypatch):
    asked = []

    def stop(settings, *rest):
        asked.append(settings)
        raise TaskError("that is enough")

    monkeypatch.setattr("idp.evaluate.evaluate", stop)
    for arguments in ((), ("--suite", "mini"), ("--limit", 3, "--arms", "static"), ("--model", "reference")):
        assert idp_command("eval", *arguments).exit_code == 1
    bare, whole, own, reference = asked
    assert (bare.model, bare.tasks, bare.limit) == ("smollm2-135m-3bit", ("mini",), 80)
    assert bare.arms == ("dense", "compressed", "static", "router-state")
    assert (whole.arms, whole.limit) == (ALL_ARMS, None)
    assert (own.arms, own.limit) == (("static",), 3)
    assert (reference.tasks, reference.arms, reference.limit) == (("atlas",), ALL_ARMS, None)
