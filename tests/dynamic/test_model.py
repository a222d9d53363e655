from __future__ import annotations

import copy

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList, MaxTimeCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from idp.dynamic import model as model_module
from idp.dynamic.model import DynamicPromptModel
from idp.errors import ModelError, PromptTooLongError, SelectorError, TaskError
from idp.model.loaded import LanguageModel
from idp.run.inputs import pad_left
from idp.select.registry import get_selector

_ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13], [14, 15, 16], [5, 6, 7, 8]]
_CHOICES = [0, 3, -1, 1, 2]


def _prompted(lm, mixed_bank):
    return DynamicPromptModel(lm, mixed_bank(lm), get_selector("none"))


def _uncached(lm, bank, row, choice, **kwargs):
    """The definition: this row alone, prompt and input as embeddings."""
    embeds = lm.embed(torch.tensor([row]))
    if choice != -1:
        embeds = torch.cat([lm.embed_prompt(bank[choice])[None], embeds], dim=1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    return lm.model.generate(inputs_embeds=embeds, attention_mask=mask, **kwargs)


def _same(got, expected):
    """Equal up to the padding behind sequences that ended."""
    width = min(got.shape[-1], expected.shape[-1])
    assert torch.equal(got[..., :width], expected[..., :width])
    assert not got[..., width:].any() and not expected[..., width:].any()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"repetition_penalty": 1.3, "min_new_tokens": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_ways_to_generate(tiny_lm, mixed_bank, architecture, kwargs):
    lm = tiny_lm(architecture)
    prompted = _prompted(lm, mixed_bank)
    ids, mask = pad_left(_ROWS, 0)
    kwargs = {"max_new_tokens": 5, "do_sample": False, **kwargs}
    out = prompted.generate_with(_CHOICES, ids, attention_mask=mask, **kwargs)
    copies = kwargs.get("num_return_sequences", 1)
    assert out.shape[0] == len(_ROWS) * copies
    for i, (row, choice) in enumerate(zip(_ROWS, _CHOICES, strict=True)):
        alone = prompted.generate_with([choice], torch.tensor([row]), **kwargs)
        _same(out[i * copies : (i + 1) * copies, ids.shape[1] :], alone[:, len(row) :])
        if "repetition_penalty" not in kwargs:  # which transformers counts over ids, and embeddings have none
            plain = _uncached(lm, prompted.bank, row, choice, **kwargs)
            _same(out[i * copies : (i + 1) * copies, ids.shape[1] :], plain)


def test_sampling_without_prompt_draws_the_same(tiny_lm, mixed_bank):
    lm = tiny_lm()
    ids, mask = pad_left(_ROWS, 0)
    drawn = []
    for run in (lm.model.generate, lambda *a, **k: _prompted(lm, mixed_bank).generate_with([-1] * 5, *a, **k)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            drawn.append(run(ids, attention_mask=mask, do_sample=True, max_new_tokens=6, num_return_sequences=2))
    assert torch.equal(*drawn)


def test_sampling_with_prompts_and_a_seed(tiny_lm, mixed_bank):
    """The same seed draws the same tokens, from cached prompts and from prompts read as embeddings; another, others."""
    prompted = _prompted(tiny_lm(), mixed_bank)
    ids, mask = pad_left(_ROWS, 0)
    settings = {"attention_mask": mask, "do_sample": True, "top_k": 5, "max_new_tokens": 6, "num_return_sequences": 3}
    drawn = []
    for seed, how in ((3, {}), (3, {}), (3, {"use_cache": False}), (4, {})):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn.append(prompted.generate_with(_CHOICES, ids, **settings, **how))
    assert drawn[0].shape[0] == 15
    assert torch.equal(drawn[0][::3, : ids.shape[1]], ids)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


def test_a_tokenizer_without_pad_and_bos_tokens(tiny_lm, mixed_bank):
    """Padding is then the end token, which is never attended to, and a text of nothing begins with it."""
    lm = tiny_lm()
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.pad_token = tokenizer.bos_token = None
    tokenizer.backend_tokenizer.post_processor = None
    bare = DynamicPromptModel(LanguageModel(lm.model, tokenizer, "bare"), mixed_bank(lm), get_selector("none"))
    bare.selector = get_selector("random", seed=1).fit(mixed_bank(lm), bare.lm)
    texts = ["The river runs", "", "Who wrote the letter?"]
    together = bare.generate_text(texts, max_new_tokens=4, do_sample=False)
    assert together == [bare.generate_text(text, max_new_tokens=4, do_sample=False)[0] for text in texts]


def test_the_selector_sees_the_tokens_and_no_padding(tiny_lm, mixed_bank, by_length):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    prompted = DynamicPromptModel(lm, bank, by_length().fit(bank, lm))
    ids, mask = pad_left(_ROWS, 0)
    out = prompted.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4)
    assert [selection.index for selection in prompted.last_selections] == [0, 1, 0, 2, 3]
    assert torch.equal(out, prompted.generate(ids, max_new_tokens=4))  # the padding token says it too
    expected = prompted.generate_with([0, 1, 0, 2, 3], ids, attention_mask=mask, max_new_tokens=4)
    assert torch.equal(out, expected)
    flipped = prompted.generate(ids.flip(-1), attention_mask=mask.flip(-1), max_new_tokens=4)
    assert [selection.index for selection in prompted.last_selections] == [0, 1, 0, 2, 3]
    assert torch.equal(flipped[:, :6], ids.flip(-1))


def test_generation_config_stopping_and_processors(tiny_lm, mixed_bank):
    prompted = _prompted(tiny_lm(), mixed_bank)
    config = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=2)
    ids = torch.tensor([_ROWS[0]])
    expected = prompted.generate_with([2], ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(prompted.generate_with([2], ids, config), expected)
    assert torch.equal(prompted.generate_with([2], ids, generation_config=config, use_cache=False), expected)
    assert torch.equal(prompted.generate_with([2], ids, max_length=10, do_sample=False), expected)
    assert torch.equal(prompted.generate_with([2], ids, max_length=10, do_sample=False, use_cache=False), expected)

    def forbid(_, scores):
        return scores.index_fill(-1, expected[0, 6:7], float("-inf"))

    other = prompted.generate_with([2], ids, config, logits_processor=LogitsProcessorList([forbid]))
    assert other[0, 6] != expected[0, 6]
    stopped = prompted.generate_with([2], ids, config, stopping_criteria=StoppingCriteriaList([MaxTimeCriteria(0.0)]))
    assert stopped.shape == (1, 7)


class _Collector(BaseStreamer):
    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens.extend(value.flatten().tolist())

    def end(self):
        self.tokens.append("end")


def test_streamer(tiny_lm, mixed_bank):
    streamer = _Collector()
    out = _prompted(tiny_lm(), mixed_bank).generate_with(
        [3], torch.tensor([_ROWS[0]]), max_new_tokens=4, streamer=streamer
    )
    assert streamer.tokens == [*out[0].tolist(), "end"]


def test_text_in_text_out(tiny_lm, mixed_bank, by_length):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    prompted = DynamicPromptModel(lm, bank, by_length().fit(bank, lm))
    texts = ["The river runs", "Who wrote the letter?", ""]
    together = prompted.generate_text(texts, max_new_tokens=5)
    assert len(together) == 3
    for text, answer in zip(texts, together, strict=True):
        assert prompted.generate_text(text, max_new_tokens=5) == [answer]
    assert len(prompted.generate_text(texts, max_new_tokens=5, num_beams=2, num_return_sequences=2)) == 6
    assert prompted.generate_text([]) == []
    assert prompted.model is lm.model
    assert prompted.tokenizer is lm.tokenizer
    assert prompted.device == lm.device


def test_a_static_cache_holds_the_prompts_too(tiny_lm, mixed_bank, monkeypatch):
    """No embeddings are read: the prompt is in the cache."""
    prompted = _prompted(tiny_lm(), mixed_bank)
    monkeypatch.setattr(model_module, "prompted_embeds", lambda *_: pytest.fail("read as embeddings"))
    ids, mask = pad_left(_ROWS, 0)
    for kwargs in ({}, {"num_beams": 2}, {"max_cache_len": 64}):
        given = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False, **kwargs}
        expected = prompted.generate_with(_CHOICES, ids, **{k: v for k, v in given.items() if k != "max_cache_len"})
        got = prompted.generate_with(_CHOICES, ids, cache_implementation="static", **given)
        assert torch.equal(got, expected)
        config = GenerationConfig(cache_implementation="static", pad_token_id=0, eos_token_id=2, **kwargs)
        config.max_new_tokens = 4
        assert torch.equal(prompted.generate_with(_CHOICES, ids, config, attention_mask=mask), expected)


