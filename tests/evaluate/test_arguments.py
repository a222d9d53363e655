"""Arguments of lm-eval's `hf` model: each means here what it means there, or is refused."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import IdpError, PromptTooLongError
from idp.evaluate import IdpLM
from idp.evaluate.arguments import INSTEAD, TAKEN
from idp.evaluate.oracle import FixedSelector
from idp.model.loaded import LanguageModel

REFUSED = {
    "autogptq": True,
    "backend": "seq2seq",
    "delta": "some/delta",
    "gguf_file": "model.gguf",
    "gptqmodel": True,
    "logits_cache": False,
    "max_cpu_memory": "8GiB",
    "max_memory_per_gpu": "8GiB",
    "mixed_precision_dtype": "bfloat16",
    "offload_folder": "elsewhere",
    "parallelize": True,
    "peft": "some/adapter",
    "revision": "v1",
    "softmax_dtype": "float64",
    "subfolder": "model",
    "tokenizer": "some/tokenizer",
    "tp_plan": "auto",
    "truncation": True,
    "trust_remote_code": True,
    "use_fast_tokenizer": False,
}


QUESTION = "Who wrote the letter?"


def inner_token(lm):
    """A token that can be written, from the middle of the model's answer to the question."""
    ids = torch.tensor([lm.tokenizer(QUESTION)["input_ids"]])
    new = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    answer = new[0, ids.shape[1] :].tolist()
    return next(token for token in answer[2:] if token > 2 and lm.tokenizer.decode([token]).isalnum())


def instances(kind, *arguments):
    return [Instance(kind, {}, args, place) for place, args in enumerate(arguments)]


@pytest.fixture
def pair(lm):
    """The same bare model twice: ours, and lm-eval's own."""

    def make(**arguments):
        ours = IdpLM(lm, selector="none", batch_size=4, **arguments)
        return ours, HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=4, **arguments)

    return make


def test_every_argument_of_hf_is_decided_about():
    own = set(inspect.signature(IdpLM).parameters)
    theirs = set(inspect.signature(HFLM).parameters)
    assert not set(TAKEN) & set(INSTEAD)
    assert theirs - own == set(TAKEN) | set(INSTEAD)
    assert REFUSED.keys() == INSTEAD.keys()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_does_not_work_is_refused_and_its_default_is_not(lm, name):
    with pytest.raises(IdpError, match=f"{name}=.*does not work with prompts: .+") as caught:
        IdpLM(lm, selector="none", **{name: REFUSED[name]})
    assert "\n" not in str(caught.value)
    default = inspect.signature(HFLM).parameters[name].default
    assert IdpLM(lm, selector="none", **{name: default}).max_length == lm.max_length


@pytest.mark.parametrize("harmless", [{"backend": "causal"}, {"softmax_dtype": "float32"}, {"max_batch_size": 7}])
def test_what_asks_for_what_is_done_anyway_is_taken(lm, harmless):
    assert IdpLM(lm, selector="none", **harmless).max_length == lm.max_length


def test_a_smaller_context_holds_the_prompt_too(lm, bank):
    longest = max(len(lm.embed_prompt(prompt)) for prompt in bank)
    assert IdpLM(lm, selector="none", max_length=100).max_length == 100
    assert IdpLM(lm, bank, "random", max_length=100).max_length == 100 - longest
    with pytest.raises(IdpError, match="max_length=1000000 is more than the 1024 tokens that tiny-llama reads"):
        IdpLM(lm, bank, "random", max_length=10**6)


def test_in_a_smaller_context_contexts_are_cut_texts_windowed_and_generation_begins_later(lm, bank, pair):
    """A context of 64 tokens that is asked for is like one of 64 tokens that the model has."""
    bare, theirs = pair(max_length=64)
    text = "Where does the owl live? " * 20
    scored = instances("loglikelihood", (text.rstrip(), " in a tree"), (text + "So:", " here"))
    for (value, greedy), (expected, expected_greedy) in zip(
        bare.loglikelihood(scored), theirs.loglikelihood(scored), strict=True
    ):
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy
    rolling = instances("loglikelihood_rolling", (text,))
    assert len(bare._windows(text)) > 2
    assert bare.loglikelihood_rolling(rolling) == pytest.approx(theirs.loglikelihood_rolling(rolling), abs=1e-3)
    asked = instances("generate_until", (text, {"until": ["#"], "max_gen_toks": 8}))
    assert bare.generate_until(asked) == theirs.generate_until(asked)
    prompted = IdpLM(lm, bank, FixedSelector(2).fit(bank, lm), max_length=64)
    assert prompted.loglikelihood_rolling(rolling) != pytest.approx(bare.loglikelihood_rolling(rolling), abs=1e-2)


@pytest.mark.parametrize("given", [0, -1, 1.5, "many"])
def test_a_context_that_is_no_number_of_tokens_is_refused(lm, given):
    with pytest.raises(IdpError, match=f"max_length must be a positive number of tokens, not {given!r}"):
        IdpLM(lm, selector="none", max_length=given)


def test_a_context_that_the_longest_prompt_fills_is_refused(lm, bank, tiny_lm):
    longest = max(len(lm.embed_prompt(prompt)) for prompt in bank)
    with pytest.raises(PromptTooLongError, match=f"{longest} tokens, which leaves nothing of a context of {longest}"):
        IdpLM(lm, bank, "random", max_length=longest)
    assert IdpLM(lm, bank, "random", max_length=longest + 1).max_length == 1
    small = tiny_lm(max_position_embeddings=16)
    with pytest.raises(PromptTooLongError, match="choose shorter prompts"):
        IdpLM(small, PromptBank([Prompt("long", text="The river runs past the old mill. " * 4)]), "random")


