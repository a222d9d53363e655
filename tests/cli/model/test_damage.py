"""`idp model damage` as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

QUICK = ("--rows", 4, "--row-tokens", 32, "--device", "cpu")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The river runs past the old mill and the miller counts his sacks. " * 40)
    return path


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"question": "Who?", "choices": ["Ann", "Bo"], "answer": 1, "kind": "people"}\n')
    return path


def done(result: Any) -> str:
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def refused(result: Any) -> str:
    assert result.exit_code != 0
    assert not result.stdout
    assert "Traceback" not in result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("error")]) == 1
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_window(idp_command: Run, quiz: Path, columns: int) -> None:
    run = idp_command(
        "model", "damage", "reference-dense", "reference-gptq", "--questions", quiz, *QUICK, columns=columns
    )
    lines = done(run).splitlines()
    assert lines[0] == "reference-gptq against reference-dense, float32"
    assert "the reference world, told in a wording that no model has read" in lines[1]
    [header] = [number for number, line in enumerate(lines) if line.startswith("layer")]
    assert lines[header].split() == "layer output own weights q k v o gate up down".split()
    rows = [line.split() for line in lines[header + 2 : header + 7]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "all"]
    assert all(20 < float(cell) < 60 for row in rows for cell in row[3:])
    assert all(len(line) <= columns for line in lines[header : header + 7])
    assert "  people" in run.stdout


def test_json_and_files(idp_command: Run, model_folder: Path, other_model_folder: Path, text: Path) -> None:
    pytest.importorskip("matplotlib")
    out = text.parent / "out"
    run = idp_command("model", "damage", model_folder, other_model_folder, "--text", text, *QUICK, "--json", "-o", out)
    found = json.loads(done(run))
    assert found == json.loads((out / "damage.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["damage.json", "damage.md", "damage.png"]
    assert (found["rows"], found["row_tokens"], found["text"]) == (4, 32, str(text))
    assert len(found["layers"]) == 2 and all(layer["weight_error"] > 1 for layer in found["layers"])
    assert found["knowledge"] == [] and "do not know the reference world" in found["asked"]
    assert "reading the text with both (4 steps)" in run.stderr


def test_a_model_and_itself(idp_command: Run, model_folder: Path, text: Path) -> None:
    shown = done(idp_command("model", "damage", model_folder, model_folder, "--text", text, *QUICK))
    assert "the two compute the same: every difference is 0" in shown
    assert "KL(dense || compressed): 0.0000 nats a token [0.0000, 0.0000]" in shown


def test_without_the_own_share(idp_command: Run, model_folder: Path, other_model_folder: Path, text: Path) -> None:
    shown = done(idp_command("model", "damage", model_folder, other_model_folder, "--text", text, *QUICK, "--no-own"))
    assert "output  weights" in shown


def test_a_report_is_replaced_only_when_told(idp_command: Run, model_folder: Path, text: Path) -> None:
    pytest.importorskip("matplotlib")
    (text.parent / "damage.md").write_text("mine")
    what = ("model", "damage", model_folder, model_folder, "--text", text, *QUICK, "-o", text.parent)
    assert "damage.md exists already" in refused(idp_command(*what))
    assert (text.parent / "damage.md").read_text() == "mine"
    done(idp_command(*what, "--overwrite"))
    assert (text.parent / "damage.md").read_text() != "mine"
    assert text.exists()


def test_the_picture_needs_an_extra_and_nothing_else_does(
    idp_command: Run, model_folder: Path, text: Path, without: Callable[[str], None]
) -> None:
    without("matplotlib")
    what = ("model", "damage", model_folder, model_folder, "--text", text, *QUICK)
    done(idp_command(*what))
    assert "pip install 'idp[plot]'" in refused(idp_command(*what, "-o", text.parent / "out"))
    assert not (text.parent / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("referense", "reference"), "Did you mean 'reference'"),
        (("reference-dense", "referense"), "Did you mean 'reference'"),
        (("reference-dense", "./nowhere"), "there is no folder nowhere"),
        (("reference-dense", "reference-gptq", "--text", "nowhere.txt"), "nowhere.txt"),
        (("reference-dense", "reference-gptq", "--questions", "nowhere.jsonl"), "nowhere.jsonl"),
        (("reference-dense", "reference-gptq", "--row-tokens", "1025"), "rows of 1025 tokens are not possible"),
    ],
    ids=["dense", "compressed", "folder", "text", "questions", "rows"],
)
def test_what_is_not_there_is_one_line(idp_command: Run, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(idp_command("model", "damage", *arguments))


def test_models_that_are_not_alike(idp_command: Run, model_folder: Path) -> None:
    assert "number of layers is 4 in one and 2 in the other" in refused(
        idp_command("model", "damage", "reference-dense", model_folder)
    )


def test_models_that_do_not_know_the_world_need_a_text(idp_command: Run, model_folder: Path) -> None:
    assert "(--text)" in refused(idp_command("model", "damage", model_folder, model_folder))


def test_a_text_of_one_token(idp_command: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a")
    said = refused(idp_command("model", "damage", model_folder, model_folder, "--text", tmp_path / "text.txt"))
    assert "less than two tokens" in said


@pytest.mark.slow
def test_the_reference_world_is_asked(idp_command: Run) -> None:
    found = json.loads(
        done(idp_command("model", "damage", "reference-dense", "reference-sparse", *QUICK, "--no-own", "--json"))
    )
    by_labels = {tuple(row["labels"]): row for row in found["knowledge"]}
    assert found["asked"] == "evaluation facts of the reference world, four options each"
    assert by_labels["closed book",]["dense"] > 0.99 > 0.9 > by_labels["closed book",]["compressed"]
    assert by_labels["closed book",]["p"] < 0.001
    assert len([labels for labels in by_labels if len(labels) == 2 and labels[0] == "closed book"]) == 12
