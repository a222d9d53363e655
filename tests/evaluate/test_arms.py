from __future__ import annotations

import json

import numpy as np
import pytest
from one_arm import run_arm

from idp.errors import SelectorError, TaskError
from idp.evaluate import IdpLM, arms
from idp.evaluate.arms import ABOUT, ARMS, SELECTOR_OF, check_arms
from idp.evaluate.evaluation import BOUND, DEFAULT_ARMS, REFERENCES
from idp.select.registry import get_selector
from idp.tune.fitting import FITTED


def test_arms_are_ordered_as_in_the_table_and_named_once():
    assert check_arms(["oracle", "router", "dense", "router"]) == ["dense", "router", "oracle"]
    assert check_arms(["attention:score=joint_mass", "static", "attention:calibrate=zscore"]) == [
        "static",
        "attention:score=joint_mass",
        "attention:calibrate=zscore",
    ]


@pytest.mark.parametrize("name, meant", [("ruoter", "router"), ("oracl", "oracle"), ("compresed", "compressed")])
def test_an_unknown_arm_is_refused_and_its_near_misses_are_named(name, meant):
    with pytest.raises(TaskError, match=rf"unknown arm '{name}'.*Did you mean .*'{meant}'"):
        check_arms(["dense", name])


def test_an_unknown_option_of_a_selector_is_refused_before_anything_is_computed():
    with pytest.raises(SelectorError, match="calibrat"):
        check_arms(["attention:calibrat=center"])
    with pytest.raises(SelectorError):
        check_arms(["attention:calibrate=bogus"])


def test_no_arm_at_all_is_an_error():
    with pytest.raises(TaskError, match="no arm"):
        check_arms([])


def test_every_arm_is_described_and_every_selector_exists():
    assert set(ABOUT) == set(ARMS)
    assert {*REFERENCES, *DEFAULT_ARMS, BOUND} <= set(ARMS)
    for spec in SELECTOR_OF.values():
        get_selector(spec)


def test_a_tuned_bank_holds_a_state_for_every_arm_that_has_to_be_fitted():
    """Under the very name that the arm asks for: else the evaluation would measure and fit again."""
    needed = {spec for spec in SELECTOR_OF.values() if get_selector(spec).needs != "nothing"}
    assert needed <= set(FITTED)


def test_an_arm_has_lm_evals_results_its_items_and_what_was_chosen(lm, bank, tasks, spy):
    loaded = tasks("easy", "trivia", "text", "control")
    prompted = IdpLM(lm, bank, spy().fit(bank, lm))
    arm = run_arm("spy", prompted, loaded, 4)
    assert set(arm.items) == {"atlas_easy", "atlas_trivia"}
    assert set(arm.values) == set(arm.samples) == {f"atlas_{name}" for name in ("easy", "trivia", "text", "control")}
    assert (
        arm.values["atlas_easy"] == arm.items["atlas_easy"].mean() == arm.results["results"]["atlas_easy"]["acc,none"]
    )
    assert arm.mean == pytest.approx(np.mean([arm.values["atlas_easy"], arm.values["atlas_trivia"]]))
    lengths = {"text": len(lm.embed_prompt(bank[0])), "soft-2": 2, "soft-6": 6, None: 0}
    rows = [row for own in arm.samples.values() for row in own]
    assert arm.prompt_tokens == pytest.approx(np.mean([lengths[row["idp_prompt"]] for row in rows]))
    for row in rows:
        context = row["arguments"][0][0]
        selection = prompted.selection_of(context)
        assert row["idp_prompt"] == (None if selection.index == -1 else bank[selection.index].name)
        assert row["idp_scores"] == list(selection.scores)
    assert arm.seconds == prompted.seconds > 0


def test_scores_that_json_cannot_express_are_null(lm, bank, tasks):
    attention = get_selector("attention").fit(bank, lm)
    arm = run_arm("attention", IdpLM(lm, bank, attention), tasks("easy"), 2)
    for row in arm.samples["atlas_easy"]:
        assert row["idp_scores"][-1] is None  # "no prompt" has the score -inf
        assert len(row["idp_scores"]) == len(bank) + 1
        json.loads(json.dumps(row["idp_scores"], allow_nan=False))


def test_the_scores_of_very_many_arms_are_left_out(lm, bank, tasks, monkeypatch):
    monkeypatch.setattr(arms, "MOST_SCORES", len(bank))
    arm = run_arm("random", IdpLM(lm, bank, get_selector("random").fit(bank, lm)), tasks("easy"), 2)
    assert all(row["idp_scores"] is None for row in arm.samples["atlas_easy"])


def test_without_a_bank_nothing_is_chosen(lm, tasks):
    arm = run_arm("dense", IdpLM(lm, selector="none"), tasks("easy"), 2)
    assert arm.prompt_tokens == 0
    assert all(row["idp_prompt"] is None for row in arm.samples["atlas_easy"])


def test_without_a_task_of_accuracy_there_is_no_mean(lm, tasks):
    assert run_arm("dense", IdpLM(lm, selector="none"), tasks("text"), 2).mean is None
