"""A bank keeps what it is given, byte for byte, and refuses what is broken or foreign."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from idp.bank import Fingerprint, Prompt, PromptBank, SelectorState
from idp.bank.vectors import PromptVector
from idp.errors import BankError, OutputError
from idp.files import sha256_of

MODEL = Fingerprint("LlamaForCausalLM", 4, 384, "a" * 16, "b" * 16)


@pytest.fixture
def bank() -> PromptBank:
    soft = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    state = SelectorState({"l2": 0.1}, {"weight": torch.ones(3, 4, dtype=torch.float64)})
    prompts = [Prompt("brief", text="Be brief. "), Prompt("static", embedding=soft, provenance={"seed": 7})]
    return PromptBank(prompts, MODEL, {"router": state}, {"corpus": "atlas"})


def test_looks_like_a_list_with_names(bank: PromptBank) -> None:
    assert len(bank) == 2
    assert [prompt.name for prompt in bank] == ["brief", "static"] == list(bank.names)
    assert bank[0] is bank["brief"]
    assert bank.index("static") == 1


def test_a_bank_of_many_prompts_is_printed_short() -> None:
    many = PromptBank([Prompt(f"p{number}", text="x") for number in range(300)])
    assert repr(many).startswith("PromptBank(p0, p1, ") and "p39 and 260 more; for any model" in repr(many)


def test_minus_one_is_never_the_last_prompt(bank: PromptBank) -> None:
    with pytest.raises(IndexError, match="no prompt at all"):
        bank[-1]
    with pytest.raises(IndexError):
        bank[2]


def test_unknown_name_names_the_near_miss(bank: PromptBank) -> None:
    with pytest.raises(BankError, match="Did you mean 'static'"):
        bank["statik"]


def test_empty_twice_and_mixed_widths_are_errors() -> None:
    with pytest.raises(BankError, match="at least one"):
        PromptBank([])
    with pytest.raises(BankError, match="called 'a'"):
        PromptBank([Prompt("a", text="x"), Prompt("a", text="y")])
    with pytest.raises(BankError, match=r"widths \[2, 3\]"):
        PromptBank([Prompt("a", embedding=torch.ones(1, 2)), Prompt("b", embedding=torch.ones(1, 3))])
    with pytest.raises(BankError, match="3 wide do not fit"):
        PromptBank([Prompt("a", embedding=torch.ones(1, 3))], MODEL)


def test_with_selector_leaves_the_bank_alone(bank: PromptBank) -> None:
    state = SelectorState({"index": 1})
    more = bank.with_selector("static", state)
    assert set(more.selectors) == {"router", "static"}
    assert set(bank.selectors) == {"router"}
    assert more.fingerprint == MODEL


def test_with_selector_ties_a_text_bank_to_the_model() -> None:
    bank = PromptBank([Prompt("a", text="x")]).with_selector("router", SelectorState(), MODEL)
    with pytest.raises(BankError, match="weights"):
        bank.require(replace(MODEL, weights="c" * 16))


def test_save_and_load(bank: PromptBank, tmp_path: Path) -> None:
    loaded = PromptBank.load(bank.save(tmp_path / "new" / "bank"))
    assert loaded.prompts == bank.prompts
    assert loaded.fingerprint == bank.fingerprint
    assert loaded.provenance == bank.provenance
    assert loaded.selectors["router"].config == {"l2": 0.1}
    weight = loaded.selectors["router"].tensors["weight"]
    assert weight.dtype is torch.float64
    assert torch.equal(weight, torch.ones(3, 4, dtype=torch.float64))
    assert PromptBank.load(tmp_path / "new" / "bank" / "bank.json").names == bank.names


def test_same_bank_same_bytes(bank: PromptBank, tmp_path: Path) -> None:
    bank.save(tmp_path / "a")
    PromptBank.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("bank.json", "bank.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["bank.json", "bank.safetensors"]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
ROWS = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=2, max_size=2
)
CONTENT = st.one_of(st.text(min_size=1, max_size=20).filter(str.strip), st.lists(ROWS, min_size=1, max_size=4))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(NAMES, CONTENT, min_size=1, max_size=4))
def test_any_bank_survives(contents: dict[str, Any], tmp_path: Path) -> None:
    prompts = [
        Prompt(name, text=content) if isinstance(content, str) else Prompt(name, embedding=torch.tensor(content))
        for name, content in contents.items()
    ]
    assert PromptBank.load(PromptBank(prompts).save(tmp_path / "any")).prompts == tuple(prompts)


def test_text_fits_any_model() -> None:
    PromptBank([Prompt("a", text="x")]).require(MODEL)


def test_own_model_fits(bank: PromptBank) -> None:
    bank.require(MODEL)


def test_foreign_model_is_refused_and_both_are_named(bank: PromptBank) -> None:
    other = replace(MODEL, architecture="OPTForCausalLM", weights="c" * 16)
    with pytest.raises(BankError) as caught:
        bank.require(other)
    message = str(caught.value)
    assert MODEL.describe() in message
    assert other.describe() in message
    assert "architecture LlamaForCausalLM against OPTForCausalLM" in message


def test_a_vector_is_no_prompt() -> None:
    bank = PromptBank([PromptVector("shift", torch.ones(2, 4)).to_prompt()], fingerprint=MODEL)
    with pytest.raises(BankError, match="'shift' is a vector.*idp bank vector apply"):
        bank.require(MODEL)


def test_mismatch_can_be_allowed(bank: PromptBank, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        bank.require(replace(MODEL, weights="c" * 16), allow_mismatch=True)
    assert "weights" in caplog.text


def test_provenance_must_be_json(tmp_path: Path) -> None:
    for value in (object(), float("nan")):
        with pytest.raises(BankError, match="JSON"):
            PromptBank([Prompt("a", text="x", provenance={"bad": value})]).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_unwritable_folder(bank: PromptBank, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        bank.save(tmp_path / "file")


def test_no_bank_there(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no prompt bank at"):
        PromptBank.load(tmp_path / "nowhere")


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    description = json.loads((folder / "bank.json").read_text())
    change(description)
    (folder / "bank.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("prompts"), "prompts"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.update(format="other"), "not a prompt bank"),
        (lambda d: d.update(version=2), "version 2"),
        (lambda d: d["fingerprint"].pop("weights"), "fingerprint"),
        (lambda d: d["prompts"][0].update(surprise=1), "surprise"),
        (lambda d: d["prompts"][0].update(text=" "), "is empty"),
        (lambda d: d["prompts"][0].pop("name"), "name"),
        (lambda d: d["prompts"][1].update(name="other"), "prompt/other"),
        (lambda d: d["prompts"][1].update(num_virtual_tokens=3), "not 3"),
        (lambda d: d["selectors"]["router"]["tensors"].append("bias"), "bias"),
        (lambda d: d.update(prompts=3), "broken"),
        (lambda d: d.update(selectors=[]), "broken"),
        (lambda d: d.update(provenance=[1]), "broken"),
        (lambda d: d.update(prompts=[]), "at least one"),
    ],
)
def test_broken_description(
    bank: PromptBank, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    _edit(bank.save(tmp_path), change)
    with pytest.raises(BankError, match=message) as caught:
        PromptBank.load(tmp_path)
    assert str(tmp_path / "bank.json") in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_not_a_description(bank: PromptBank, tmp_path: Path, text: str) -> None:
    (bank.save(tmp_path) / "bank.json").write_text(text)
    with pytest.raises(BankError, match=r"bank\.json"):
        PromptBank.load(tmp_path)


def test_tensors_of_another_bank(bank: PromptBank, tmp_path: Path) -> None:
    file = bank.save(tmp_path) / "bank.safetensors"
    tensors = load_file(file)
    save_file({name: value + 1 for name, value in tensors.items()}, file)
    with pytest.raises(BankError, match="damaged or belongs to another bank"):
        PromptBank.load(tmp_path)


def test_tensors_missing_or_no_safetensors(bank: PromptBank, tmp_path: Path) -> None:
    file = bank.save(tmp_path) / "bank.safetensors"
    file.write_bytes(b"not safetensors")
    _edit(tmp_path, lambda d: d.update(tensors_sha256=sha256_of(file)))
    with pytest.raises(BankError, match="not a safetensors file"):
        PromptBank.load(tmp_path)
    file.unlink()
    with pytest.raises(BankError, match="incomplete"):
        PromptBank.load(tmp_path)


def test_state_is_an_own_copy() -> None:
    weight = torch.ones(2)
    state = SelectorState({"a": 1}, {"weight": weight})
    weight.zero_()
    assert torch.equal(state.tensors["weight"], torch.ones(2))
