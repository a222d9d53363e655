from __future__ import annotations

import pytest
import torch

import idp
from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.wrap import fitted_selector, wrap
from idp.errors import BankError, ModelError, SelectorError
from idp.select.calibration import Calibration
from idp.select.registry import default_selector, get_selector


def _calibration(bank):
    inputs = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]
    losses = torch.rand(4, len(bank) + 1, generator=torch.Generator().manual_seed(0))
    losses[:, 1] = 0.0
    return Calibration(inputs, losses)


def test_wrap_generates_with_the_state_kept_in_the_bank(tiny_lm, mixed_bank, tmp_path):
    lm = tiny_lm()
    fitted = get_selector("static").fit(mixed_bank(lm), lm, _calibration(mixed_bank(lm)))
    bank = PromptBank(mixed_bank(lm).prompts, fingerprint=lm.fingerprint).with_selector("static", fitted.state())
    bank.save(tmp_path / "bank")
    prompted = idp.wrap(lm.model, lm.tokenizer, bank=tmp_path / "bank", selector="static")
    ids = torch.tensor([[5, 6, 7]])
    out = prompted.generate(ids, max_new_tokens=3)
    assert [selection.index for selection in prompted.last_selections] == [1]
    assert torch.equal(out, prompted.generate_with([1], ids, max_new_tokens=3))


def test_selectors_that_need_no_data_are_fitted(tiny_lm, mixed_bank):
    lm = tiny_lm()
    for name in ("none", "random"):
        prompted = wrap(lm.model, lm.tokenizer, mixed_bank(lm), name, seed=1)
        prompted.generate(torch.tensor([[5, 6]]), max_new_tokens=2)
        assert len(prompted.last_selections) == 1


def test_a_fitted_selector_is_taken_as_it_is(tiny_lm, mixed_bank):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    selector = get_selector("static").fit(bank, lm, _calibration(bank))
    assert wrap(lm.model, lm.tokenizer, bank, selector).selector is selector
    with pytest.raises(SelectorError, match="fitted on another bank"):
        fitted_selector(selector, PromptBank(bank.prompts[:2]), lm)


def test_the_default_is_the_best_router_that_the_bank_holds(tiny_lm, mixed_bank):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    assert default_selector(bank) is None
    with pytest.raises(SelectorError, match="'router' learns from calibration losses"):
        wrap(lm.model, lm.tokenizer, bank)
    for name, passes in (("router", 0.0), ("router:features=state", 0.5)):
        bank = bank.with_selector(name, get_selector(name, l2=1.0).fit(bank, lm, _calibration(bank)).state())
        assert default_selector(bank) == name
        for chosen in (wrap(lm.model, lm.tokenizer, bank), wrap(lm.model, lm.tokenizer, bank, "auto")):
            assert chosen.selector.cost.forwards == passes
    assert wrap(lm.model, lm.tokenizer, bank, "router").selector.cost.forwards == 0.0


