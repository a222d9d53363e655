from __future__ import annotations

import copy

import pytest
import torch

from idp.dynamic.model import DynamicPromptModel
from idp.errors import ModelError, PromptTooLongError, TaskError
from idp.model.loaded import LanguageModel
from idp.run.texts import encode_chat

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture
def talker(tiny_lm, mixed_bank, by_length):
    """A model whose choice depends on the length of what it reads."""
    tokenizer = copy.deepcopy(tiny_lm().tokenizer)
    tokenizer.chat_template = TEMPLATE
    lm = LanguageModel(tiny_lm().model, tokenizer, "talker")
    bank = mixed_bank(lm)
    return DynamicPromptModel(lm, bank, by_length().fit(bank, lm))


def test_a_conversation_keeps_its_prompt(talker):
    talk = talker.conversation()
    chosen = []
    for text in ("Hello", "Who wrote the letter?", "And then"):
        before = list(talk.messages)
        answer = talk.say(text, max_new_tokens=4, do_sample=False)
        chosen.append(talk.selection.index)
        ids = encode_chat(talker.lm, [*before, {"role": "user", "content": text}])
        expected = talker.generate_with([chosen[0]], torch.tensor([ids]), max_new_tokens=4, do_sample=False)
        assert answer == talker.tokenizer.decode(expected[0, len(ids) :], skip_special_tokens=True)
        assert talk.messages[-2:] == [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    assert len(set(chosen)) == 1
    assert talker.last_selections == [talk.selection]


def test_a_prompt_can_be_chosen_anew_at_every_turn(talker):
    talk = talker.conversation(choose_anew=True)
    chosen, expected = [], []
    for text in ("Hello", "Who wrote the letter?", "And then", "Why?"):
        ids = encode_chat(talker.lm, [*talk.messages, {"role": "user", "content": text}])
        expected.append(len(ids) % 5 - 1)
        talk.say(text, max_new_tokens=3)
        chosen.append(talk.selection.index)
    assert chosen == expected
    assert len(set(chosen)) > 1


def test_a_system_message_comes_first(talker):
    talk = talker.conversation(system="Be brief.")
    talk.say("Hello", max_new_tokens=2)
    assert [message["role"] for message in talk.messages] == ["system", "user", "assistant"]


def test_a_failed_turn_leaves_the_conversation_as_it_was(talker):
    talk = talker.conversation()
    talk.say("Hello", max_new_tokens=2)
    before, selection = list(talk.messages), talk.selection
    with pytest.raises(PromptTooLongError):
        talk.say("The river runs past the old mill. " * 40, max_new_tokens=4)
    with pytest.raises(ModelError, match="one answer"):
        talk.say("Hello", num_return_sequences=2, num_beams=2)
    assert (talk.messages, talk.selection) == (before, selection)


def test_many_conversations_at_once(talker):
    conversations = [[{"role": "user", "content": text}] for text in ("Hello", "Who wrote the letter?")]
    together = talker.generate_chat(conversations, max_new_tokens=4, do_sample=False)
    assert together == [talker.generate_chat([one], max_new_tokens=4, do_sample=False)[0] for one in conversations]
    assert talker.generate_chat([]) == []
    with pytest.raises(TaskError, match="a list of conversations"):
        talker.generate_chat(conversations[0])
