from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idp.bank.bank import PromptBank
from idp.bank.find import find_prompt
from idp.bank.prompt import Prompt
from idp.bank.text import text_bank
from idp.bank.vectors import PromptVector
from idp.errors import BankError, PromptTooLongError, TaskError
from idp.tune.examples import Example
from idp.tune.initial import INITS, initial

ALL = ["uniform", "vocabulary", "frequent", "labels", "text:Be brief.", "prompt:soft"]
EASY = [Example((1, 10, 11), ((12,), (99,)), 0, "easy")]


@pytest.fixture
def bank(tiny_lm):
    generator = torch.Generator().manual_seed(0)
    soft = torch.randn(3, tiny_lm().hidden_size, generator=generator)
    return PromptBank([Prompt("soft", embedding=soft), Prompt("polite: text", text="Answer politely. ")])


def tokens_of(lm, rows):
    """Which token each row is the embedding of."""
    table = lm.embed(torch.arange(lm.vocab_size))
    found = (rows[:, None] == table).all(-1)
    assert found.any(1).all()
    return found.int().argmax(1).tolist()


def test_frequent_rows_are_embeddings_of_tokens_of_the_examples(tiny_lm):
    rows = initial("frequent", tiny_lm(), EASY, 3, 0)
    assert rows.shape == (3, tiny_lm().hidden_size)
    assert sorted(tokens_of(tiny_lm(), rows)) == [10, 11, 12]


def test_special_tokens_and_wrong_options_are_left_out(tiny_lm):
    assert set(tokens_of(tiny_lm(), initial("frequent", tiny_lm(), EASY, 6, 0))) == {10, 11, 12}


def test_only_the_most_frequent_are_drawn(tiny_lm):
    lm = tiny_lm()
    examples = [Example((1, *range(10, 10 + n)), ((200,),), 0, "easy") for n in range(1, 20)]
    rows = torch.cat([initial("frequent:4", lm, examples, 2, seed) for seed in range(20)])
    assert set(tokens_of(lm, rows)) == {10, 200, 11, 12}
    assert torch.equal(initial("frequent", lm, examples, 9, 0), initial("frequent:5000", lm, examples, 9, 0))


@pytest.mark.parametrize("spec", ["uniform", "uniform:model", "vocabulary", "frequent", "labels"])
def test_seed_and_nothing_else_decides(tiny_lm, some_examples, spec):
    lm, examples = tiny_lm(), some_examples(10)
    assert torch.equal(initial(spec, lm, examples, 20, 0), initial(spec, lm, examples[::-1], 20, 0))
    assert not torch.equal(initial(spec, lm, examples, 20, 0), initial(spec, lm, examples, 20, 1))


@given(spec=st.sampled_from(ALL), n=st.integers(1, 150))
@settings(deadline=None)
def test_every_start_has_every_length(tiny_lm, spec, n):
    lm = tiny_lm()
    bank = PromptBank([Prompt("soft", embedding=torch.ones(3, lm.hidden_size))])
    rows = initial(spec, lm, EASY, n, 0, bank)
    assert rows.shape == (n, lm.hidden_size)
    assert (rows.dtype, rows.device.type, rows.requires_grad) == (torch.float32, "cpu", False)


def test_uniform_is_as_wide_as_it_is_told(tiny_lm):
    lm = tiny_lm()
    for spec, half in (("uniform", 0.5), ("uniform:0.1", 0.1)):
        rows = initial(spec, lm, [], 200, 0)
        assert 0.98 * half < rows.abs().max() <= half
        assert abs(rows.mean()) < 0.02 * half


def test_uniform_on_the_models_own_scale(tiny_lm):
    table = tiny_lm().embed(torch.arange(tiny_lm().vocab_size))
    assert initial("uniform:model", tiny_lm(), [], 200, 0).std() == pytest.approx(float(table.std()), rel=0.03)


def test_vocabulary_holds_no_special_token_and_no_padding_of_the_table(tiny_lm):
    lm = tiny_lm(vocab_size=400)
    drawn = tokens_of(lm, initial("vocabulary", lm, [], 240, 0))
    assert len(set(drawn)) == 240
    assert min(drawn) > 2
    assert max(drawn) < len(lm.tokenizer) < 400


def test_labels_are_averaged_and_the_rest_is_filled(tiny_lm):
    lm = tiny_lm()
    examples = [
        Example((1, 10), ((12, 13), (99,)), 0, "a"),
        Example((1, 11), ((99,), (14,)), 1, "a"),
        Example((1, 10), ((12, 13), (98,)), 0, "a"),
        Example((1, 10), ((12, 15), (98,)), 0, "a"),
        Example((1,), ((50, 51),), 0, "text"),
    ]
    rows = initial("labels", lm, examples, 5, 0)
    table = lm.embed(torch.arange(lm.vocab_size))
    expected = [table[[12, 13]].mean(0), table[[12, 15]].mean(0), table[14]]  # the more frequent first, then by ids
    torch.testing.assert_close(rows[:3], torch.stack(expected))
    assert set(tokens_of(lm, rows[3:])) <= {10, 11, 12, 13, 14, 15, 50, 51}
    torch.testing.assert_close(initial("labels", lm, examples, 2, 0), rows[:2])


