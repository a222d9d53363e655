from __future__ import annotations

import math

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.tune import losses as module
from idp.tune.examples import Example
from idp.tune.losses import example_losses, kept_losses
from idp.tune.objective import Objective


@pytest.fixture
def bank(tiny_lm):
    generator = torch.Generator().manual_seed(0)
    soft = 0.3 * torch.randn(3, tiny_lm().hidden_size, generator=generator)
    return PromptBank([Prompt("soft", embedding=soft), Prompt("text", text="Answer the question. ")])


def test_columns_are_the_prompts_and_last_no_prompt(tiny_lm, some_examples, bank):
    lm, examples = tiny_lm(), some_examples(6)
    losses = example_losses(PrefixStore(lm, bank), examples)
    assert losses.shape == (6, 3)
    assert losses.dtype == torch.float64
    alone = example_losses(PrefixStore(lm, PromptBank([bank["text"]])), examples)
    torch.testing.assert_close(losses[:, 1:], alone, atol=1e-4, rtol=1e-4)


def test_agrees_with_the_differentiable_objective(tiny_lm, some_examples, bank):
    lm, soft = tiny_lm(), bank["soft"].embedding
    choices, answers = some_examples(4, kinds="c"), some_examples(4, kinds="a")
    store = PrefixStore(lm, bank)
    of_choices, of_answers = (
        Objective(lm, "choice").behind([soft]).losses(choices).detach(),
        Objective(lm).behind([soft]).losses(answers).detach(),
    )
    expected = {"choices": 1 - (-of_choices).exp(), "answers": 1 - (-of_answers).exp()}
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(example_losses(store, choices)[:, 0].float(), expected["choices"], **close)
    torch.testing.assert_close(example_losses(store, answers)[:, 0].float(), expected["answers"], **close)


def test_running_text_counts_by_the_token_and_every_loss_is_a_probability(tiny_lm, bank):
    lm = tiny_lm()
    text = Example((lm.prefix_token_id,), ((5, 6, 7, 8),), 0, "text")
    answer = Example((lm.prefix_token_id, 5), ((6, 7, 8),), 0, "short")
    [by_token, by_answer] = example_losses(PrefixStore(lm, bank), [text, answer])[:, -1].tolist()
    [scored] = score(PrefixStore(lm, None), [text.request], [-1], batch_size=1)
    assert by_token == pytest.approx(1 - math.exp(scored.scores[0].loglikelihood / 4), abs=1e-4)
    assert 0 <= by_token < by_answer <= 1


def test_batches_do_not_matter_and_progress_is_complete(tiny_lm, some_examples, bank):
    store, examples, steps = PrefixStore(tiny_lm(), bank), some_examples(7), []
    first = example_losses(store, examples, batch_size=2, advance=steps.append)
    torch.testing.assert_close(first, example_losses(store, examples, batch_size=7), atol=1e-4, rtol=1e-4)
    assert sum(steps) == 7 * 3


@pytest.fixture
def measured(monkeypatch):
    """How many examples were measured under how manieth prompt, call by call."""
    calls, column = [], module._column

    def counting(store, arm, examples, *rest, **named):
        calls.append((arm, len(examples)))
        return column(store, arm, examples, *rest, **named)

    monkeypatch.setattr(module, "_column", counting)
    return calls


def test_what_was_measured_is_read(tiny_lm, some_examples, bank, tmp_path, measured):
    lm, examples, steps = tiny_lm(), some_examples(9), []
    kept_losses(lm, list(bank)[:1], examples[:4], tmp_path)
    found = kept_losses(lm, list(bank), [*examples, examples[2]], tmp_path, steps.append)
    assert measured == [(0, 4), (-1, 4), (0, 5), (1, 9), (-1, 5)]
    assert sum(steps) == 10 * 3
    store = PrefixStore(lm, bank)
    torch.testing.assert_close(found, example_losses(store, [*examples, examples[2]]), atol=1e-4, rtol=1e-4)
    measured.clear()
    assert torch.equal(kept_losses(lm, list(bank), [*examples, examples[2]], tmp_path), found)
    assert measured == []


def test_an_interruption_costs_one_prompt(tiny_lm, some_examples, bank, tmp_path, measured, monkeypatch):
    lm, examples, column = tiny_lm(), some_examples(5), module._column

    def interrupted(store, arm, examples, **named):
        if arm == -1:
            raise KeyboardInterrupt
        return column(store, arm, examples, **named)

    monkeypatch.setattr(module, "_column", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept_losses(lm, list(bank), examples, tmp_path)
    monkeypatch.setattr(module, "_column", column)
    measured.clear()
    kept_losses(lm, list(bank), examples, tmp_path)
    assert measured == [(-1, 5)]


def test_losses_of_another_model_are_not_read(tiny_lm, some_examples, bank, tmp_path, measured):
    for lm in (tiny_lm(), tiny_lm(seed=1)):
        kept_losses(lm, [bank["text"]], some_examples(3), tmp_path)
    assert measured == [(0, 3), (-1, 3)] * 2


def test_no_examples_give_no_rows(tiny_lm, bank):
    assert example_losses(PrefixStore(tiny_lm(), bank), []).shape == (0, 3)
