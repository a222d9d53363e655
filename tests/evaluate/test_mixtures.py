from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from lm_eval.api.instance import Instance
from one_arm import run_arm

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.mixing import HOW, Mixture
from idp.errors import IdpError, SelectorError
from idp.evaluate import IdpLM
from idp.evaluate.arms import MIXTURES, about, check_arms
from idp.evaluate.memo import Memo
from idp.evaluate.mixtures import MixtureLM
from idp.evaluate.oracle import FixedSelector
from idp.run.packing import Request
from idp.select.base import Selection, Selector, pick

REQUESTS = [
    Request((5, 6, 7), ((8, 9), (10,))),
    Request((11, 12), ((13,), (14, 15, 16), (17,))),
    Request((9,), ((8, 7),)),
]


class ByTokens(Selector):
    """Scores that depend on the tokens of an input: different inputs get different mixtures."""

    name: ClassVar[str] = "by-tokens"

    def select_batch(self, inputs: Sequence[Sequence[int]]) -> list[Selection]:
        arms = len(self.bank) + 1
        return pick(torch.tensor([[math.sin(sum(ids) * (arm + 1)) for arm in range(arms)] for ids in inputs]).double())


@pytest.fixture(scope="module")
def equal(lm):
    """Three soft prompts of one length."""
    generator = torch.Generator().manual_seed(2)
    return PromptBank([Prompt(name, embedding=0.3 * torch.randn(4, 32, generator=generator)) for name in "abc"])


@pytest.fixture
def mixed(lm, equal):
    def make(how, bank=None, selector=None, memo=None, **options):
        chosen_by = (selector or ByTokens()).fit(bank or equal, lm)
        return MixtureLM(Mixture(how, **options), lm, bank or equal, chosen_by, batch_size=4, memo=memo)

    return make


def under(lm, bank, index):
    """Log-likelihoods of all continuations under one arm."""
    return _logs(IdpLM(lm, bank, FixedSelector(index).fit(bank, lm), batch_size=4), REQUESTS)


def _logs(prompted, requests):
    asked = [((str(r.context), ""), [*r.context], [*option]) for r in requests for option in r.continuations]
    return torch.tensor([value for value, _ in prompted._loglikelihood_tokens(asked)], dtype=torch.float64)


def generate(prompted, texts, **kwargs):
    kwargs = {"until": ["\n"], "max_gen_toks": 6, **kwargs}
    return prompted.generate_until([Instance("generate_until", {}, (text, kwargs), 0) for text in texts])


def test_an_ensemble_is_the_mean_of_the_likelihoods(lm, equal, mixed):
    found = _logs(mixed("ensemble", weights="uniform"), REQUESTS)
    arms = torch.stack([under(lm, equal, index) for index in (0, 1, 2, -1)])
    torch.testing.assert_close(found, arms.exp().mean(0).log(), rtol=0, atol=1e-5)
    assert (arms.std(0) > 0.01).all()


def test_an_ensemble_by_scores_and_an_ensemble_of_one(lm, equal, mixed):
    scores = torch.tensor(ByTokens().fit(equal, lm).select((5, 6, 7)).scores, dtype=torch.float64)
    best = scores.sort(descending=True).indices[:2]
    arms = torch.stack([under(lm, equal, int(arm) if arm < 3 else -1)[:2] for arm in best])
    expected = (scores[best].softmax(0)[:, None] * arms.exp()).sum(0).log()
    torch.testing.assert_close(_logs(mixed("ensemble", k=2), REQUESTS[:1]), expected, rtol=0, atol=1e-5)
    plain = IdpLM(lm, equal, ByTokens().fit(equal, lm), batch_size=4)
    alone = mixed("ensemble", k=1)
    assert torch.equal(_logs(alone, REQUESTS), _logs(plain, REQUESTS))
    texts = ["A town by the", "Once upon", "Question: Who?"]
    assert generate(alone, texts) == generate(plain, texts)