def test_scores_under_the_chosen_and_under_every_prompt(tiny_lm, mixed_bank, by_length):
    lm = tiny_lm()
    bank = mixed_bank(lm)
    prompted = DynamicPromptModel(lm, bank, by_length().fit(bank, lm))
    contexts, options = ["The river runs", "Who wrote the letter? Answer:"], [[" past", " to the sea"], [" Anna"]]
    scores = prompted.score(contexts, options)
    table = prompted.score_prompts(contexts, options, batch_size=1)
    assert [[len(row) for row in scores], [tuple(t.shape) for t in table]] == [[2, 1], [(5, 2), (5, 1)]]
    chosen = [selection.index for selection in prompted.last_selections]
    for row, every, choice in zip(scores, table, chosen, strict=True):
        assert [score.loglikelihood for score in row] == pytest.approx(every[choice].tolist(), abs=1e-5)
    ids = [lm.tokenizer(context)["input_ids"] for context in contexts]
    behind = [[lm.tokenizer(o, add_special_tokens=False)["input_ids"] for o in row] for row in options]
    assert prompted.score(ids, behind) == scores


def test_contexts_and_continuations_go_together(tiny_lm):
    prompted = DynamicPromptModel(tiny_lm(), None, get_selector("none"))
    with pytest.raises(TaskError, match="2 contexts were given with 1 lists"):
        prompted.score(["a", "b"], [[" c"]])
    with pytest.raises(TaskError, match="give one each"):
        prompted.score("ab", [[" c"], [" d"]])
    assert prompted.score([], []) == []
    for text in (" c", [" c"]):
        with pytest.raises(TaskError, match="a list of options for each context"):
            prompted.score(["a"], text)


