"""A request to a bank of many prompts touches the prompts that it uses and no others."""

from __future__ import annotations

import pytest
import torch

import idp
from idp.bank import Prompt, PromptBank, storage
from idp.bank.tensor_file import TensorFile
from idp.select import Calibration, KeysSelector

COUNT = 2000


@pytest.fixture(scope="module")
def folder(tiny_lm, tmp_path_factory):
    """A bank of 2,000 soft prompts with indexed keys."""
    lm, generator = tiny_lm(), torch.Generator().manual_seed(0)
    rows = 0.3 * torch.randn(COUNT, 2, lm.hidden_size, generator=generator)  # (m, n, d)
    bank = PromptBank([Prompt(f"p{n}", embedding=row) for n, row in enumerate(rows)], lm.fingerprint)
    inputs = torch.randint(3, 384, (COUNT, 6), generator=generator).tolist()
    selector = KeysSelector(index="approximate").fit(bank, lm, Calibration(inputs, hints=list(range(COUNT))))
    return bank.with_selector("keys", selector.state()).save(tmp_path_factory.mktemp("large") / "bank")


def test_a_request_reads_the_prompts_it_uses_and_answers_as_from_memory(folder, tiny_lm, monkeypatch):
    lm, ids = tiny_lm(), torch.randint(3, 384, (4, 7), generator=torch.Generator().manual_seed(1))
    wanted = idp.wrap(lm.model, lm.tokenizer, folder, "keys")
    expected = wanted.generate(ids, max_new_tokens=3)
    monkeypatch.setattr(storage, "_READ_WHOLE", 0)
    read, original = [], TensorFile.read
    monkeypatch.setattr(TensorFile, "read", lambda file, place: read.append(place) or original(file, place))
    monkeypatch.setattr(PromptBank, "__iter__", lambda bank: pytest.fail("all prompts were looked at"))
    monkeypatch.setattr(idp.dynamic.wrap.PromptBank, "require", lambda *_, **__: None)  # once, when the bank is opened
    lazy = idp.wrap(lm.model, lm.tokenizer, folder, "keys")
    assert read == []
    assert torch.equal(lazy.generate(ids, max_new_tokens=3), expected)
    assert lazy.last_selections == wanted.last_selections
    used = {choice.index for choice in lazy.last_selections}
    assert len(used) > 1 and len(read) == len(used)
    lazy.generate(ids, max_new_tokens=3)
    assert len(read) == len(used)  # compiled, and kept


def test_a_damaged_prompt_stops_the_request_that_chose_it(folder, tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_READ_WHOLE", 0)
    lm = tiny_lm()
    broken = PromptBank.load(folder).save(tmp_path / "broken")
    place = TensorFile(broken / "bank.safetensors").places()["prompt/p7"]
    with open(broken / "bank.safetensors", "rb+") as stream:
        stream.seek(place.start)
        stream.write(b"\x01\x02\x03")
    prompted = idp.wrap(lm.model, lm.tokenizer, broken, "keys")
    ids = torch.tensor([[5, 6, 7]])
    prompted.generate_with([8], ids, max_new_tokens=1)
    with pytest.raises(idp.errors.BankError, match="is damaged: prompt 'p7'"):
        prompted.generate_with([7], ids, max_new_tokens=1)
