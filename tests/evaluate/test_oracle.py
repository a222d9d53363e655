from __future__ import annotations

import pytest
from one_arm import run_arm

from idp.bank.bank import PromptBank
from idp.evaluate import IdpLM
from idp.evaluate.calibration import example_of
from idp.evaluate.oracle import FixedSelector, item_losses, item_scores, item_value, outcomes
from idp.evaluate.tasks import EvalTask
from idp.run.store import PrefixStore
from idp.select.oracle import OracleSelector
from idp.tune.losses import example_losses

LIMIT = 8
ARMS = (0, 1, 2, -1)


@pytest.fixture
def fixed(lm, bank):
    return [IdpLM(lm, bank, FixedSelector(index).fit(bank, lm)) for index in ARMS]


@pytest.mark.parametrize("index", ARMS)
def test_a_fixed_choice_is_made_for_every_input(lm, bank, index):
    for choice in FixedSelector(index).fit(bank, lm).select_batch([[1], [2, 3], []]):
        assert choice.index == index
        assert choice.scores[index] == choice.score == 1.0 and sum(choice.scores) == 1.0


def test_item_scores_are_lm_evals_own_metrics_item_by_item(lm, bank, built, fixed):
    loaded = built(limit=LIMIT)
    scores = {entry.name: item_scores(fixed[1], entry, LIMIT) for entry in loaded}
    arm = run_arm("fixed", IdpLM(lm, bank, FixedSelector(1).fit(bank, lm)), loaded, LIMIT)
    for entry in loaded:
        rows = {row["doc_id"]: item_value(entry, row) for row in arm.samples[entry.name]}
        assert scores[entry.name] == pytest.approx(rows, rel=1e-6)


def test_item_losses_are_those_that_selectors_are_fitted_on(lm, bank, built, fixed):
    for entry in built("easy", "short", "last_word", "text", limit=LIMIT):
        examples = [example_of(lm, entry, doc) for _, doc in entry.task.doc_iterator(rank=0, limit=3, world_size=1)]
        expected = example_losses(PrefixStore(lm, bank), examples)  # (3, m + 1)
        for column, each in enumerate(fixed):
            assert item_losses(each, examples) == pytest.approx(expected[:, column].numpy(), abs=1e-6)


def test_likelihoods_that_losses_took_are_not_asked_for_again(lm, bank, built, monkeypatch):
    [entry] = built("easy", limit=LIMIT)
    prompted = IdpLM(lm, bank, FixedSelector(0).fit(bank, lm))
    docs = entry.task.doc_iterator(rank=0, limit=LIMIT, world_size=1)
    item_losses(prompted, [example_of(lm, entry, doc) for _, doc in docs])
    asked = []
    monkeypatch.setattr("idp.evaluate.lm.score", lambda store, requests, *rest, **kwargs: asked.extend(requests) or [])
    assert len(item_scores(prompted, entry, LIMIT)) == LIMIT and asked == []


def test_the_oracle_is_at_least_as_good_as_every_prompt_on_every_item(lm, bank, built, fixed):
    loaded = built("easy", "hard", "support", "short", "trivia", "pair", "endings", "last_word", limit=LIMIT)
    oracle = IdpLM(lm, bank, OracleSelector().fit(bank, lm, outcomes(fixed, loaded, lambda entry: LIMIT)))
    best = run_arm("oracle", oracle, loaded, LIMIT)
    others = [run_arm("fixed", each, loaded, LIMIT) for each in fixed]
    gained = 0
    for entry in loaded:
        for arm in others:
            assert (best.items[entry.name] >= arm.items[entry.name]).all()
            gained += int((best.items[entry.name] > arm.items[entry.name]).sum())
    assert gained > 0
    assert best.mean == pytest.approx(
        sum(max(values) for values in zip(*[_flat(arm) for arm in others], strict=True)) / len(_flat(best))
    )


def _flat(arm):
    return [value for values in arm.items.values() for value in values]


def test_of_running_text_the_oracle_takes_the_one_best_prompt(lm, bank, built, fixed):
    loaded = built("text")
    oracle = IdpLM(lm, bank, OracleSelector().fit(bank, lm, outcomes(fixed, loaded, lambda entry: 3)))
    best = run_arm("oracle", oracle, loaded, 3)
    rows = best.samples["atlas_text"]
    assert len({row["idp_prompt"] for row in rows}) == 1
    found = outcomes(fixed, loaded, lambda entry: 3)
    assert set(found.inputs) == {(oracle.prefix_token_id,)} and found.groups == ["atlas_text"] * 3
    assert found.losses.mean(dim=0).min().item() == pytest.approx(
        -sum(item_value(loaded[0], row) for row in rows) / len(rows)
    )


def test_the_oracle_handles_running_text_of_several_windows(tiny_lm, bank, built):
    small = tiny_lm(max_position_embeddings=160)
    one = PromptBank([bank[0]])
    models = [IdpLM(small, one, FixedSelector(index).fit(one, small)) for index in (0, -1)]
    loaded = built("text", limit=2)
    oracle = IdpLM(small, one, OracleSelector().fit(one, small, outcomes(models, loaded, lambda entry: 2)))
    assert len(run_arm("oracle", oracle, loaded, 2).samples["atlas_text"]) == 2


def test_perplexities_are_judged_by_their_loglikelihood_and_turned_so_that_larger_is_better():
    text = EvalTask("text", None, "word_perplexity", False, False)
    assert item_value(text, {"word_perplexity": (-12.5, 7)}) == -12.5
    loss = EvalTask("other", None, "brier", False, False)
    assert item_value(loss, {"brier": 0.25}) == -0.25
    assert item_value(EvalTask("easy", None, "acc", True, False), {"acc": True}) == 1.0
