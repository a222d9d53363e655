from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from idp.reference.corpus import epoch_documents
from idp.reference.tokenizer import BOS, EOS, PAD, VOCAB_SIZE, train_tokenizer
from idp.reference.world import build_world

SPECIAL = (BOS, EOS, PAD)


@pytest.fixture(scope="module")
def documents():
    return epoch_documents(build_world(0, 0.2), 1000)


@pytest.fixture(scope="module")
def tokenizer(documents):
    return train_tokenizer(documents)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not any(s in text for s in SPECIAL)))
def test_any_text_comes_back(text):
    tokenizer = _small()
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


_made = []


def _small():
    if not _made:
        _made.append(train_tokenizer(["The miller keeps a goat.", "Question: Who?\nAnswer: the miller"], 300))
    return _made[0]


def test_the_worlds_text_comes_back_and_takes_few_tokens(tokenizer, documents):
    for text in documents[:200]:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    tokens = sum(map(len, tokenizer(documents).input_ids))
    assert sum(map(len, documents)) / tokens > 3  # characters a token


def test_has_at_most_2048_tokens_the_special_ones_first(tokenizer):
    assert len(tokenizer) <= VOCAB_SIZE == 2048
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == [BOS, EOS, PAD]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (BOS, EOS, PAD)


def test_puts_bos_in_front_and_nothing_behind(tokenizer):
    ids = tokenizer("a text").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert tokenizer("").input_ids == [tokenizer.bos_token_id]
    assert tokenizer("a text", add_special_tokens=False).input_ids == ids[1:]


def test_a_context_is_tokenized_as_the_beginning_of_the_whole(tokenizer):
    """What lm-eval takes for granted when it cuts a continuation off."""
    context = tokenizer("Question: Where does the owl live?\nAnswer:").input_ids
    whole = tokenizer("Question: Where does the owl live?\nAnswer: marsh").input_ids
    assert whole[: len(context)] == context and len(whole) > len(context)


def test_is_kept_in_the_standard_files(tokenizer, documents, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(documents[:20]).input_ids == tokenizer(documents[:20]).input_ids
    assert (again.bos_token_id, again.eos_token_id, again.pad_token_id) == (0, 1, 2)


def test_same_text_same_tokenizer(tokenizer, documents):
    assert train_tokenizer(documents).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
