from __future__ import annotations

import math

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import PromptTooLongError, TaskError
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore
from idp.tune.examples import Example
from idp.tune.objective import TEXT_TOKENS, TEXT_WEIGHT, Objective

TERMS = ["error", "answer", "choice", "answer+choice", "0.5*answer+choice", "next-token"]


def prompts_of(lm, count, length=3, seed=0):
    return 0.3 * torch.randn(count, length, lm.hidden_size, generator=torch.Generator().manual_seed(seed))


def objective_of(lm, plain):
    objective = Objective(lm)
    if plain:
        objective.reach = 0
    return objective


def losses_of(objective, prompts, examples):
    return objective.behind(list(prompts)).losses(objective.views(examples), range(len(examples))).detach()


def expected(lm, prompt, example, terms):
    """The definition, from the scoring path."""
    store = PrefixStore(lm, PromptBank([Prompt("p", embedding=prompt)]))
    if example.is_text or terms == "next-token":
        ids = example.right[1:][:TEXT_TOKENS] if example.is_text else (*example.context[1:], *example.right)
        [scored] = score(store, [Request(example.context[:1], (ids,))], [0], batch_size=1)
        nats = -scored.scores[0].loglikelihood
        texts = {"error": 1 - math.exp(-nats / len(ids)), "next-token": nats, "0.5*answer+choice": 2 * nats / len(ids)}
        return texts.get(terms, nats / len(ids) * TEXT_WEIGHT)
    [scored] = score(store, [example.request], [0], batch_size=1)
    likelihoods = torch.tensor([option.loglikelihood for option in scored.scores])
    answer = -likelihoods[example.answer]
    if len(likelihoods) == 1:
        return float({"error": 1 - (-answer).exp(), "0.5*answer+choice": answer / 2}.get(terms, answer))
    choice = -likelihoods.log_softmax(0)[example.answer]
    error = 1 - (-choice).exp()
    sums = {"answer+choice": answer + choice, "0.5*answer+choice": answer / 2 + choice}
    return float({"error": error, "answer": answer, "choice": choice, **sums}[terms])


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2", "bloom"])
@pytest.mark.parametrize("terms", TERMS)
def test_equals_its_definition(tiny_lm, some_examples, architecture, terms):
    lm, examples = tiny_lm(architecture), some_examples(7)
    prompts = prompts_of(lm, 7)
    losses = losses_of(Objective(lm, terms), prompts, examples)
    wanted = [expected(lm, *pair, terms) for pair in zip(prompts, examples, strict=True)]
    assert losses.shape == (7,)
    torch.testing.assert_close(losses, torch.tensor(wanted), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "opt", "qwen2"])
