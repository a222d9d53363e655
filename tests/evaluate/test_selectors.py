from __future__ import annotations

import pytest
import torch
from local_tasks import CASES, write_cases, write_rows

import idp.evaluate.selectors as module
from idp.bank.bank import PromptBank
from idp.errors import SelectorError, TaskError
from idp.evaluate.selectors import SelectorShop, cache_dir
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import load_tasks
from idp.observer import Silent
from idp.select.calibration import Calibration
from idp.select.registry import get_selector

SPECS = ("none", "random", "attention", "static", "attention:calibrate=center", "router")


@pytest.fixture
def shop(lm, bank, tasks):
    def make(prompts=None, names=("easy", "pair"), observer=None, **settings):
        options = Settings(fit_items=8, **settings)
        return SelectorShop(lm, prompts or bank, tasks(*names), options, observer or Silent())

    return make


def choices(selector):
    inputs = [[1, n, n + 5] for n in range(5, 40)]
    return [(choice.index, choice.score) for choice in selector.select_batch(inputs)]


def test_every_selector_of_the_table_can_be_made(shop):
    made = shop()
    for spec in SPECS:
        assert made.missing(spec) is None
        assert len(choices(made.make(spec))) == 35


def test_what_was_fitted_is_kept_and_chosen_by_again(shop, monkeypatch, watcher):
    watcher = watcher()
    first = {spec: choices(shop(observer=watcher).make(spec)) for spec in SPECS[3:]}
    assert "fitting selectors" in [name for name, *_ in watcher.stages]
    monkeypatch.setattr(module, "calibrate", lambda *a, **k: pytest.fail("fitted again"))
    assert {spec: choices(shop().make(spec)) for spec in SPECS[3:]} == first


def test_losses_are_measured_once_for_all_selectors(shop, monkeypatch):
    calls, calibrate = [], module.calibrate
    monkeypatch.setattr(module, "calibrate", lambda *a, **k: calls.append(1) or calibrate(*a, **k))
    made = shop()
    for spec in SPECS:
        made.make(spec)
    assert calls == [1]


@pytest.mark.parametrize("change", [{"seed": 1}, {"names": ("easy",)}, {"fit": False}])
def test_the_cache_is_not_used_for_other_settings(shop, change):
    spec = "attention:calibrate=center"
    shop().make(spec)
    folders = set((cache_dir() / "selectors").iterdir())
    shop(**change).make(spec)
    assert len(set((cache_dir() / "selectors").iterdir()) - folders) == 1


def test_the_cache_is_not_used_for_other_training_items(lm, bank, tmp_path, monkeypatch):
    """Read from a folder of the same name."""
    spec, folder = "attention:calibrate=center", write_cases(tmp_path, ["piqa"])
    settings = Settings(fit_items=4, data_dir=folder)

    def kept():
        SelectorShop(lm, bank, load_tasks(["piqa"], folder), settings, Silent()).make(spec)
        return set((cache_dir() / "selectors").iterdir())

    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))
    first = kept()
    assert kept() == first
    row = CASES["piqa"].row
    write_rows(folder / "piqa" / "train.jsonl", [{**row, "question": f"How is number {n} opened?"} for n in range(6)])
    assert len(kept() - first) == 1


def test_the_cache_is_not_used_for_other_prompts(shop, bank, lm):
    shop().make("router")
    fewer = PromptBank(bank.prompts[:2], lm.fingerprint)
    assert len(shop(fewer).make("router").select([5]).scores) == 3


def test_the_cache_lies_where_the_environment_says(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "elsewhere"))
    shop().make("static")
    assert list((tmp_path / "elsewhere" / "selectors").glob("*/bank.json"))
    monkeypatch.delenv("IDP_CACHE")
    assert cache_dir().parts[-2:] == (".cache", "idp")


def test_a_broken_cache_costs_time_only(shop):
    expected = choices(shop().make("router"))
    for folder in (cache_dir() / "selectors").iterdir():
        (folder / "bank.json").write_text("{")
    assert choices(shop().make("router")) == expected


def test_a_cache_that_cannot_be_written_to_is_a_note(shop, tmp_path, monkeypatch, watcher):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "file"))
    watcher = watcher()
    assert len(choices(shop(observer=watcher).make("router"))) == 35
    assert any("not kept" in note for note in watcher.notes)


def test_the_banks_own_state_comes_first(shop, bank, lm, monkeypatch):
    monkeypatch.setattr(module, "calibrate", lambda *a, **k: pytest.fail("fitted again"))
    losses = torch.zeros(4, len(bank) + 1)
    losses[:, 1] = -1.0
    static = get_selector("static").fit(bank, lm, Calibration([[1]] * 4, losses))
    made = shop(bank.with_selector("static", static.state())).make("static")
    assert {index for index, _ in choices(made)} == {1}


def test_without_fitting_what_learns_from_answers_cannot_be_made(shop, bank, lm, monkeypatch):
    monkeypatch.setattr(module, "calibrate", lambda *a, **k: pytest.fail("answers were looked at"))
    made = shop(fit=False)
    assert {spec for spec in SPECS if made.missing(spec)} == {"static", "router"}
    for spec in SPECS[:3]:
        made.make(spec)
    calibrated = made.make("attention:calibrate=center")  # on contexts alone
    assert len(choices(calibrated)) == 35
    static = get_selector("static").fit(bank, lm, Calibration([[1]], torch.zeros(1, len(bank) + 1)))
    assert shop(bank.with_selector("static", static.state()), fit=False).missing("static") is None


def test_without_a_training_split_fitting_is_an_error_but_the_rest_works(shop):
    made = shop(names=("control",))
    made.make("attention")
    assert "training split" in (made.missing("router") or "")
    assert made.missing("attention") is None
    with pytest.raises(TaskError, match="training split"):
        made.make("router")


def test_a_selector_that_cannot_look_into_the_model_is_missing(shop):
    assert "layers" in (shop().missing("router:features=state9") or "")


def test_an_unknown_selector_is_refused(shop):
    with pytest.raises(SelectorError, match=r"Did you mean 'router'"):
        shop().make("ruoter")


def test_a_bank_that_knows_enough_spares_the_answers(shop, bank, lm, monkeypatch):
    spec = "cascade:first=static,then=random"
    assert "--no-fit" in (shop(fit=False).missing(spec) or "")
    static = get_selector("static").fit(bank, lm, Calibration([[1]], torch.zeros(1, len(bank) + 1)))
    monkeypatch.setattr(module, "calibrate", lambda *a, **k: pytest.fail("answers were looked at"))
    made = shop(bank.with_selector("static", static.state()), fit=False)
    assert made.missing(spec) is None
    assert len(choices(made.make(spec))) == 35
