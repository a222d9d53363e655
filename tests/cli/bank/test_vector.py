"""`idp bank vector`: from two prompts to a vector, to sums of them, and back to a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from idp.bank import Prompt, PromptBank
from idp.bank.vectors import is_vector

Done = Callable[..., str]
Run = Callable[..., Any]


def only(folder: str) -> Prompt:
    [prompt] = PromptBank.load(folder)
    return prompt


def numbers(folder: str) -> list[list[float]]:
    embedding = only(folder).embedding
    assert isinstance(embedding, Tensor)
    rows: list[list[float]] = embedding.tolist()
    return rows


def weights(folder: str) -> str:
    fingerprint = PromptBank.load(folder).fingerprint
    assert fingerprint is not None
    return fingerprint.weights


@pytest.fixture
def vectors(done: Done) -> None:
    done("vector", "difference", "general", "dense:static")
    done("vector", "difference", "task", "dense:task")


@pytest.mark.usefixtures("vectors")
def test_from_differences_to_a_prompt_and_a_table(done: Done) -> None:
    assert numbers("general") == [[1, 1], [0, 3]]
    assert numbers("task") == [[0, 1], [2, 1]]
    assert done("vector", "sum", "both", "general", "task") == "Vector both: both\n"
    assert numbers("both") == [[1, 2], [2, 4]]
    assert done("vector", "apply", "tuned", "dense/init", "both") == "Prompt tuned: tuned\n"
    assert numbers("tuned") == PromptBank.load("dense")["task"].embedding.tolist()  # type: ignore[union-attr]
    assert not is_vector(only("tuned"))
    compared = json.loads(done("vector", "similarity", "general", "task", "both", "--json"))
    assert compared["vectors"] == ["general:general", "task:task", "both:both"]
    means = torch.tensor([[0.5, 2], [1, 1], [1.5, 3]], dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(means[:1], means)
    assert compared["similarity"][0] == pytest.approx(cosines.tolist())
    assert {weights(folder) for folder in ("general", "task", "both", "tuned")} == {"1" * 16}


def test_as_a_process_of_its_own(start_idp: Callable[..., Any], done: Done) -> None:
    done("vector", "difference", "v", "dense:task")
    process = start_idp("bank", "vector", "apply", "tuned", "dense:static", "v")
    assert process.communicate(timeout=120) == ("Prompt tuned: tuned\n", "")
    assert process.returncode == 0
    assert numbers("tuned") == [[1, 2], [3, 4]]


@pytest.mark.usefixtures("vectors")
def test_negate_and_scale(done: Done) -> None:
    done("vector", "negate", "minus", "general")
    done("vector", "scale", "half", "general", 0.5)
    done("vector", "scale", "back", "general", "-2")
    assert numbers("minus") == [[-1, -1], [0, -3]]
    assert numbers("half") == [[0.5, 0.5], [0, 1.5]]
    assert numbers("back") == [[-2, -2], [0, -6]]


@pytest.mark.usefixtures("vectors")
def test_the_difference_of_vectors_is_a_vector(done: Done) -> None:
    done("vector", "difference", "rest", "general", "task")
    assert numbers("rest") == [[1, 0], [-2, 2]]
    assert is_vector(only("rest"))


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("weight", "expected"), [(0, [[1, 1], [1, 3]]), (-1, [[1, 0], [-1, 2]])])
def test_apply_with_a_weight(done: Done, weight: int, expected: list[list[float]]) -> None:
    done("vector", "apply", "made", "dense:static", "task", "--weight", weight)
    assert numbers("made") == expected


def test_compression_as_a_task(done: Done, refused: Done) -> None:
    """What compression did to the static prompt is added to a prompt that was tuned on the dense model."""
    difference = ("vector", "difference", "repair", "sparse:static", "dense:static")
    line = refused(*difference)
    assert "sparse:static was made for" in line
    assert "but dense:static for" in line
    assert "--for BANK" in line
    done(*difference, "--for", "sparse")
    assert numbers("repair") == [[1, 0], [-1, 0]]
    assert weights("repair") == "2" * 16
    assert "--for BANK" in refused("vector", "apply", "made", "dense:task", "repair")
    done("vector", "apply", "made", "dense:task", "repair", "--for", "sparse")
    assert numbers("made") == [[2, 2], [2, 4]]
    assert weights("made") == "2" * 16
    done("vector", "sum", "twice", "repair", "repair", "--for", "dense")
    assert weights("twice") == "1" * 16


@pytest.mark.usefixtures("vectors")
def test_names_and_provenance(done: Done) -> None:
    assert dict(only("general").provenance) == {"vector": True, "of": "dense:static", "minus": "dense/init:rows"}
    done("vector", "apply", "folder/made", "dense:static", "general", "task", "--name", "mine", "-w", 0.5)
    made = only("folder/made")
    assert made.name == "mine"
    assert dict(made.provenance) == {"init": "dense:static", "plus": "general:general + task:task", "times": 0.5}


@pytest.mark.usefixtures("vectors")
def test_similarity_of_all_vectors_of_a_bank(done: Done, idp_command: Run) -> None:
    done("merge", "all", "general", "task")
    table = done("vector", "similarity", "all").splitlines()
    assert table[0].split() == ["vector", "1", "2"]
    assert table[-2].split() == ["1", "all:general", "1.000", "0.857"]
    narrow = idp_command("bank", "vector", "similarity", *["all"] * 5, columns=40)
    assert narrow.stdout.count("1 all:general") > 1
    assert "10" in narrow.stdout


@pytest.mark.usefixtures("vectors")
def test_vectors_of_two_models_can_be_compared(done: Done) -> None:
    done("vector", "apply", "other", "sparse", "general", "--for", "sparse")
    done("vector", "difference", "there", "other", "sparse", "--name", "there")
    assert weights("there") != weights("general")
    assert json.loads(done("vector", "similarity", "there", "general", "--json"))["similarity"][0] == pytest.approx(
        [1, 1]
    )


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(
    "arguments",
    [
        ("difference", "task", "dense:static"),
        ("sum", "task", "general", "general"),
        ("negate", "task", "general"),
        ("scale", "task", "general", 2),
        ("apply", "task", "dense:static", "general"),
    ],
)
def test_nothing_is_overwritten_unasked(refused: Done, done: Done, arguments: tuple[object, ...]) -> None:
    before = numbers("task")
    assert "there is a bank in task already" in refused("vector", *arguments)
    assert numbers("task") == before
    done("vector", *arguments, "--overwrite")
    assert numbers("task") != before


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("difference", "out", "dense"), "bank dense has 2 prompts: say which one, as in dense:static"),
        (("difference", "out", "dense:statik"), "dense: the bank has no prompt 'statik'. Did you mean 'static'"),
        (("difference", "out", "dnese:static"), "no prompt bank at dnese"),
        (("difference", "out", "sparse"), "sparse:static was started from 'rows', which is kept neither"),
        (("difference", "out", "text:instruction-brief", "dense:static"), "'text:instruction-brief' is a text"),
        (("difference", "out", "dense:static", "general"), "'general:general' is a vector, where a prompt is needed"),
        (("difference", "out", "tuned/sparse:static", "dense:static"), "hidden_size 160 against 2"),
        (("sum", "out", "general", "dense:static"), "'dense:static' is a prompt and not a vector"),
        (("negate", "out", "dense:static"), "'dense:static' is a prompt and not a vector"),
        (("scale", "out", "general", "nan"), "finite number, not nan"),
        (("apply", "out", "general", "task"), "'general:general' is a vector, where a prompt is needed"),
        (("apply", "out", "dense:static", "task", "--for", "text"), "bank text fits any model"),
        (("apply", "out", "dense:static", "task", "--for", "tuned/sparse"), "but the target for"),
        (("similarity", "dense"), "'dense:static' is a prompt and not a vector"),
    ],
)
def test_bad_input(refused: Done, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("vector", *arguments)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("scale", "out", "general", "much"),
        ("scale", "out", "general", "2", "--ovewrite"),
        ("sum", "out"),
        ("apply", "out", "dense:static"),
        ("similarity",),
        ("add", "out"),
    ],
)
def test_wrong_command_lines(idp_command: Run, arguments: tuple[str, ...]) -> None:
    assert idp_command("bank", "vector", *arguments).exit_code == 2
