from __future__ import annotations

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.dynamic.made import MadeStore, Part, Recipe, summed
from idp.errors import SelectorError
from idp.run.packing import Request
from idp.run.score import score
from idp.run.store import PrefixStore

REQUESTS = [Request((5, 6, 7), ((8, 9), (10,))), Request((11, 12), ((13,), (14, 15, 16)))]


@pytest.fixture
def bank(equal_bank):
    return equal_bank


@pytest.fixture
def store(lm, bank):
    return MadeStore(lm, bank)


def _concat(*prompts):
    return Recipe("concat", tuple(Part(prompt, 1.0) for prompt in prompts))


def _logs(store, choice):
    return torch.tensor([s.loglikelihood for each in score(store, REQUESTS, [choice] * 2) for s in each.scores])


def test_sums_worked_out_by_hand():
    embeddings = torch.tensor([[[1.0, 2.0]], [[3.0, 6.0]]])
    found = summed(torch.tensor([[0.25, 0.75], [1.0, 0.0]]), embeddings)
    torch.testing.assert_close(found, torch.tensor([[[2.5, 5.0]], [[1.0, 2.0]]]))


def test_a_sum_is_the_prompt_of_the_sum(lm, bank, store):
    place = store.place(Recipe("sum", (Part(0, 0.25), Part(2, 0.75))))
    made = 0.25 * bank[0].embedding + 0.75 * bank[2].embedding
    torch.testing.assert_close(store.embedding(place), made)
    plain = PrefixStore(lm, PromptBank([Prompt("made", embedding=made)]))
    torch.testing.assert_close(_logs(store, place), _logs(plain, 0), rtol=1e-5, atol=1e-5)


def test_one_behind_the_other_is_the_soft_prompt_of_both(lm, bank, store):
    """The last stands next to the input; words may be among them."""
    words = Prompt("words", text="Answer: ")
    mixed = PromptBank([*bank, words])
    store, place = MadeStore(lm, mixed), None
    place = store.place(_concat(3, 0))
    both = torch.cat([lm.embed_prompt(words), bank[0].embedding])
    plain = PrefixStore(lm, PromptBank([Prompt("both", embedding=both)]))
    torch.testing.assert_close(_logs(store, place), _logs(plain, 0), rtol=0, atol=0)
    assert store.length(place) == len(both) and store.label(place) == "words + a"
    turned = store.place(_concat(0, 3))
    assert turned != place and not torch.equal(_logs(store, turned), _logs(store, place))


def test_a_prompt_that_is_made_of_one_alone_is_that_very_prompt(store):
    assert store.place(Recipe("sum", (Part(1, 1.0),))) == store.place(_concat(1)) == 1
    assert len(store) == 3
    half = store.place(Recipe("sum", (Part(1, 0.5),)))  # half of it is another
    torch.testing.assert_close(store.embedding(half), 0.5 * store.embedding(1))


def test_what_inputs_share_is_made_and_compiled_once(store, monkeypatch):
    first, again = store.place(_concat(2, 1)), store.place(_concat(2, 1))
    assert first == again == 3 and len(store) == 4
    compiled = []
    monkeypatch.setattr("idp.run.store.compile_prefix", lambda lm, prompt: compiled.append(prompt) or _Sized())
    store.prefixes([first, again, 1, first])
    assert [prompt.name for prompt in compiled] == ["b", "c + b"]


class _Sized:
    nbytes = 1


def test_rows_of_made_and_other_prompts_are_those_that_they_are_alone(store):
    choices = [store.place(_concat(0, 1)), store.place(Recipe("sum", (Part(0, 0.5), Part(1, 0.5)))), 2, -1]
    requests = [REQUESTS[0]] * 4
    together = score(store, requests, choices, batch_size=4)
    for row, choice in zip(together, choices, strict=True):
        [alone] = score(store, [REQUESTS[0]], [choice])
        for found, expected in zip(row.scores, alone.scores, strict=True):
            assert found.loglikelihood == pytest.approx(expected.loglikelihood, abs=1e-5)


def test_digests_tell_what_prompts_do_and_not_where_they_stand(lm, bank, store):
    other = MadeStore(lm, bank)
    other.place(_concat(1, 2))
    recipe = Recipe("sum", (Part(0, 1 / 3), Part(1, 2 / 3)))
    nearly = Recipe("sum", (Part(0, 1 / 3 + 1e-14), Part(1, 2 / 3)))
    assert store.digest(store.place(recipe)) == other.digest(other.place(nearly))
    found = {store.digest(store.place(each)) for each in (recipe, _concat(0, 1), _concat(1, 0))}
    assert len(found) == 3
    assert store.digest(-1) == "none" and store.digest(0) == bank[0].digest


def test_no_prompt_has_no_tokens_and_no_name(store):
    assert (store.length(-1), store.label(-1), store.embedding(-1)) == (0, None, None)


def test_bad_input(store):
    with pytest.raises(SelectorError, match="made of no prompts"):
        store.place(Recipe("sum", ()))
    for ask in (store.length, store.label, store.embedding, store.digest):
        with pytest.raises(SelectorError, match="no prompt 3"):
            ask(3)
