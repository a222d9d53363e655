"""`idp bank build` as a user gives it, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.tune.config import BuildConfig, load_config

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

    Run = Callable[..., Any]

TINY = ("--steps", 4, "--part-steps", 4, "--parts", 2, "--lengths", 3, "--sample", 10, "--batch-size", 4)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(60)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "sums.jsonl"


@pytest.fixture
def command(model_folder: Path, questions: Path) -> tuple[object, ...]:
    return ("build", "--model", model_folder, "--questions", questions, *TINY, "--dtype", "float32", "-o", "run")


def test_builds_a_bank_for_a_model(done: Run, command: tuple[object, ...], lm: LanguageModel) -> None:
    printed = done(*command)
    assert "oracle (a bound)" in printed
    bank = PromptBank.load("run/bank")
    bank.require(lm.fingerprint)
    assert bank.names[0] == "static"
    assert {"router", "static"} <= set(bank.selectors)
    assert bank.provenance["sources"] == {"sums.jsonl": 60}
    card = Path("run/bank/README.md").read_text(encoding="utf-8")
    assert "sums.jsonl (60)" in card
    assert "| static | 3 | frequent-3 |" in card
    assert Path("run/curves.csv").read_text().startswith("prompt,step,train,held_out\nstatic,0,,")
    log = Path("run/log.txt").read_text()
    assert "static, step 4" in log
    assert "oracle" in log
    assert "static prompts: " in log
    assert load_config(Path("run/config.yaml")).part_steps == 4
    assert done("vector", "difference", "moved", "run/bank:static")


def test_json_and_a_config_equal_to_the_flags(done: Run, command: tuple[object, ...]) -> None:
    first = json.loads(done(*command, "--json"))
    assert first["bank"] == str(Path("run") / "bank")
    assert {"static prompts", "losses under every prompt"} <= set(first["seconds"])
    assert first["updates"] == 4 + 4  # too few examples for a second part
    assert [each["counts"] for each in first["rounds"]] == [[45], [45]]
    card = Path("run/bank/README.md").read_text(encoding="utf-8")
    assert "| round | parts | examples of a part | none | static | own part | oracle |" in card
    assert first["peak_memory_bytes"] is None or first["peak_memory_bytes"] > 2**20
    done("build", "--config", "run/config.yaml", "-o", "again")
    same = [{path.name: path.read_bytes() for path in Path(f"{run}/bank").glob("bank.*")} for run in ("run", "again")]
    assert same[0] == same[1]


def test_a_flag_wins_over_the_config(done: Run, command: tuple[object, ...]) -> None:
    done(*command, "--method", "static")
    done("build", "--config", "run/config.yaml", "--lengths", 2, "-o", "again")
    assert len(PromptBank.load("again/bank")[0].embedding) == 2


def test_another_run_in_the_folder_is_not_overwritten(done: Run, refused: Run, command: tuple[object, ...]) -> None:
    done(*command, "--method", "static")
    assert "another run (method, seed)" in refused(*command, "--seed", 5)
    for wrong in (("--init", "foo"), ("--features", "foo", "--method", "parts"), ("--optimizer", "adam")):
        refused(*command, *wrong, "--overwrite")
        assert PromptBank.load("run/bank").names == ("static",)  # a mistake costs nothing
    done(*command, "--seed", 5, "--overwrite")


def test_from_running_text_alone(done: Run, model_folder: Path) -> None:
    Path("story.txt").write_text("".join(f"The miller counts {n} sacks of flour by the river. " for n in range(900)))
    done("build", "--model", model_folder, "--text", "story.txt", *TINY, "--row-tokens", 24, "--dtype", "float32")
    bank = PromptBank.load(next(Path("idp-banks").glob("*/bank")))
    assert bank.provenance["sources"]["story.txt"] > 100
    assert "router" in bank.selectors


def test_from_the_training_split_of_a_task(done: Run, model_folder: Path) -> None:
    done(
        "build",
        "--model",
        model_folder,
        "--tasks",
        "atlas_easy",
        *TINY,
        "--limit",
        100,
        "--dtype",
        "float32",
        "-o",
        "run",
    )
    overlap = PromptBank.load("run/bank").provenance["overlap"]
    assert overlap["checked"] == 100


def test_a_mixture_and_its_router(done: Run, command: tuple[object, ...]) -> None:
    printed = done(*command, "--method", "smop", "--router-noise", 0.5, "--load-balance", 0.01)
    assert "smop" in printed
    assert "smop" in PromptBank.load("run/bank").selectors
    assert "mixture" in Path("run/curves.csv").read_text()


def test_a_warm_start_from_the_sum_of_two_vectors(done: Run, command: tuple[object, ...]) -> None:
    for seed in (0, 1):
        done(*command[:-1], f"run-{seed}", "--method", "static", "--seed", seed, "--lr", 0.5)
        done("vector", "difference", f"moved-{seed}", f"run-{seed}/bank:static")
    done("vector", "apply", "start", "run-0/bank:static", "moved-0", "moved-1", "--weight", 0.5)
    done(*command[:-1], "few", "--method", "static", "--init", "prompt:start", "--steps", 1)
    start = PromptBank.load("start")[0].embedding
    assert torch.equal(PromptBank.load("few/bank/init")["prompt-start-3"].embedding, start)
    assert not torch.equal(start, PromptBank.load("run-0/bank")["static"].embedding)


def test_on_the_dense_model_itself_nothing_is_distilled(done: Run) -> None:
    done("build", "--model", "reference-dense", "--atlas", 40, "--method", "static", *TINY, "-o", "run")
    assert PromptBank.load("run/bank").provenance["objective"] == "answer+choice"


def test_facts_of_the_world_are_checked_against_its_tasks(done: Run, refused: Run) -> None:
    world = ("build", "--model", "reference", "--atlas", 40, "--method", "static", *TINY, "-o", "run")
    assert "one subject in 4" in refused(*world, "--held-out", 0.5)
    assert "leave --check out" in refused(*world, "--check", "atlas_easy")
    done(*world)
    assert PromptBank.load("run/bank").provenance["overlap"]["checked"] > 200


@pytest.mark.parametrize("written", [0, 1, 2, 4, 8])
def test_a_full_disk_is_said_and_leaves_no_bank(
    refused: Run, done: Run, command: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Wherever it happens: at the config, a checkpoint, the losses, or what comes with the bank."""
    left, sync = [written], os.fsync

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", full)
    assert "space" in refused(*command)
    assert left == [-1]
    assert not Path("run/bank/bank.json").exists()
    monkeypatch.setattr("os.fsync", sync)
    done(*command)


