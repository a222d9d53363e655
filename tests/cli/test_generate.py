"""`idp generate` with a tiny model."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def generate(idp_command: Run, model_folder: Path, bank_folder: Path) -> Run:
    common = ("--model", model_folder, "--dtype", "float32", "--device", "cpu", "-n", 6)

    def run(*arguments: object, bank: object = bank_folder, stdin: str | None = None) -> Any:
        return idp_command("generate", *arguments, *common, *(("--bank", bank) if bank else ()), stdin=stdin)

    return run


def rows(result: Any) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    read: list[dict[str, Any]] = json.loads(result.stdout)
    return read


def test_answer_prompt_and_score_are_printed(generate: Run) -> None:
    result = generate("The river runs", "--selector", "attention")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("The river runs")
    assert "└ prompt " in result.stdout
    assert " · score 0." in result.stdout
    assert "chosen by attention" in result.stdout


def test_json(generate: Run) -> None:
    first, second = rows(generate("The river runs", "Once upon a time", "--selector", "attention", "--json"))
    assert (first["text"], second["text"]) == ("The river runs", "Once upon a time")
    assert first["prompt"] in {"river", "town"}
    assert set(first["scores"]) == {"river", "town", "none"}
    assert (
        first["score"] == first["scores"][first["prompt"]] == max(first["scores"][name] for name in ("river", "town"))
    )
    assert first["scores"]["none"] is None
    assert first["selector"] == "attention"


def test_two_texts_answer_as_each_alone(generate: Run) -> None:
    both = rows(generate("The river runs", "Once upon a time there was a town", "--selector", "random", "--json"))
    alone = rows(generate("The river runs", "--selector", "random", "--json"))
    assert both[0]["answer"] == alone[0]["answer"]
    assert both[0]["prompt"] == alone[0]["prompt"]


def test_without_a_prompt_it_is_the_bare_model(generate: Run, lm: Any) -> None:
    ids = lm.tokenizer("The river runs", return_tensors="pt")["input_ids"]
    new = lm.model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    (row,) = rows(generate("The river runs", "--selector", "none", "--json", bank=None))
    assert row["answer"] == lm.tokenizer.decode(new, skip_special_tokens=True)
    assert row["prompt"] is None


def test_by_default_no_prompt_is_used_where_no_router_is_fitted(generate: Run) -> None:
    result = generate("The river runs", "--json")
    assert rows(result)[0]["selector"] == "none"
    assert "no fitted router" in result.stderr
    assert rows(generate("The river runs", "--selector", "auto", "--json"))[0]["selector"] == "none"


def test_text_from_stdin(generate: Run) -> None:
    (row,) = rows(generate("-", "--selector", "none", "--json", stdin="The river\nruns\n"))
    assert row["text"] == "The river\nruns"


def test_samples_repeat_for_a_seed(generate: Run) -> None:
    first, again = (rows(generate("Once", "--temperature", 2, "--seed", 3, "--json", "-s", "none")) for _ in range(2))
    other = rows(generate("Once", "--temperature", 2, "--seed", 4, "--json", "-s", "none"))
    assert first == again
    assert first[0]["answer"] != other[0]["answer"]


def test_sampling_leaves_the_global_generator_alone(generate: Run) -> None:
    import torch

    before = torch.get_rng_state()
    rows(generate("Once", "--sample", "--json", "-s", "none"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("arguments", [("-n", 0), ("--temperature", 0), ("--seed", -1)])
def test_numbers_out_of_range_are_usage_errors(idp_command: Run, arguments: tuple[object, ...]) -> None:
    result = idp_command("generate", "Once", *arguments)
    assert result.exit_code == 2
    assert str(arguments[0]) in result.stderr


def test_no_text_is_a_usage_error(idp_command: Run) -> None:
    assert idp_command("generate").exit_code == 2


def test_chat_writes_texts_with_the_template(
    generate: Run, lm: Any, model_folder: Path, tmp_path: Path, idp_command: Run
) -> None:
    refused = generate("Who wrote it?", "--chat", "--selector", "none")
    assert refused.exit_code != 0
    assert "has no chat template" in refused.output
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:"
    shutil.copytree(model_folder, tmp_path / "chatty")
    tokenizer.save_pretrained(tmp_path / "chatty")
    what = ("--model", tmp_path / "chatty", "--dtype", "float32", "--device", "cpu", "-n", 6, "--selector", "none")
    [said] = rows(idp_command("generate", "Who wrote it?", "--chat", *what, "--json"))
    ids = lm.tokenizer("user: Who wrote it? assistant:", add_special_tokens=False, return_tensors="pt")["input_ids"]
    expected = lm.model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    assert said["answer"] == lm.tokenizer.decode(expected, skip_special_tokens=True)
    shown = idp_command("generate", "Who wrote it?", "--chat", *what).stdout
    assert shown.startswith("Who wrote it?\n")