@pytest.mark.parametrize("how", [*HOW])
def test_what_is_mixed_of_equal_prompts(lm, how, mixed):
    """A sum and an ensemble of prompts that are all alike are that prompt; two behind each other are not."""
    same = 0.3 * torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
    bank = PromptBank([Prompt(name, embedding=same) for name in "abc"])
    found = _logs(mixed(how, bank, FixedSelector(1), **({"k": 2} if how == "ensemble" else {})), REQUESTS)
    if how == "concat":
        twice = PromptBank([Prompt("twice", embedding=torch.cat([same, same]))])
        expected = under(lm, twice, 0)
    else:
        expected = under(lm, bank, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", [*HOW])
def test_an_input_alone_is_answered_as_among_others(how, mixed):
    together = mixed(how)
    texts = ["A town by the", "Once upon a time there was a small", "Question: Who?", "x"]
    assert generate(together, texts) == [generate(mixed(how), [text])[0] for text in texts]
    alone = torch.cat([_logs(mixed(how), [request]) for request in REQUESTS])
    torch.testing.assert_close(_logs(together, REQUESTS), alone, rtol=0, atol=1e-5)


def test_an_ensemble_generates_what_its_mean_likelihood_prefers(lm, equal, mixed):
    """Greedily, by the very distribution that it scores with: token by token the likeliest continuation."""
    text = "Once upon a time"
    [said] = generate(mixed("ensemble", weights="uniform"), [text], until=["~"], max_gen_toks=3)
    ids, expected = tuple(lm.tokenizer(text)["input_ids"]), ()
    vocabulary = [token for token in range(lm.vocab_size)]
    for _ in range(3):
        arms = []
        for index in (0, 1, 2, -1):
            prompted = IdpLM(lm, equal, FixedSelector(index).fit(equal, lm), batch_size=4)
            arms.append(_logs(prompted, [Request(ids, tuple((*expected, token) for token in vocabulary))]))
        expected = (*expected, int(torch.stack(arms).exp().mean(0).argmax()))
    assert said == lm.tokenizer.decode(expected, skip_special_tokens=True)


def test_an_ensemble_does_not_sample(mixed):
    with pytest.raises(SelectorError, match="generates greedily"):
        generate(mixed("ensemble"), ["A town"], do_sample=True, temperature=0.7)


@pytest.mark.parametrize("how, room", [("sum", 4), ("concat", 8), ("ensemble", 4)])
def test_the_context_has_room_for_the_longest_prompt_that_can_be_made(lm, mixed, how, room):
    assert mixed(how).max_length == lm.max_length - room


def test_what_was_answered_is_kept_and_shared(mixed, tmp_path, monkeypatch):
    """Another run finds everything, an ensemble what was answered under its prompts; another mixture does not."""
    memo = Memo(tmp_path / "answers.sqlite", "model")
    first = {how: (_logs(mixed(how, memo=memo), REQUESTS), generate(mixed(how, memo=memo), ["A town"])) for how in HOW}
    monkeypatch.setattr("idp.evaluate.lm.score", lambda *_, **__: pytest.fail("scored again"))
    monkeypatch.setattr(MixtureLM, "_model_generate", lambda *_, **__: pytest.fail("generated again"))
    for how, (logs, texts) in first.items():
        assert torch.equal(_logs(mixed(how, memo=memo), REQUESTS), logs)
        assert generate(mixed(how, memo=memo), ["A town"]) == texts
    assert torch.isfinite(_logs(mixed("ensemble", memo=memo, weights="uniform"), REQUESTS)).all()
    with pytest.raises(pytest.fail.Exception, match="scored again"):
        _logs(mixed("sum", memo=memo, weights="uniform"), REQUESTS)
    with pytest.raises(pytest.fail.Exception, match="generated again"):
        generate(mixed("ensemble", memo=memo, weights="uniform"), ["A town"])


def test_an_arm_says_what_its_inputs_were_behind(mixed, tasks):
    loaded = tasks("easy", "trivia", "text")
    concat = run_arm("mix:how=concat", mixed("concat"), loaded, 4)
    rows = [row for own in concat.samples.values() for row in own]
    assert {row["idp_prompt"] for row in rows} <= {None, *(f"{x} + {y}" for x in "abc" for y in "abc" if x != y)}
    used = [row["idp_prompt"] is not None for row in rows]
    assert concat.prompt_tokens == 8 * sum(used) / len(used) > 0
    ensemble = run_arm("mix:how=ensemble", mixed("ensemble"), loaded, 4)
    assert ensemble.prompt_tokens == 12  # three prompts of four tokens, and none
    assert {row["idp_prompt"] for row in ensemble.samples["atlas_trivia"]} == {"ensemble"}


def test_a_mixture_does_not_take_over_the_answers_of_its_selector(lm, equal, mixed):
    from lm_eval.api.model import CacheHook

    hook, answers = CacheHook(None), {}
    hook.dbdict = answers
    IdpLM(lm, equal, FixedSelector(1).fit(equal, lm)).set_cache_hook(hook)
    with pytest.raises(IdpError, match="those of another"):
        mixed("concat", selector=FixedSelector(1)).set_cache_hook(hook)


def test_a_bank_that_cannot_be_mixed_is_refused(bank, mixed):
    with pytest.raises(SelectorError, match="how=sum cannot be used here: prompts of words"):
        mixed("sum", bank)
    with pytest.raises(SelectorError, match="takes 9 prompts, and the bank has 3"):
        mixed("concat", k=9)


def test_mixtures_are_arms_that_have_to_be_asked_for():
    names = ["mix:how=sum,k=2", "router", "mix:how=concat"]
    assert check_arms(names) == ["router", "mix:how=sum,k=2", "mix:how=concat"]
    assert len(MIXTURES) == len(HOW) and all(about(name) in HOW.values() for name in MIXTURES)
    with pytest.raises(SelectorError, match="no how 'product'"):
        check_arms(["mix:how=product"])