def test_the_seed_reaches_the_selector(tiny_lm, mixed_bank):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    inputs = [[n, n + 1] for n in range(3, 40)]
    one, same, other = (
        [choice.index for choice in fitted_selector("random", bank, lm, seed=seed).select_batch(inputs)]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_a_selector_without_its_data_says_how_to_get_it(tiny_lm, mixed_bank):
    lm = tiny_lm()
    with pytest.raises(SelectorError, match=r"'router' learns from calibration losses.*selector\.fit\(bank, lm"):
        wrap(lm.model, lm.tokenizer, mixed_bank(lm))


def test_a_bank_of_another_model_is_refused_unless_allowed(tiny_lm, mixed_bank):
    lm, other = tiny_lm(), tiny_lm(seed=1)
    bank = PromptBank(mixed_bank(lm).prompts, fingerprint=other.fingerprint)
    with pytest.raises(BankError, match="weights"):
        wrap(lm.model, lm.tokenizer, bank, "none")
    assert len(wrap(lm.model, lm.tokenizer, bank, "random", allow_mismatch=True).store) == 4


def test_without_a_bank_there_is_nothing_to_select(tiny_lm):
    lm = tiny_lm()
    prompted = wrap(lm.model, lm.tokenizer, selector="none")
    ids = torch.tensor([[5, 6]])
    assert torch.equal(prompted.generate(ids, max_new_tokens=3), lm.model.generate(ids, max_new_tokens=3))
    with pytest.raises(SelectorError, match="give bank="):
        wrap(lm.model, lm.tokenizer)


def test_unknown_names_are_refused(tiny_lm, mixed_bank, tmp_path):
    lm = tiny_lm()
    with pytest.raises(SelectorError, match="ruoter"):
        wrap(lm.model, lm.tokenizer, mixed_bank(lm), "ruoter")
    with pytest.raises(BankError, match="no prompt bank"):
        wrap(lm.model, lm.tokenizer, tmp_path / "nowhere")


def test_a_model_and_a_tokenizer_that_changed_places_are_told_apart(tiny_lm, mixed_bank):
    lm = tiny_lm()
    with pytest.raises(ModelError, match="in this order"):
        wrap(lm.tokenizer, lm.model, mixed_bank(lm), "random")
    with pytest.raises(ModelError, match="in this order"):
        wrap(lm.model, None, mixed_bank(lm), "random")


def test_what_is_no_selector_is_refused(tiny_lm, mixed_bank):
    lm = tiny_lm()
    with pytest.raises(SelectorError, match="not 3"):
        wrap(lm.model, lm.tokenizer, mixed_bank(lm), 3)


def test_ids_of_another_vocabulary_are_refused(tiny_lm, mixed_bank):
    lm = tiny_lm()
    prompted = wrap(lm.model, lm.tokenizer, mixed_bank(lm), "random")
    with pytest.raises(ModelError, match="another model's tokenizer"):
        prompted.generate(torch.tensor([[5, lm.vocab_size]]), max_new_tokens=1)
    prompted.generate(torch.tensor([[5, lm.vocab_size - 1]]), max_new_tokens=1)


def test_a_selector_that_is_not_fitted_is_taken_from_the_bank_or_needs_none(tiny_lm, mixed_bank):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    fitted = get_selector("static").fit(bank, lm, _calibration(bank))
    kept = bank.with_selector("static", fitted.state())
    prompted = wrap(lm.model, lm.tokenizer, kept, get_selector("static"))
    assert prompted.selector.select([5, 6]) == fitted.select([5, 6])
    assert wrap(lm.model, lm.tokenizer, None, get_selector("none")).selector.name == "none"


def test_prompts_of_the_same_names_are_not_the_same_bank(tiny_lm):
    lm = tiny_lm()
    one, other = (PromptBank([Prompt("a", text=text)]) for text in ("Be brief. ", "Be kind. "))
    with pytest.raises(SelectorError, match="fitted on another bank"):
        wrap(lm.model, lm.tokenizer, other, get_selector("random").fit(one, lm))


def test_prefixes_are_kept_within_a_budget_and_beside_the_bank(tiny_lm, mixed_bank, tmp_path):
    lm = tiny_lm()
    folder = mixed_bank(lm).save(tmp_path / "bank")
    model = wrap(lm.model, lm.tokenizer, folder, "random", prefix_budget=0, keep_prefixes=True)
    assert model.store[2] is not None
    assert model.store.nbytes == 0
    assert len(list((folder / "prefixes").rglob("*.safetensors"))) == 1
    assert len(PromptBank.load(folder)) == 4  # the bank is as it was
    elsewhere = wrap(lm.model, lm.tokenizer, mixed_bank(lm), "random", keep_prefixes=tmp_path / "kept")
    assert elsewhere.store[2] is not None
    assert list((tmp_path / "kept").rglob("*.safetensors"))


def test_prefixes_cannot_be_kept_beside_a_bank_in_memory(tiny_lm, mixed_bank):
    lm = tiny_lm()
    with pytest.raises(BankError, match="give keep_prefixes a folder"):
        wrap(lm.model, lm.tokenizer, mixed_bank(lm), "random", keep_prefixes=True)
    with pytest.raises(BankError, match="comes with the package"):
        wrap(lm.model, lm.tokenizer, "text", "random", keep_prefixes=True)