def test_what_another_run_left_changes_nothing(done: Run, command: tuple[object, ...]) -> None:
    done(*command[:-1], "fresh")
    done(*command, "--method", "static")
    done(*command, "--overwrite")
    assert _same_bank("fresh", "run")


def test_distils_from_the_model_that_is_named(done: Run, command: tuple[object, ...], model_folder: Path) -> None:
    done(*command, "--method", "static", "--teacher", model_folder)
    assert PromptBank.load("run/bank").provenance["objective"] == "distill+distill-choice"
    assert str(model_folder.parent) not in Path("run/bank/README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--questions", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--objective", "answr"), "Did you mean 'answer'"),
        (("--objective", "distill"), "--teacher"),
        (("--lengths", 500), "context"),
        (("--optimizer", "adam"), "adamw"),
        (("--lengths", 4, "--lengths", 4), "different ones"),
        (("--init", "foo"), "frequent"),
        (("--balance", 5), "give 0 to 1"),
        (("--features", "foo"), "unknown features"),
        (("--features", "damage"), "--teacher"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--check", "atlas_eazy"), "unknown task"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(
    refused: Run, command: tuple[object, ...], arguments: tuple[object, ...], said: str
) -> None:
    assert said in refused(*command, *arguments)
    assert not Path("run/bank").exists()


def test_a_command_that_was_corrected_may_use_the_folder(refused: Run, done: Run, command: tuple[object, ...]) -> None:
    refused(*command, "--questions", "nowhere.jsonl")
    refused(*command, "--init", "foo")
    done(*command, "--method", "static")


def test_fewer_tokens_kept_of_the_teacher_are_another_run(
    done: Run, command: tuple[object, ...], other_model_folder: Path
) -> None:
    distilled = (*command, "--method", "static", "--teacher", other_model_folder)
    banks = []
    for top_k in (1, 16):
        done(*distilled, "--top-k", top_k, "--overwrite")
        banks.append(Path("run/bank/bank.safetensors").read_bytes())
    assert banks[0] != banks[1]


def test_the_defaults_are_in_the_help(idp_command: Run) -> None:
    text = idp_command("bank", "build", "--help", columns=400).stdout
    assert "[default: (1600)]" in text
    assert "[default: (frequent)]" in text


def test_nothing_to_tune_on(refused: Run, model_folder: Path) -> None:
    assert "--text, --questions or --tasks" in refused("build", "--model", model_folder, "-o", "run")
    data = ("--tasks", "piqa", "--data-dir", "nowhere")
    assert "there is no folder" in refused("build", "--model", model_folder, *data, "-o", "run")


def test_a_folder_that_cannot_be_written(refused: Run, command: tuple[object, ...]) -> None:
    Path("run").write_text("a file")
    assert "run" in refused(*command)


def _killed(process: Any, when: Callable[[], bool]) -> bool:
    """Kill a build as soon as something holds, and say whether it had not ended before."""
    deadline = time.monotonic() + 120
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # closes its pipes too
    return process.returncode == -signal.SIGKILL


def _after(path: Path, seconds: float) -> Callable[[], bool]:
    """Whether it is so long ago that a file appeared."""
    seen: list[float] = []

    def when() -> bool:
        if not seen and path.exists():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > seconds

    return when


def _same_bank(one: str, other: str) -> bool:
    first, second = (
        {path.name: path.read_bytes() for path in Path(f"{run}/bank").glob("bank.*")} for run in (one, other)
    )
    return bool(first) and first == second


@pytest.mark.slow
@pytest.mark.parametrize("after", ["static.safetensors", "round-1.safetensors", "losses-*", "../bank/README.md"])
def test_killed_and_started_again_it_makes_the_same_bank(
    start_idp: Run, done: Run, command: tuple[object, ...], after: str
) -> None:
    done(*command[:-1], "whole")
    assert _killed(start_idp("bank", *command), lambda: any(Path("run/work").glob(after)))
    done(*command)
    assert _same_bank("whole", "run")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["parts", "smop"])
def test_killed_at_any_moment_again_and_again_it_makes_the_same_bank(
    start_idp: Run, done: Run, command: tuple[object, ...], method: str
) -> None:
    """Inside a run, beyond its first checkpoint, and wherever else the clock strikes."""
    command = (*command[:-2], "--method", method, "--steps", 120, "-o", "run")
    done(*command[:-1], "whole")
    moments = random.Random(method)
    for _ in range(3):  # counted from when it begins to compute
        Path("run/log.txt").unlink(missing_ok=True)
        assert _killed(start_idp("bank", *command), _after(Path("run/log.txt"), moments.uniform(0.2, 2)))
    done(*command)
    assert _same_bank("whole", "run")


def test_every_field_of_the_config_is_a_flag(idp_command: Run) -> None:
    text = idp_command("bank", "build", "--help", columns=400).stdout
    missing = [name for name in vars(BuildConfig()) if f"--{name.replace('_', '-')}" not in text]
    assert missing == []