def test_a_bare_row_that_is_too_long_is_named_too(tiny_lm, mixed_bank):
    prompted = _prompted(tiny_lm(), mixed_bank)
    ids, mask = pad_left([[5], [5] * 250], 0)
    with pytest.raises(PromptTooLongError, match="row 1 does not fit: 0 tokens of no prompt, 250 of input and 7 new"):
        prompted.generate_with([0, -1], ids, attention_mask=mask, max_new_tokens=7)
    unlimited = _prompted(tiny_lm("bloom"), mixed_bank)  # counts no positions
    assert unlimited.generate_with([-1], torch.full((1, 12), 5), max_new_tokens=2, min_new_tokens=2).shape == (1, 14)


def test_nothing_given_begins_with_bos(tiny_lm):
    lm = tiny_lm()
    prompted = DynamicPromptModel(lm, None, get_selector("none"))
    assert torch.equal(prompted.generate(max_new_tokens=4), lm.model.generate(max_new_tokens=4))
    assert prompted.last_selections[0].index == -1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"inputs_embeds": torch.zeros(1, 2, 32)}, "inputs_embeds together with prompts: .* pass input_ids"),
        ({"past_key_values": object()}, "past_key_values"),
        ({"prompt_lookup_num_tokens": 3}, "prompt lookup"),
        ({"position_ids": torch.zeros(1, 2, dtype=torch.long)}, "position_ids"),
    ],
)
def test_arguments_that_prompts_cannot_be_combined_with(tiny_lm, mixed_bank, kwargs, message):
    with pytest.raises(ModelError, match=message):
        _prompted(tiny_lm(), mixed_bank).generate_with([0], torch.tensor([[5, 6]]), **kwargs)


def test_choices_have_to_fit_the_batch_and_the_bank(tiny_lm, mixed_bank):
    prompted = _prompted(tiny_lm(), mixed_bank)
    with pytest.raises(SelectorError, match="1 choices of a prompt for 2 inputs"):
        prompted.generate_with([0], torch.tensor([[5, 6], [7, 8]]))
    with pytest.raises(SelectorError, match="no prompt 9"):
        prompted.generate_with([9], torch.tensor([[5, 6]]))


def test_too_long_is_named_and_what_just_fits_runs(tiny_lm, mixed_bank):
    prompted = _prompted(tiny_lm("opt"), mixed_bank)  # learned positions: 256 and no more
    ids = torch.full((2, 241), 5)
    assert prompted.generate_with([3, -1], ids, max_new_tokens=4, min_new_tokens=4).shape == (2, 245)
    message = r"row 0 does not fit: 11 tokens of prompt 'soft-11', 241 of input and 5 new ones make 257.* holds 256"
    with pytest.raises(PromptTooLongError, match=message):
        prompted.generate_with([3, -1], ids, max_new_tokens=5)
    with pytest.raises(PromptTooLongError, match="row 1 does not fit"):
        prompted.generate_with([-1, 3], torch.full((2, 245), 5))
    # Nobody said how many: the context's end is end enough.
    assert prompted.generate_with([3], torch.full((1, 241), 5), eos_token_id=None).shape == (1, 245)
