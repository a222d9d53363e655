"""The question at the end of a text, found in its tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select.question import QuestionFinder, question_offset

SHOT = "Question: Was it?\nAnswer: No.\n\n"


@pytest.mark.parametrize(
    ("before", "question"),
    [
        (SHOT * 2, "Question: Is it?\nAnswer:"),
        ("A passage about Q: nothing.\n", "question: Is it?\nAnswer:"),
        ("Q: Was it?\nA: No.\n", "Q: Is it?\nA:"),
        ("Q1: Was it?\nA: No.\n", "Q 2 : Is it?\n\nA:"),
        ("Be brief.\n  ", "QUESTION : Is it?"),
        ("Which of these?\nA. one\nAnswer: A\n \n\n", "And of these?\nA. two\nAnswer:"),
        ("First.\r\n\r\n", "Second.\n\n  "),
        ("", "The river runs past\nthe mill"),
        ("", "What question: this one?"),
        ("", "FAQ: what?"),
        ("", ""),
        ("", " \n\n "),
    ],
)
def test_where_the_question_begins(before: str, question: str) -> None:
    assert question_offset(before + question) == len(before)


def _metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer that marks spaces, as sentencepiece does, and writes newlines as bytes."""
    tokens = ["<s>", "<unk>", "<0x0A>", "▁Q", *dict.fromkeys("▁Questionwasi:?ANer.")]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "Q")], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def _lm(tiny_lm: Any, tokenizer: Any) -> LanguageModel:
    return LanguageModel(tiny_lm().model, tokenizer, "tiny")


def test_in_tokens_that_bytes_were_merged_to(tiny_lm: Any) -> None:
    lm = tiny_lm()
    ids = lm.tokenizer("Ein Fluß 河。\n" + SHOT + "Question: Is a whale a fish?\nAnswer:")["input_ids"]
    start = QuestionFinder(lm).start(ids)
    assert lm.tokenizer.decode(ids[start:]) == "Question: Is a whale a fish?\nAnswer:"


def test_in_tokens_that_drop_their_space_alone(tiny_lm: Any) -> None:
    tokenizer = _metaspace()
    ids = tokenizer("Question: was it?\nAnswer: No.\n Question: is it?\nAnswer:", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode([tokenizer.convert_tokens_to_ids("▁")]) == ""
    start = QuestionFinder(_lm(tiny_lm, tokenizer)).start([0, *ids])
    assert tokenizer.decode([0, *ids][start:]).strip() == "Question: is it?\nAnswer:"


def test_special_tokens_are_no_part_of_it(tiny_lm: Any) -> None:
    lm = tiny_lm()
    finder = QuestionFinder(lm)
    assert finder.start(lm.tokenizer("The river runs")["input_ids"]) == 1  # behind <s>
    assert finder.start([1, 1]) == finder.start([1]) == finder.start([]) == 0


PARTS = st.lists(st.sampled_from(["Question:", "Q:", "\n", "\n\n", " ", "ß河", "Answer: no.", "is it?"]), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS)
def test_tokens_and_text_agree(tiny_lm: Any, parts: list[str]) -> None:
    text, lm = "".join(parts), tiny_lm()
    ids = lm.tokenizer(text)["input_ids"]
    question = text[question_offset(text) :]
    if question.strip():
        found = lm.tokenizer.decode(ids[QuestionFinder(lm).start(ids) :])
        assert found.endswith(question) and not found.removesuffix(question).strip()  # a token may begin with spaces


def test_a_token_is_decoded_once(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, asked = tiny_lm(), []
    finder = QuestionFinder(lm)
    decode = type(lm.tokenizer).decode
    monkeypatch.setattr(
        type(lm.tokenizer), "decode", lambda self, ids, **rest: (asked.append(ids), decode(self, ids, **rest))[1]
    )
    for _ in range(2):
        finder.start([1, 40, 41, 40])
    assert asked == [[1], [40], [41]]


def test_a_model_without_a_tokenizer(tiny_lm: Any) -> None:
    with pytest.raises(SelectorError, match="no tokenizer.*use queries=all or last"):
        QuestionFinder(_lm(tiny_lm, None))