def test_text_is_repeated_or_cut(tiny_lm):
    lm = tiny_lm()
    ids = lm.tokenizer("Be brief: now.", add_special_tokens=False)["input_ids"]
    rows = initial("text:Be brief: now.", lm, [], 2 * len(ids) + 1, 0)
    assert tokens_of(lm, rows) == [*ids, *ids, ids[0]]
    assert tokens_of(lm, initial("text:Be brief: now.", lm, [], 2, 0)) == ids[:2]


@pytest.mark.parametrize("architecture", ["llama", "opt", "gemma2"])
def test_an_untuned_text_start_is_the_model_fed_that_text(tiny_lm, plain_logits, architecture):
    lm = tiny_lm(architecture)
    text, question = "Answer the question. ", [1, 20, 30, 40]
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = Prompt("start", embedding=initial(f"text:{text}", lm, [], len(ids), 0))
    with torch.no_grad():
        expected = lm.model(input_ids=torch.tensor([[*ids, *question]])).logits[0, -4:]
    torch.testing.assert_close(plain_logits(lm, prompt, question), expected, atol=1e-5, rtol=1e-5)


def test_a_prompt_of_the_given_bank(tiny_lm, bank):
    lm, soft = tiny_lm(), bank["soft"].embedding
    assert torch.equal(initial("prompt:soft", lm, [], 7, 0, bank), torch.cat([soft, soft, soft[:1]]))
    assert torch.equal(initial("prompt:soft", lm, [], 2, 0, bank), soft[:2])
    ids = lm.tokenizer("Answer politely. ", add_special_tokens=False)["input_ids"]
    assert tokens_of(lm, initial("prompt:polite: text", lm, [], len(ids), 0, bank)) == ids


def test_a_prompt_of_a_bank_on_disk(tiny_lm, bank, tmp_path):
    bank.save(tmp_path)
    for given_bank in (None, PromptBank([Prompt("other", text="Be brief.")])):
        rows = initial(f"prompt:{tmp_path}:soft", tiny_lm(), [], 3, 0, given_bank)
        assert torch.equal(rows, bank["soft"].embedding)


def test_a_start_does_not_change_with_the_bank_it_is_from(tiny_lm, bank):
    initial("prompt:soft", tiny_lm(), [], 3, 0, bank).zero_()
    assert bank["soft"].embedding.any()


def test_a_shipped_prompt(tiny_lm):
    lm = tiny_lm()
    address = next(f"text:{prompt.name}" for prompt in text_bank())
    rows = initial(f"prompt:{address}", lm, [], 4, 0)
    assert torch.equal(rows, initial(f"text:{find_prompt(address).prompt.text}", lm, [], 4, 0))


def test_a_vector_is_no_start(tiny_lm):
    shift = PromptVector("shift", torch.ones(3, 32)).to_prompt()
    with pytest.raises(BankError, match="'shift' is a vector"):
        initial("prompt:shift", tiny_lm(), [], 3, 0, PromptBank([shift]))


@pytest.mark.parametrize("spec", ["prompt:sotf", "prompt", "prompt:nowhere:soft"])
def test_a_prompt_that_is_not_there(tiny_lm, bank, spec):
    with pytest.raises(BankError):
        initial(spec, tiny_lm(), [], 3, 0, bank)
    with pytest.raises(BankError):
        initial(spec, tiny_lm(), [], 3, 0)


def test_a_prompt_of_another_width_is_refused(tiny_lm):
    bank = PromptBank([Prompt("wide", embedding=torch.ones(2, 7))])
    with pytest.raises(BankError, match="7 wide"):
        initial("prompt:wide", tiny_lm(), [], 3, 0, bank)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("uniferm", "Did you mean 'uniform'"),
        ("", "unknown start"),
        ("Text:x", "Did you mean 'text'"),
        ("text", "needs one"),
        ("text:", "nothing stands behind the colon"),
        ("labels:3", "takes nothing"),
        ("vocabulary:9", "takes nothing"),
        ("frequent:0", "frequent:512"),
        ("frequent:2.5", "frequent:512"),
        ("uniform:wide", "uniform:0.1"),
        ("uniform:-1", "uniform:0.1"),
        ("uniform:inf", "uniform:0.1"),
    ],
)
def test_a_spec_that_cannot_be_read(tiny_lm, spec, message):
    with pytest.raises(TaskError, match=message):
        initial(spec, tiny_lm(), EASY, 4, 0)


def test_an_empty_text_is_refused(tiny_lm):
    with pytest.raises(BankError, match="empty"):
        initial("text:  ", tiny_lm(), [], 4, 0)


@pytest.mark.parametrize("spec", sorted(INITS))
def test_a_length_that_is_not_possible(tiny_lm, bank, spec):
    with pytest.raises(TaskError, match="give 1 or more"):
        initial(spec, tiny_lm(), EASY, 0, 0, bank)
    with pytest.raises(PromptTooLongError, match="holds 256"):
        initial(spec, tiny_lm(), EASY, 256, 0, bank)


def test_no_tokens_to_start_from_is_an_error(tiny_lm):
    with pytest.raises(TaskError, match="no tokens"):
        initial("frequent", tiny_lm(), [], 4, 0)
    with pytest.raises(TaskError, match="no answers"):
        initial("labels", tiny_lm(), [Example((1,), ((5, 6),), 0, "text")], 4, 0)
