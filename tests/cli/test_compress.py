"""`idp compress` as a user gives it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idp.cli.compress import default_output

Run = Callable[..., Any]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number} boats are on the river, and nobody locks a door. " for number in range(60)))
    return path


@pytest.fixture
def compress(idp_command: Run, model_folder: Path, text: Path, tmp_path: Path) -> Run:
    """Compress the tiny model with little text."""

    def run(*options: object) -> Any:
        few = ("--calibration", text, "--rows", 4, "--row-tokens", 32, "--held-out", 2)
        return idp_command("compress", model_folder, *few, "--output", tmp_path / "out", *options)

    return run


def test_what_it_cost_is_told(compress: Run, tmp_path: Path) -> None:
    result = compress("--recipe", "gptq:bits=3")
    assert result.exit_code == 0, result.output
    rows = {
        line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.startswith(("dense", "comp"))
    }
    report = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert rows["dense"] == [f"{report['perplexity_before']:.3f}", f"{report['bytes_before'] / 1e6:.2f}"]
    assert rows["compressed"] == [f"{report['perplexity_after']:.3f}", f"{report['bytes_after'] / 1e6:.2f}"]
    assert "3 bits, groups of 32" in result.stdout
    assert "s per million parameters" in result.stdout
    assert "text.txt, 4 rows of 32 tokens; perplexity on 2 rows held out" in result.stdout


def test_json_is_all_there_is_on_stdout(compress: Run, tmp_path: Path) -> None:
    result = compress("-r", "wanda", "--json", "--seed", 4)
    told = json.loads(result.stdout)
    assert told["model"] == str(tmp_path / "out")
    assert (told["seed"], told["options"]["sparsity"], told["zeros"]) == (4, 0.5, 0.5)
    assert "compressing" in result.stderr


def test_what_was_made_is_evaluated_like_any_model(compress: Run, idp_command: Run, tmp_path: Path) -> None:
    assert compress("-r", "rtn").exit_code == 0
    told = json.loads(idp_command("model", "info", tmp_path / "out", "--json").stdout)
    assert (told["method"], told["bits"], told["group_size"]) == ("compressed-tensors", 4, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-r", "gtpq"], "unknown recipe 'gtpq'. Did you mean 'gptq'"),
        (["-r", "gptq:bits=9"], "use 2 to 8"),
        (["-r", "gptq:group=48"], "groups of 48 do not divide"),
        (["--calibration", "nowhere.txt"], "no file or folder 'nowhere.txt'"),
        (["--row-tokens", "9000"], "rows of 9000 tokens are not possible"),
    ],
)
def test_what_cannot_be_done_is_one_line(compress: Run, tmp_path: Path, options: list[str], message: str) -> None:
    result = compress(*options)
    assert result.exit_code == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_kept(compress: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    result = compress("-r", "rtn")
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_default_output_tells_model_and_recipe() -> None:
    assert default_output("org/model", "gptq:bits=3,group=64") == Path("idp-models/org-model-gptq-bits-3-group-64")
    assert default_output("/some/where/model", "/my/recipe.yaml").parent == Path("idp-models")


def test_of_a_folder_only_its_name_counts(tmp_path: Path) -> None:
    assert default_output(str(tmp_path), "rtn").name == f"{tmp_path.name}-rtn"


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(start_idp: Run, tmp_path: Path) -> None:
    process = start_idp("compress", "reference-dense", "-r", "flexround:bits=2", "--rows", 8, "-o", tmp_path / "out")
    for line in process.stderr:
        if line.startswith("compressing"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was written" in errors
    assert not list(tmp_path.iterdir())


def test_an_alias_may_say_what_is_made_of_which_model(
    idp_command: Run, model_folder: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDP_CONFIG", str(tmp_path))
    (tmp_path / "models.yaml").write_text(
        f"mine: {{dense: {model_folder}, recipe: 'wanda:sparsity=0.25', source: null}}\n"
    )
    missing = idp_command("model", "info", "mine")
    assert missing.exit_code == 1 and "idp compress mine" in missing.stderr
    made = idp_command("compress", "mine", "--calibration", text, "--rows", 4, "--row-tokens", 32)
    assert made.exit_code == 0, made.output
    told = json.loads(idp_command("model", "info", "mine", "--json").stdout)
    assert told["mean_sparsity"] == pytest.approx(0.25, abs=0.02)
