from __future__ import annotations

import copy
import itertools
import logging

import pytest
import torch

from idp.errors import TaskError
from idp.model.loaded import LanguageModel
from idp.run.inputs import pad_left
from idp.tune.labels import label
from idp.tune.questions import Question

WHO = "Question: Who wrote the letter?\nAnswer:"


def ask(context, *options, answer=None, group="g"):
    return Question(context, options, answer, group)


def parrot(lm, ids):
    """A model that says one token of `ids` after the other, and nothing where the last token is none of them."""
    model = copy.deepcopy(lm.model)
    assert len(set(ids)) == len(ids) < model.config.hidden_size
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight", "lm_head.weight")):
                weight.zero_()
        for place, (token, following) in enumerate(itertools.pairwise(ids)):
            model.get_input_embeddings().weight[token, place] = 1
            model.lm_head.weight[following, place] = 1
    return LanguageModel(model, lm.tokenizer, "parrot")


def saying(lm, context, text, *ends):
    """A parrot that goes on behind a context with a text, and then with special tokens."""
    read, whole = (lm.tokenizer(t)["input_ids"] for t in (context, context + text))
    assert whole[: len(read)] == read
    return parrot(lm, [*whole[len(read) - 1 :], *ends])


def test_of_several_options_the_most_likely_one(tiny_lm, plain_logits):
    lm = tiny_lm()
    options = (" Anna", " Paris and the miller", " no", " a whale")

    def likelihood(context, option):
        read, whole = (lm.tokenizer(t)["input_ids"] for t in (context, context + option))
        log_probs = plain_logits(lm, None, whole[:-1]).log_softmax(-1)  # (T, V)
        return sum(float(log_probs[at - 1, whole[at]]) for at in range(len(read), len(whole)))

    contexts = [WHO, "Is a whale a fish?", "Once upon a time there was", "True or false? Answer:"]
    expected = [max(range(4), key=lambda i, c=context: likelihood(c, options[i])) for context in contexts]
    assert len(set(expected)) > 1
    answered = label(lm, [ask(context, *options) for context in contexts])
    assert [question.answer for question in answered] == expected
    assert [(question.context, question.options) for question in answered] == [(c, options) for c in contexts]


def test_a_continuation_is_what_the_model_says_greedily(tiny_lm, plain_logits):
    lm = tiny_lm()
    contexts = [WHO, "The river runs past", "Who wrote it? No,"]
    answered = label(lm, [ask(context) for context in contexts], max_new_tokens=5)
    for context, question in zip(contexts, answered, strict=True):
        ids = lm.tokenizer(context)["input_ids"]
        said = list(ids)
        while len(said) < len(ids) + 5 and said[-1] != lm.eos_token_id:
            said.append(int(plain_logits(lm, None, said)[-1].argmax()))
        expected = lm.tokenizer.decode(said, skip_special_tokens=True)[len(context) :]
        assert question.options == (expected.partition("\n")[0].rstrip("\ufffd").rstrip(),)
        assert question.answer == 0


@pytest.mark.parametrize("text", [" Anna\nQuestion", " Anna \nWho"])
def test_an_answer_ends_with_its_line(tiny_lm, text):
    lm = saying(tiny_lm(), WHO, text)
    assert label(lm, [ask(WHO)]) == [ask(WHO, " Anna", answer=0)]


def test_an_answer_ends_with_the_end_token(tiny_lm):
    lm = saying(tiny_lm(), WHO, " Anna", 2, 5)
    assert label(lm, [ask(WHO)]) == [ask(WHO, " Anna", answer=0)]


def test_half_a_character_is_no_part_of_an_answer(tiny_lm):
    text = " Annaé"
    lm, whole = saying(tiny_lm(), WHO, text), len(tiny_lm().tokenizer(text, add_special_tokens=False)["input_ids"])
    assert label(lm, [ask(WHO)], max_new_tokens=whole)[0].options == (" Annaé",)
    assert label(lm, [ask(WHO)], max_new_tokens=whole - 1)[0].options == (" Anna",)


def test_who_says_nothing_is_left_out_and_counted(tiny_lm, caplog):
    lm = saying(tiny_lm(), WHO, " Anna")
    asked = [ask("The river"), ask(WHO), ask("The river", " runs", answer=0), ask("Once", group="h")]
    with caplog.at_level(logging.WARNING):
        assert label(lm, asked) == [ask(WHO, " Anna", answer=0), asked[2]]
    assert "no answer to 2 questions" in caplog.text
    with pytest.raises(TaskError, match="no answer to any of 2 questions"):
        label(lm, [asked[0], asked[3]])


def test_what_does_not_fit_into_the_context_is_left_out(tiny_lm, caplog):
    lm = tiny_lm()
    long = "The river " * 200
    with caplog.at_level(logging.WARNING):
        answered = label(lm, [ask(long), ask(long, " runs", " past"), ask(WHO, " Anna", " no")])
    assert [question.context for question in answered] == [WHO]
    assert "no answer to 2 questions" in caplog.text


def test_in_a_batch_as_alone_and_in_order(tiny_lm):
    lm = tiny_lm()
    known = ask("The river", " runs", answer=0)
    asked = [ask(WHO), known, ask("Is it?", " yes", " no"), ask("Once upon a time"), ask(WHO, " Anna", " a")]
    counted = []
    together = label(lm, asked, advance=counted.append)
    assert together == [label(lm, [question], batch_size=1)[0] for question in asked]
    assert together[1] is known
    assert sum(counted) == 4


def test_models_that_do_not_bear_padding_get_one_row_at_a_time(tiny_lm, monkeypatch):
    lm = tiny_lm()
    asked = [ask(WHO), ask("Once upon a time"), ask("The river runs")]
    expected = label(lm, asked)
    widths = []
    monkeypatch.setattr("idp.tune.labels.bears_padding", lambda lm: False)
    monkeypatch.setattr("idp.tune.labels.pad_left", lambda rows, pad: widths.append(len(rows)) or pad_left(rows, pad))
    assert label(lm, asked) == expected
    assert widths == [1, 1, 1]


def test_the_space_that_some_tokenizers_hide_is_kept(tiny_lm):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "<pad>",
        "<s>",
        "</s>",
        "▁Who?",
        "▁Answer:",
        "▁Anna",
        "▁Bo",
        "▁abcdef",
        "\n",
    ]  # transformers looks for stop strings behind abcdef
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    assert fast.decode([5]) == "Anna"
    lm = LanguageModel(parrot(tiny_lm(), [4, 5, 6, 2]).model, fast, "words")
    assert label(lm, [ask("Who? Answer:")])[0].options == (" Anna Bo",)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"batch_size": 0}])
def test_numbers_below_one_are_refused(tiny_lm, options):
    with pytest.raises(TaskError, match="give 1 or more"):
        label(tiny_lm(), [ask(WHO)], **options)


def test_nothing_asked_nothing_answered(tiny_lm):
    assert label(tiny_lm(), []) == []
