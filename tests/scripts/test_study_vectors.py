from __future__ import annotations

import pytest
import torch


def test_errors_are_those_of_the_prompts_and_of_none(script, tiny_lm):
    from idp.run.store import PrefixStore
    from idp.tune.examples import Example
    from idp.tune.losses import example_losses

    lm = tiny_lm()
    examples = [Example((1, 5, n), ((6,), (7, 8)), 1, "a") for n in range(10, 20)]
    prompts = {"one": 0.3 * torch.randn(3, 32), "two": 0.3 * torch.randn(3, 32)}
    found = script("study_vectors").errors(lm, prompts, examples)
    assert list(found) == ["one", "two", "no prompt"]
    alone = example_losses(PrefixStore(lm, None), examples)  # (N, 1)
    assert found["no prompt"] == pytest.approx(float(alone.mean()), abs=1e-5)
    assert found["one"] != found["two"]


@pytest.mark.slow
def test_four_prompts_are_compared(script, capsys):
    script("study_vectors").main("reference", "easy", "endings", steps=2, atlas=40, seed=0, debug=False)
    printed = capsys.readouterr().out
    assert "effect of compression on easy" in printed
    assert "no prompt" in printed
