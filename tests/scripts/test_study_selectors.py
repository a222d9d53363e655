from __future__ import annotations

import json

import pytest
import torch

from idp.run.store import PrefixStore
from idp.tune.examples import Example
from idp.tune.losses import example_losses


@pytest.fixture
def study(script):
    """Forty contexts, each asked in two forms; their first feature says which of two arms is right."""
    module = script("study_selectors")
    random = torch.Generator().manual_seed(0)
    side = torch.randint(2, (40,), generator=random)
    losses = torch.full((40, 3), 0.9, dtype=torch.float64)
    losses[torch.arange(40), side] = 0.1
    cheap = torch.randn(40, 4, generator=random, dtype=torch.float64)
    cheap[:, 0] = 6.0 * side - 3.0
    features = {"dear": cheap + 0.1, "cheap": cheap}
    contexts = [(n,) for n in range(40)] * 2
    twice = {name: torch.cat([values, values]) for name, values in features.items()}
    folds = module.Calibration(contexts).folds(module.FOLDS, 0)
    return module, module.Study(torch.cat([losses, losses]), twice, folds, {}), torch.cat([side, side])


@pytest.mark.parametrize("way", ["expected", "ridge", "trunk"])
def test_models_of_features_find_the_arm(study, way):
    module, made, side = study
    chosen = module.crossed(made, "cheap", getattr(module, way))
    assert (chosen == side).double().mean() > 0.9


def test_what_is_learned_may_be_told_without_answers(study):
    module, made, side = study
    chosen = module.crossed(made, "cheap", module.expected, 1 - made.losses)
    assert (chosen == side).double().mean() < 0.1


def test_own_answers_are_those_that_all_arms_together_hold_most_probable(script, tiny_lm, mixed_bank):
    module, lm = script("study_selectors"), tiny_lm("llama")
    bank = mixed_bank(lm)
    asked = [Example((1, 5, 6), ((7,), (8, 9), (10,)), 0, "a"), Example((1, 7), ((8,),), 0, "b")]
    found = module.own_answers(lm, bank, asked)
    by_answer = torch.stack(
        [example_losses(PrefixStore(lm, bank), [asked[0].with_options(asked[0].continuations, j)])[0] for j in range(3)]
    )
    torch.testing.assert_close(found[0], by_answer[by_answer.mean(dim=1).argmin()])
    assert not found[1].any()


def test_the_routers_own_training_finds_the_arm(study):
    module, made, side = study
    fit = module.trained(module.Training(hidden=4, objective="ranking", l2=1e-3))
    assert (module.crossed(made, "cheap", fit) == side).double().mean() > 0.9


def test_what_a_router_knows_can_be_taught(study):
    module, made, side = study
    assert (module.distilled(made, "dear", "cheap") == side).double().mean() > 0.9


def test_words_that_are_rare_are_left_out(script):
    seen = script("study_selectors").words([(1, 2, 2)] * 20 + [(3,)] * 19, 5)
    assert seen.shape == (39, 2)
    assert seen[0].tolist() == [1.0, 1.0] and not seen[-1].any()


@pytest.mark.slow
def test_ways_of_choosing_are_compared(script, capsys, tmp_path):
    script("study_selectors").main("reference", None, atlas=32, out=tmp_path)
    assert "way of choosing" in capsys.readouterr().out
    rows = json.loads((tmp_path / "study.json").read_text())
    assert rows[0]["selector"] == "static" and rows[0]["covered"]["value"] == 0.0
    assert rows[-1]["selector"] == "least entropy of the first token"
    assert all(row["covered"]["value"] <= 1 for row in rows)