def test_packed_and_plain_agree_in_losses_and_gradients(tiny_lm, some_examples, architecture):
    lm, examples = tiny_lm(architecture), some_examples(6)
    gradients, losses = [], []
    for plain in (False, True):
        prompts = prompts_of(lm, 6).requires_grad_()
        objective = objective_of(lm, plain)
        step = objective.behind(list(prompts))
        value = step.losses(objective.views(examples), range(6))
        value.sum().backward()
        step.backward()
        assert set(step._live) == {"embedded" if plain else "cached"}
        losses.append(value.detach())
        gradients.append(prompts.grad)
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("plain", [False, True])
def test_one_shared_prompt_equals_the_same_prompt_in_every_row(tiny_lm, some_examples, plain):
    lm, examples = tiny_lm(), some_examples(5)
    objective = objective_of(lm, plain)
    gradients, losses = [], []
    for owners in ([0] * 5, range(5)):
        prompts = prompts_of(lm, 1).expand(len(set(owners)), -1, -1).clone().requires_grad_()
        step = objective.behind(list(prompts))
        losses.append(step.losses(objective.views(examples), owners))
        losses[-1].sum().backward()
        step.backward()
        gradients.append(prompts.grad.sum(0))
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("plain", [False, True])
def test_prompts_of_different_lengths_share_a_batch(tiny_lm, some_examples, plain):
    lm, examples = tiny_lm(), Objective(tiny_lm()).views(some_examples(6))
    prompts = [prompts_of(lm, 1, length)[0].requires_grad_() for length in (2, 7, 4)]
    owners = [0, 1, 2, 1, 0, 2]
    step = objective_of(lm, plain).behind(prompts)
    together = step.losses(examples, owners)
    together.sum().backward()
    step.backward()
    for number, prompt in enumerate(prompts):
        alone = prompt.detach().clone().requires_grad_()
        own = [row for row, owner in enumerate(owners) if owner == number]
        single = objective_of(lm, True).behind([alone])
        losses = single.losses([examples[row] for row in own])
        losses.sum().backward()
        single.backward()
        torch.testing.assert_close(together[own], losses, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(prompt.grad, alone.grad, atol=1e-3, rtol=1e-3)


def test_batches_of_a_step_add_their_gradients_up(tiny_lm, some_examples):
    lm, examples = tiny_lm(), Objective(tiny_lm()).views(some_examples(6))
    gradients = []
    for cuts in ([range(6)], [range(2), range(2, 6)]):
        prompt = prompts_of(lm, 1)[0].requires_grad_()
        step = Objective(lm).behind([prompt])
        for rows in cuts:
            step.losses([examples[row] for row in rows]).sum().backward()
        step.backward()
        gradients.append(prompt.grad)
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_gradient_is_the_slope_of_the_loss(tiny_lm, some_examples):
    lm, examples = tiny_lm(), Objective(tiny_lm()).views(some_examples(3))
    prompt = prompts_of(lm, 1)[0].requires_grad_()
    step = Objective(lm).behind([prompt])
    step.losses(examples).sum().backward()
    step.backward()
    direction = prompt.grad / prompt.grad.norm()
    with torch.no_grad():
        up, down = (Objective(lm).behind([prompt + s * 1e-2 * direction]).losses(examples).sum() for s in (1, -1))
    assert float((up - down) / 2e-2) == pytest.approx(float(prompt.grad.norm()), rel=2e-2)


def test_the_model_gets_no_gradients(tiny_lm, some_examples):
    lm = tiny_lm()
    step = Objective(lm).behind([prompts_of(lm, 1)[0].requires_grad_()])
    step.losses(some_examples(2)).sum().backward()
    step.backward()
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_running_text_is_cut_and_its_doubled_bos_not_counted(tiny_lm):
    lm = tiny_lm()
    ids = tuple(3 + i % 300 for i in range(150))
    long, cut = Example((1,), ((1, *ids),), 0, "text"), Example((1,), (ids[:TEXT_TOKENS],), 0, "text")
    losses = [losses_of(Objective(lm), prompts_of(lm, 1), [example]) for example in (long, cut)]
    torch.testing.assert_close(*losses)
    assert float(losses_of(Objective(lm, text_tokens=20), prompts_of(lm, 1), [long])) != float(losses[0])


def test_next_token_reads_a_whole_question(tiny_lm):
    long = Example((1, *range(5, 200)), ((7, 8),), 0, "q")
    view = Objective(tiny_lm(), "next-token", text_tokens=20).view(long)
    assert (*view.context, *view.right) == (*long.context, 7, 8)


def test_unknown_terms_name_the_near_miss(tiny_lm):
    with pytest.raises(TaskError, match="Did you mean 'answer'"):
        Objective(tiny_lm(), "answr")


def test_distillation_without_a_teacher_is_refused(tiny_lm):
    with pytest.raises(TaskError, match="needs the dense model"):
        Objective(tiny_lm(), "distill")


def test_prompt_that_leaves_no_room_is_refused(tiny_lm, some_examples):
    lm = tiny_lm(max_position_embeddings=16)
    with pytest.raises(PromptTooLongError, match="holds 16"):
        losses_of(Objective(lm), prompts_of(lm, 1, length=14), some_examples(1))
