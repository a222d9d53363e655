"""Two processes on the CPU, started by accelerate's launcher, find what one process finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lm_eval
import pytest

import idp
import idp.evaluate.parallel as module
from idp.errors import IdpError
from idp.evaluate import evaluate, write_report
from idp.evaluate.arms import ARMS
from idp.evaluate.parallel import Team, accelerator
from idp.resources import eval_dir

PATIENCE = 300.0  # seconds; a busy machine may take long to import torch twice
LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
"""Its `--multi_gpu` means processes that talk through torch; `--cpu` would start a single one."""
SCRIPT = """
import json, sys
import idp.evaluate, lm_eval
from idp.resources import eval_dir

for options in json.loads(sys.argv[1]):
    manager = lm_eval.tasks.TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=False)
    path = options.pop("path")
    output = lm_eval.simple_evaluate(**options, task_manager=manager)
    if output is not None:
        with open(path, "x") as file:
            json.dump({key: output[key] for key in ("results", "samples")}, file, default=str)
"""


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as two processes."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(idp.__file__).parents[1])
    options = [*LAUNCH.split(), "--mixed_precision", "no", "--dynamo_backend", "no"]
    return subprocess.run(
        [sys.executable, *options, *command], capture_output=True, text=True, timeout=PATIENCE, env=environment
    )


def without_copies(samples):
    """Samples by document; lm-eval answers a process's last request again to give all equally many."""
    rows = {row["doc_id"]: dict(row, resps=[answers[:1] for answers in row["resps"]]) for row in samples}
    assert len(rows) == len(samples)
    return json.loads(json.dumps([rows[number] for number in sorted(rows)], default=str))


def same(one, other):
    """Whether two results are equal, numbers to what another order of rows may change."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):
        return one == pytest.approx(other, abs=1e-4, rel=1e-5)
    return one == other


@pytest.mark.slow
def test_lm_eval_with_two_processes_finds_what_one_finds(compressed, bank_folder, tmp_path):
    """Five items make unequal shares; in the second run one process has all its answers in a cache already."""
    script, cache = tmp_path / "script.py", str(tmp_path / "answers")
    script.write_text(SCRIPT)
    options = {
        "model": "idp",
        "model_args": f"pretrained={compressed},bank={bank_folder},selector=random,dtype=float32",
        "tasks": ["atlas_easy", "atlas_trivia", "atlas_last_word", "atlas_text"],
        **{"limit": 5, "bootstrap_iters": 0, "device": "cpu", "batch_size": 2},
    }
    manager = lm_eval.tasks.TaskManager(include_path=str(eval_dir() / "tasks"), include_defaults=False)
    alone = lm_eval.simple_evaluate(**options, use_cache=cache, task_manager=manager)
    runs = [
        {**options, "path": str(tmp_path / "plain")},
        {**options, "path": str(tmp_path / "kept"), "use_cache": cache},
    ]
    done = launch(str(script), json.dumps(runs))
    assert done.returncode == 0, done.stderr
    assert Path(f"{cache}_rank1.db").exists()
    for run in runs:
        together = json.loads(Path(run["path"]).read_text())
        assert same(json.loads(json.dumps(alone["results"])), together["results"])
        for task in options["tasks"]:
            assert same(without_copies(alone["samples"][task]), without_copies(together["samples"][task]))


@pytest.mark.slow
def test_idp_eval_with_two_processes_finds_what_one_finds(settings, tmp_path, monkeypatch):
    """All arms: selectors are fitted once, the oracle's answers are shared, one process writes and prints."""
    asked = settings(tasks=("atlas_easy", "atlas_trivia", "atlas_last_word", "atlas_text"), limit=3, batch_size=2)
    alone = write_report(evaluate(asked))
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "another-cache"))
    options = {name: getattr(asked, name) for name in ("model", "dense", "bank", "dtype", "device", "limit")}
    options |= {"dense-bank": asked.dense_bank}
    options |= {"tasks": ",".join(asked.tasks), "fit-items": asked.fit_items, "batch-size": 2}
    options["output-dir"] = tmp_path / "two"
    done = launch("-m", "idp", "eval", "--json", *(f"--{name}={value}" for name, value in options.items()))
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "two" / "results.json").read_text()
    assert done.stderr.count("fitting selectors") == done.stderr.count("every prompt on every item") == 1
    one, two = (json.loads(text)["idp"] for text in (alone["results"].read_text(), done.stdout))
    for arm in (*one["arms"].values(), *two["arms"].values()):
        assert arm.pop("seconds") > 0
    assert len(one["arms"]) == len(ARMS)
    assert same(one, two)
    files = sorted(path.name for path in alone["samples"].glob("samples_*"))
    assert len(files) == len(ARMS) * len(asked.tasks)
    for file in files:
        texts = [(folder / file).read_text().strip("\n").split("\n") for folder in (alone["samples"], tmp_path / "two")]
        assert same(*([json.loads(line) for line in lines] for lines in texts)), file


@pytest.mark.slow
def test_an_error_ends_all_processes(compressed, tmp_path):
    (tmp_path / "file").write_text("")
    done = launch("-m", "idp", "eval", "--model", compressed, "--output-dir", str(tmp_path / "file"))
    assert done.returncode != 0
    assert "Choose another --output-dir" in done.stderr


def test_one_process_is_a_team_of_its_own():
    team = Team.launched()
    assert (team.rank, team.size, team.device, team.is_first) == (0, 1, None, True)
    assert team.share([3, 1, 2]) == team.gather([3, 1, 2]) == [3, 1, 2]
    assert team.agree(lambda: "all") == "all"
    assert accelerator() is None


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_shares_are_all_of_the_work_and_as_equal_as_can_be(count):
    shares = [Team(rank, 3).share(range(count)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [Team(rank, 3).is_first for rank in range(3)] == [True, False, False]


def test_processes_that_cannot_be_connected_do_not_each_do_the_whole_work(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module, "Accelerator", lambda **options: SimpleNamespace(num_processes=1))
    with pytest.raises(IdpError, match="2 processes were started, but accelerate cannot connect them"):
        accelerator()
