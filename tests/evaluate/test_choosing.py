from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from local_tasks import write_cases, write_rows

from idp.errors import SelectorError, TaskError
from idp.evaluate import choosing, evaluate
from idp.evaluate.calibration import example_of
from idp.evaluate.choosing import SELECTORS, compare_selectors
from idp.evaluate.local.tasks import _leaves
from idp.evaluate.tasks import _manager, load_tasks
from idp.run.score import score_prompts
from idp.run.store import PrefixStore
from idp.select.calibration import Calibration
from idp.select.registry import get_selector

TASKS = ("atlas_easy", "atlas_trivia", "atlas_text")


@pytest.fixture(scope="module")
def quick(tiny, tmp_path_factory):
    return dataclasses.replace(tiny, tasks=TASKS, limit=6, output_dir=tmp_path_factory.mktemp("choosing"), fit_items=12)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where this module's selectors are kept once they are fitted."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def found(quick, cache, sentence_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDP_CACHE", cache)
        patch.setattr("idp.select.embedding.SENTENCE_MODEL", sentence_folder)
        return compare_selectors(quick, SELECTORS)


def test_every_family_is_compared(found):
    assert [row.name for row in found.rows] == [name for name in SELECTORS if name != "mix:how=sum"]
    assert any("'mix:how=sum' is left out: prompts of words" in note for note in found.notes)
    assert found.items == dict.fromkeys(TASKS, 6)
    json.dumps(found.to_dict(), allow_nan=False)
    by_name = {row.name: row for row in found.rows}
    chosen = [row for row in found.rows if not row.name.startswith("mix:")]
    assert by_name["oracle"].agreement == max(row.agreement for row in chosen)
    assert by_name["none"].histogram["atlas_easy"] == {"no prompt": 1.0}
    assert all(row.seconds > 0 and row.alone > 0 for row in found.rows)


def test_a_group_counts_as_one_task(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("IDP_CACHE", str(tmp_path / "cache"))
    folder = write_cases(tmp_path / "data", ["piqa"])
    names = [leaf.removeprefix("blimp_") for leaf in _leaves(_manager(with_defaults=True), "blimp")]
    pairs = [{"good": good, "bad": f"{good}?", "paradigm": name} for name in names for good in ("It is.", "She sings.")]
    write_rows(folder / "blimp" / "test.jsonl", pairs)
    asked = dataclasses.replace(quick, tasks=("piqa", "blimp"), data_dir=folder, limit=1, output_dir=tmp_path / "out")
    mixture = "mix:how=concat,of=random"
    found = compare_selectors(asked, ["random", mixture])
    assert found.items == {"piqa": 1, "blimp": len(names)}
    evaluation = evaluate(dataclasses.replace(asked, arms=("static", "random", mixture)))
    rows = {row.name: row.mean for row in found.rows}
    assert rows == {name: pytest.approx(arm.mean) for name, arm in evaluation.arms.items()}


def test_means_are_those_of_an_evaluation(found, quick, tmp_path):
    arms = {"compressed": "none", "static": "static", "random": "random", "router": "router"}
    arms |= {name: name for name in SELECTORS[-4:-1] if name != "mix:how=sum"}
    evaluation = evaluate(dataclasses.replace(quick, arms=tuple(arms), output_dir=tmp_path))
    rows = {row.name: row for row in found.rows}
    for arm, selector in arms.items():
        assert rows[selector].mean == pytest.approx(evaluation.arms[arm].mean)


def test_what_was_measured_is_kept(quick, found, cache, monkeypatch):
    monkeypatch.setenv("IDP_CACHE", cache)
    monkeypatch.setattr("idp.tune.losses.score", lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr("idp.evaluate.lm.score", lambda *_, **__: pytest.fail("scored again"))
    again = compare_selectors(quick, ["random", "mix:how=concat"])
    assert [row.name for row in again.rows] == ["static", "random", "mix:how=concat"]  # shares are counted from static
    for row in again.rows:
        assert row.loss == next(each.loss for each in found.rows if each.name == row.name)


def test_an_ensemble_loses_what_follows_from_what_its_prompts_say(quick, lm, bank, cache, monkeypatch):
    """Of two prompts of a question: by the mean of their likelihoods, worked out from those of each alone."""
    monkeypatch.setenv("IDP_CACHE", cache)
    settings = dataclasses.replace(quick, tasks=("atlas_easy",))
    row = compare_selectors(settings, ["mix:how=ensemble,of=static,weights=uniform,k=4"]).rows[1]
    entry = load_tasks(["atlas_easy"])[0]
    docs = [doc for _, doc in entry.task.doc_iterator(rank=0, limit=6, world_size=1)]
    losses = []
    for example in (example_of(lm, entry, doc) for doc in docs):
        arms = score_prompts(PrefixStore(lm, bank), [example.request])[0]
        logs = torch.tensor([[option.loglikelihood for option in arm.scores] for arm in arms]).double()  # (m + 1, o)
        losses.append(1 - float(logs.exp().mean(0)[example.answer] / logs.exp().mean(0).sum()))
    assert row.loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_controls_are_left_out_and_the_oracle_is_not_fitted_on_training_items(quick):
    settings = dataclasses.replace(quick, tasks=("atlas_easy", "atlas_control"))
    assert set(compare_selectors(settings, ["oracle"]).items) == {"atlas_easy"}


def test_selectors_that_cannot_be_fitted_are_left_out_and_static_has_to_be(quick, bank, lm, tmp_path):
    unfitted = dataclasses.replace(quick, fit=False)
    with pytest.raises(TaskError, match="compared with 'static', but it learns from answers"):
        compare_selectors(unfitted, ["keys"])
    losses = torch.ones(1, len(bank) + 1)
    static = get_selector("static").fit(bank, lm, Calibration([[5]], losses))
    folder = bank.with_selector("static", static.state()).save(tmp_path / "bank")
    found = compare_selectors(dataclasses.replace(unfitted, bank=str(folder)), ["keys"])
    assert [row.name for row in found.rows] == ["static"]
    assert any("'keys' is left out" in note for note in found.notes)


def test_what_cannot_be_loaded_is_left_out(quick, found, cache, monkeypatch):
    monkeypatch.setenv("IDP_CACHE", cache)
    names = ["embedding:model=org/never-cached", "cascade:then=[embedding:model=org/never-cached]", "random"]
    again = compare_selectors(quick, names)
    assert [row.name for row in again.rows] == ["static", "random"]
    assert [note.split(" is left out: ")[0] for note in again.notes] == [f"selector {name!r}" for name in names[:2]]
    assert all("cannot be reached for org/never-cached" in note for note in again.notes)


def test_bad_input(quick, monkeypatch):
    with pytest.raises(SelectorError, match="unknown selector 'ruoter'"):
        compare_selectors(quick, ["ruoter"])
    monkeypatch.setattr(choosing, "example_of", lambda *_: None)
    with pytest.raises(TaskError, match="no form that a loss could be measured of"):
        compare_selectors(quick, ["random"])


def test_rows_of_each_task():
    tables = choosing._by_task(torch.arange(6).reshape(3, 2), ["b", "a", "b"])
    assert list(tables) == ["b", "a"]
    np.testing.assert_array_equal(tables["b"], [[0, 1], [4, 5]])
