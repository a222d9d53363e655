from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import PromptTooLongError, TaskError
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.tune.examples import Example
from idp.tune.objective import TEXT_TOKENS, TEXT_WEIGHT, Objective, length_groups


def prompts_of(lm, count, length=3, seed=0):
    return 0.3 * torch.randn(count, length, lm.hidden_size, generator=torch.Generator().manual_seed(seed))


def expected(lm, prompt, example, goal):
    """The definition, from the scoring path."""
    store = PrefixStore(lm, PromptBank([Prompt("p", embedding=prompt)]))
    if example.is_text:
        ids = example.right[1:][:TEXT_TOKENS]  # without the doubled bos
        [scored] = score(store, [Request(example.context, (ids,))], [0], batch_size=1)
        nats = -scored.scores[0].loglikelihood / len(ids)
        return 1 - math.exp(-nats) if goal == "error" else nats * TEXT_WEIGHT
    [scored] = score(store, [example.request], [0], batch_size=1)
    likelihoods = torch.tensor([option.loglikelihood for option in scored.scores])
    answer = -likelihoods[example.answer]
    if len(likelihoods) == 1:
        return float(1 - (-answer).exp() if goal == "error" else answer)
    choice = -likelihoods.log_softmax(0)[example.answer]
    error = 1 - (-choice).exp()
    return float({"error": error, "answer": answer, "choice": choice, "blend": answer + choice}[goal])


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "bloom"])
@pytest.mark.parametrize("goal", ["error", "blend", "answer", "choice"])
def test_equals_its_definition(tiny_lm, some_examples, architecture, goal):
    lm, examples = tiny_lm(architecture), some_examples(7)
    prompts = prompts_of(lm, 7)
    losses = Objective(lm, goal).losses(prompts, examples)
    wanted = [expected(lm, *pair, goal) for pair in zip(prompts, examples, strict=True)]
    assert losses.shape == (7,)
    torch.testing.assert_close(losses, torch.tensor(wanted), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "opt", "qwen2"])
def test_packed_and_plain_agree_in_losses_and_gradients(tiny_lm, some_examples, architecture):
    lm, examples = tiny_lm(architecture), some_examples(6)
    gradients, losses = [], []
    for plain in (False, True):
        objective = Objective(lm)
        if plain:
            objective._reach = 0
        prompts = prompts_of(lm, 6).requires_grad_()
        value = objective.losses(prompts, examples)
        value.sum().backward()
        losses.append(value.detach())
        gradients.append(prompts.grad)
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("plain", [False, True])
def test_one_shared_prompt_equals_the_same_prompt_in_every_row(tiny_lm, some_examples, plain):
    lm, examples = tiny_lm(), some_examples(5)
    objective = Objective(lm)
    if plain:
        objective._reach = 0
    shared = prompts_of(lm, 1).requires_grad_()
    copies = prompts_of(lm, 1).expand(5, -1, -1).clone().requires_grad_()
    one, many = objective.losses(shared, examples), objective.losses(copies, examples)
    one.sum().backward()
    many.sum().backward()
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shared.grad, copies.grad.sum(0, keepdim=True), atol=1e-3, rtol=1e-3)


def test_gradient_is_the_slope_of_the_loss(tiny_lm, some_examples):
    lm, examples = tiny_lm(), some_examples(3)
    prompts = prompts_of(lm, 1).requires_grad_()
    Objective(lm).losses(prompts, examples).sum().backward()
    direction = prompts.grad / prompts.grad.norm()
    with torch.no_grad():
        up, down = (Objective(lm).losses(prompts + s * 1e-2 * direction, examples).sum() for s in (1, -1))
    assert float((up - down) / 2e-2) == pytest.approx(float(prompts.grad.norm()), rel=2e-2)


def test_the_model_gets_no_gradients(tiny_lm, some_examples):
    lm = tiny_lm()
    Objective(lm).losses(prompts_of(lm, 1).requires_grad_(), some_examples(2)).sum().backward()
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_running_text_is_cut_and_its_doubled_bos_not_counted(tiny_lm):
    lm = tiny_lm()
    ids = tuple(3 + i % 300 for i in range(150))
    long, cut = Example((1,), ((1, *ids),), 0, "text"), Example((1,), (ids[:TEXT_TOKENS],), 0, "text")
    prompts = prompts_of(lm, 1)
    torch.testing.assert_close(Objective(lm).losses(prompts, [long]), Objective(lm).losses(prompts, [cut]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 20))
def test_groups_hold_every_example_once_and_similar_lengths(some_examples, seed, count):
    examples = some_examples(count, seed)
    groups = length_groups(examples)
    assert sorted(i for group in groups for i in group) == list(range(count))
    for group in groups:
        assert len({examples[i].is_text for i in group}) == 1


def test_no_examples_make_no_groups():
    assert length_groups([]) == []


def test_unknown_goal_names_the_near_miss(tiny_lm):
    with pytest.raises(TaskError, match="Did you mean 'answer'"):
        Objective(tiny_lm(), "answr")


def test_prompt_that_leaves_no_room_is_refused(tiny_lm, some_examples):
    lm = tiny_lm(max_position_embeddings=16)
    with pytest.raises(PromptTooLongError, match="holds 16"):
        Objective(lm).losses(prompts_of(lm, 1, length=14), some_examples(1))