def test_the_begin_token_is_left_out_as_hf_leaves_it_out(pair):
    ours, theirs = pair(add_bos_token=False)
    requests = instances("loglikelihood", ("Who wrote the letter?", " Anna"), ("Is a whale a fish?", " No"))
    usual = pair()[0].loglikelihood(requests)
    for (value, _), (expected, _), (other, _) in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests), usual, strict=True
    ):
        assert value == pytest.approx(expected, abs=1e-4)
        assert value != pytest.approx(other, abs=1e-2)
    asked = instances("generate_until", ("Who wrote it?", {"until": ["\n"]}), ("A longer question", {"until": ["\n"]}))
    assert ours.generate_until(asked) == theirs.generate_until(asked) != pair()[0].generate_until(asked)


def test_a_begin_token_that_the_tokenizer_does_not_set_is_refused(lm):
    assert IdpLM(lm, selector="none", add_bos_token=True).tok_encode("a")[0] == lm.bos_token_id
    bare = copy.deepcopy(lm.tokenizer)
    bare.backend_tokenizer.post_processor = None
    with pytest.raises(IdpError, match="add_bos_token: the tokenizer of bare puts no begin token"):
        IdpLM(LanguageModel(lm.model, bare, "bare"), selector="none", add_bos_token=True)


def test_another_token_may_stand_for_an_empty_context(pair, lm):
    ours, theirs = pair(prefix_token_id=9)
    empty = instances("loglikelihood", ("", "The river"), ("", "No"))
    usual = pair()[0].loglikelihood(empty)
    for got, expected, other in zip(ours.loglikelihood(empty), theirs.loglikelihood(empty), usual, strict=True):
        assert got[0] == pytest.approx(expected[0], abs=1e-4)
        assert got[0] != pytest.approx(other[0], abs=1e-2)
    text = instances("loglikelihood_rolling", ("The river runs past the old mill.",))
    assert ours.loglikelihood_rolling(text) == pytest.approx(theirs.loglikelihood_rolling(text), abs=1e-4)
    assert ours.context_ids(text[0]) == (9,)
    for wrong in (-1, lm.vocab_size, "nine"):
        with pytest.raises(IdpError, match="prefix_token_id must be a token id from 0"):
            IdpLM(lm, selector="none", prefix_token_id=wrong)


def test_what_stands_before_the_end_of_thinking_is_dropped_as_hf_drops_it(pair, lm):
    asked = instances("generate_until", (QUESTION, {"until": ["#"], "max_gen_toks": 24}))
    whole = pair()[0].generate_until(asked)[0]
    inner = inner_token(lm)
    for end in (inner, lm.tokenizer.decode([inner])):
        ours, theirs = pair(think_end_token=end)
        assert ours.generate_until(asked) == theirs.generate_until(asked) != [whole]


def test_answers_without_the_thinking_are_not_taken_for_whole_ones(lm):
    asked = instances("generate_until", (QUESTION, {"until": ["#"], "max_gen_toks": 24}))
    first = IdpLM(lm, selector="none")
    whole = first.generate_until(asked)[0]
    inner = inner_token(lm)
    assert IdpLM(lm, selector="none", memo=first.memo, think_end_token=inner).generate_until(asked) != [whole]
    assert IdpLM(lm, selector="none", memo=first.memo, add_bos_token=False).generate_until(asked) != [whole]


def test_thinking_and_arguments_reach_the_chat_template(lm):
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = "{{ tone }}{{ enable_thinking }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    chatty = LanguageModel(lm.model, tokenizer, "chatty")
    arguments = {"enable_thinking": True, "think_end_token": "</think>", "chat_template_args": {"tone": "kind "}}
    ours = IdpLM(chatty, selector="none", **arguments)
    assert ours.apply_chat_template([{"role": "user", "content": "Hello"}]) == "kind True[Hello]"
    with pytest.raises(ValueError, match="enable_thinking=True is not compatible"):
        ours.loglikelihood(instances("loglikelihood", ("a", " b")))
    with pytest.raises(ValueError, match="think_end_token"):
        IdpLM(chatty, selector="none", enable_thinking=True)


def test_texts_of_one_batch_are_tokenised_each_for_itself(lm):
    """A begin token that one text brings along says nothing about the others."""
    ours = IdpLM(lm, selector="none", batch_size=4)
    texts = ["<s>Who wrote the letter?", "Who wrote it?", ""]
    ids, mask = ours.tok_batch_encode(texts)
    rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
    assert rows == [ours.tok_encode(texts[0]), ours.tok_encode(texts[1]), [ours.prefix_token_id]]
    assert [row.count(lm.bos_token_id) for row in rows] == [1, 1, 1]
    assert torch.equal(mask[:, -1], torch.ones(3, dtype=torch.long))


def test_of_contexts_cut_to_the_same_end_each_keeps_its_own_prompt(lm, bank, spy):
    """What the selector chose for the whole context counts, even where two contexts are one and the same when cut."""
    end = "Where does the owl live? " * 12
    asked = instances(
        "generate_until", *((start + end, {"until": ["#"], "max_gen_toks": 8}) for start in ("A", "An old "))
    )
    mixed = IdpLM(lm, bank, spy().fit(bank, lm), batch_size=2, max_length=64)
    texts = mixed.generate_until(asked)
    chosen = [mixed.selection_of(request.args[0]).index for request in asked]
    assert len(set(chosen)) == 2
    for request, text, index in zip(asked, texts, chosen, strict=True):
        fixed = IdpLM(lm, bank, FixedSelector(index).fit(bank, lm), max_length=64)
        assert fixed.generate_until([request]) == [text]
