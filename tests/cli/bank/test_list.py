"""`idp bank list`: the package's banks and one's own, broken ones included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Done = Callable[..., str]


@pytest.fixture
def listed(done: Done) -> Callable[..., dict[str, dict[str, Any]]]:
    return lambda *arguments: {row["name"]: row for row in json.loads(done("list", *arguments, "--json"))}


def test_banks_of_the_package(listed: Callable[..., Any]) -> None:
    rows = listed()
    assert {"text", "tuned/sparse", "tuned/gptq", "tuned/smollm2-135m-3bit"} == {
        name for name, row in rows.items() if row["shipped"]
    }
    sparse = rows["tuned/sparse"]
    assert sparse["num_virtual_tokens"] == [16]
    assert sparse["kinds"] == {"soft": sparse["prompts"]}
    assert "router" in sparse["selectors"]
    assert (rows["text"]["fingerprint"], rows["text"]["num_virtual_tokens"]) == (None, [])
    assert {"domain", "repair"} <= set(rows["text"]["kinds"])


def test_banks_of_the_current_folder(listed: Callable[..., Any]) -> None:
    own = {name: row for name, row in listed().items() if not row["shipped"]}
    assert set(own) == {"dense", "sparse"}
    assert own["dense"] == {
        "name": "dense",
        "shipped": False,
        "prompts": 2,
        "kinds": {"soft": 2},
        "num_virtual_tokens": [2],
        "fingerprint": {
            "architecture": "LlamaForCausalLM",
            "hidden_size": 2,
            "vocab_size": 384,
            "tokenizer": "a" * 16,
            "weights": "1" * 16,
        },
        "selectors": ["router"],
    }


def test_banks_of_another_folder(listed: Callable[..., Any]) -> None:
    assert {name for name, row in listed("dense").items() if not row["shipped"]} == {"dense", "dense/init"}


def test_vectors_are_called_vectors(listed: Callable[..., Any], done: Done) -> None:
    done("vector", "difference", "v", "dense:static")
    assert listed()["v"]["kinds"] == {"vector": 1}


def test_the_table(idp_command: Callable[..., Any]) -> None:
    lines = {line.split()[0]: line.split() for line in idp_command("bank", "list", columns=160).stdout.splitlines()}
    assert lines["dense"] == ["dense", "2", "soft", "2", "LlamaForCausalLM", "11111111", "router"]
    assert "any" in lines["text"]
    assert {"tuned/sparse", "tuned/gptq", "sparse"} <= set(lines)


def test_a_broken_bank_does_not_hide_the_others(idp_command: Callable[..., Any], listed: Callable[..., Any]) -> None:
    Path("sparse/bank.safetensors").write_bytes(b"")
    assert "sparse/bank.safetensors is damaged" in listed()["sparse"]["problem"]
    result = idp_command("bank", "list")
    assert result.exit_code == 0
    assert "dense" in result.stdout
    assert result.stderr.startswith("note: sparse/bank.safetensors is damaged")


def test_no_folder(refused: Done) -> None:
    assert "cannot look for banks in nowhere" in refused("list", "nowhere")
