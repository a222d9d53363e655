from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM

from idp.errors import ModelError, TaskError
from idp.model.loaded import LanguageModel
from idp.run.texts import encode_chat, encode_question

_TEXTS = st.text(alphabet="Thervnswia .?é", max_size=12)


@settings(deadline=None)
@given(context=_TEXTS, options=st.lists(_TEXTS, max_size=3))
def test_context_and_option_are_the_tokens_of_the_whole(tiny_lm, context, options):
    lm = tiny_lm()
    request = encode_question(lm, context, options)
    for text, option in zip(options, request.continuations, strict=True):
        whole = lm.tokenizer(context + text)["input_ids"]
        assert [*request.context, *option] == whole
    read = lm.tokenizer(context)["input_ids"]
    assert list(request.context) == read[: len(request.context)]


def test_a_merge_across_the_border_is_scored_and_not_read(tiny_lm):
    lm = tiny_lm()
    context, options = "The ri", ["ver", "ce"]
    assert (
        lm.tokenizer("The river")["input_ids"][: len(lm.tokenizer(context)["input_ids"])]
        != (lm.tokenizer(context)["input_ids"])
    )
    request = encode_question(lm, context, options)
    assert len(request.context) < len(lm.tokenizer(context)["input_ids"])
    assert lm.tokenizer.decode(request.continuations[0]).endswith("river")
    assert lm.tokenizer.decode(request.continuations[1]).endswith("rice")  # both are scored from the same place


def test_where_nothing_merges_it_is_what_lm_eval_does(tiny_lm):
    lm = tiny_lm()
    hf = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer)
    for context, option in [("Who wrote it? Answer:", " Anna"), ("Yes,", " two")]:
        expected = hf._encode_pair(context, option)
        request = encode_question(lm, context, [option])
        assert (list(request.context), list(request.continuations[0])) == expected


def test_an_empty_context_is_the_prefix_token(tiny_lm):
    lm = tiny_lm()
    request = encode_question(lm, "", ["Once upon", ""])
    assert request.context == (lm.prefix_token_id,)
    assert request.continuations[0] == tuple(lm.tokenizer("Once upon", add_special_tokens=False)["input_ids"])
    assert request.continuations[1] == ()
    assert encode_question(lm, (), [(5, 6)]).context == (lm.prefix_token_id,)


def test_token_ids_are_taken_as_they_are(tiny_lm):
    request = encode_question(tiny_lm(), [5, 6], [[7], (8, 9)])
    assert (request.context, request.continuations) == ((5, 6), ((7,), (8, 9)))
    with pytest.raises(TaskError, match="either all texts or all token ids"):
        encode_question(tiny_lm(), [5, 6], ["a"])


def _without(lm, **changed):
    tokenizer = copy.deepcopy(lm.tokenizer)
    for name, value in changed.items():
        setattr(tokenizer, name, value)
    return LanguageModel(lm.model, tokenizer, "changed")


def test_a_tokenizer_without_bos_begins_with_eos_and_one_without_both_says_so(tiny_lm):
    assert encode_question(_without(tiny_lm(), bos_token=None), "", [(5,)][:0]).context == (2,)
    with pytest.raises(ModelError, match="neither a bos nor an eos token"):
        encode_question(_without(tiny_lm(), bos_token=None, eos_token=None), (), [(5,)])


TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + m.role) }}"
    "{% endif %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def test_a_conversation_is_written_as_the_template_says(tiny_lm):
    lm = _without(tiny_lm(), chat_template=TEMPLATE)
    ids = encode_chat(lm, [{"role": "user", "content": "Is a whale a fish?"}])
    assert lm.tokenizer.decode(ids) == "<s>user: Is a whale a fish?\nassistant:"
    assert ids.count(lm.bos_token_id) == 1  # the template's, and no second one


def test_a_missing_template_and_one_that_refuses_are_named(tiny_lm):
    with pytest.raises(ModelError, match="has no chat template"):
        encode_chat(tiny_lm(), [{"role": "user", "content": "a"}])
    with pytest.raises(ModelError, match="does not take these messages: no system"):
        encode_chat(_without(tiny_lm(), chat_template=TEMPLATE), [{"role": "system", "content": "a"}])
