"""The attention rule equals what the whole model attends to, and keeps its symmetries."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from idp.bank import Prompt, PromptBank
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select import AttentionSelector, Calibration
from idp.select.attention import _prompt_keys, attention_scores
from idp.select.layer0 import LayerZero

ROTARY = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt_neox"]
LEARNED = ["opt", "gpt2"]
LENGTHS = (3, 5, 4)
INPUTS = [[5, 6, 7, 8, 9, 10], [300], [40, 41, 42]]


def _soft(length: int, seed: int) -> Tensor:
    return torch.randn(length, 32, generator=torch.Generator().manual_seed(seed))


def _bank(order: Sequence[int] = (0, 1, 2)) -> PromptBank:
    return PromptBank([Prompt(f"p{i}", embedding=_soft(LENGTHS[i], i)) for i in order])


def _attended(lm: LanguageModel, bank: PromptBank, ids: list[int], start: int, right_aligned: bool) -> Tensor:
    """Layer-0 attention `(H, T, N + T)` of the input in one eager pass over `[P_1; ..; P_m; X]`, all layers run."""
    prompts = [lm.embed_prompt(prompt) for prompt in bank]
    lengths = [len(prompt) for prompt in prompts]
    embeddings = torch.cat([*prompts, lm.embed(torch.tensor(ids))])[None]  # (1, N + T, d)
    owner = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)] + [-1] * len(ids))  # (N + T,)
    offsets = [start - n if right_aligned else 0 for n in lengths]
    positions = torch.cat([*(torch.arange(n) + o for n, o in zip(lengths, offsets, strict=True)),
                           torch.arange(len(ids)) + start])  # fmt: skip
    allowed = ((owner[:, None] == owner) | (owner[:, None] == -1)).tril()  # (N + T, N + T)
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
    model = copy.deepcopy(lm.model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions[None],
                       output_attentions=True, use_cache=False)  # fmt: skip
    attention: Tensor = output.attentions[0][0, :, -len(ids) :]
    return attention


def _expected(lm: LanguageModel, bank: PromptBank, ids: list[int], right_aligned: bool, last: bool = False) -> Tensor:
    """Read the mean attention of each prompt off the full model's pass, one pass for each place of the input."""
    lengths = [len(lm.embed_prompt(prompt)) for prompt in bank]
    means = []
    for i, n in enumerate(lengths):
        attended = _attended(lm, bank, ids, max(lengths) if right_aligned else n, right_aligned)  # (H, T, N + T)
        begin = sum(lengths[:i])
        means.append(attended[:, -1 if last else slice(None), ..., begin : begin + n].mean())
    return torch.stack(means)


@pytest.mark.parametrize("queries", ["all", "last"])
@pytest.mark.parametrize("architecture", ROTARY + LEARNED)
def test_equals_the_full_model(tiny_lm: Any, architecture: str, queries: Any) -> None:
    lm, bank = tiny_lm(architecture), _bank()
    selector = AttentionSelector(queries=queries).fit(bank, lm)
    scores = selector.raw_scores(INPUTS)  # one batch, padded
    for row, ids in zip(scores, INPUTS, strict=True):
        expected = _expected(lm, bank, ids, architecture in ROTARY, last=queries == "last")
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("architecture", "passes"), [*((a, 1) for a in ROTARY), *((a, 3) for a in LEARNED)])
def test_one_pass_or_one_a_length(tiny_lm: Any, architecture: str, passes: int) -> None:
    lm = tiny_lm(architecture)
    keys = _prompt_keys(LayerZero(lm), [lm.embed_prompt(prompt) for prompt in _bank()])
    assert len(keys.starts) == passes
    assert sorted(i for members in keys.starts.values() for i in members) == [0, 1, 2]


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_mass_and_mean_differ_by_the_length(tiny_lm: Any, architecture: str) -> None:
    lm, bank = tiny_lm(architecture), _bank()
    mean = AttentionSelector().fit(bank, lm).raw_scores(INPUTS)
    mass = AttentionSelector(score="joint_mass").fit(bank, lm).raw_scores(INPUTS)
    torch.testing.assert_close(mass, mean * torch.tensor(LENGTHS))


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_separate_mean_is_the_model_with_that_prompt_alone(tiny_lm: Any, architecture: str) -> None:
    lm, bank = tiny_lm(architecture), _bank()
    scores = AttentionSelector(score="separate_mean").fit(bank, lm).raw_scores(INPUTS)  # (3, m)
    for i, prompt in enumerate(bank):
        alone = AttentionSelector().fit(PromptBank([prompt]), lm).raw_scores(INPUTS)  # (3, 1)
        torch.testing.assert_close(scores[:, i], alone[:, 0], atol=1e-6, rtol=1e-5)


def test_logit_mean(tiny_lm: Any) -> None:
    lm, bank = tiny_lm(), _bank()
    scores = AttentionSelector(score="logit_mean").fit(bank, lm).raw_scores([[5, 6]])
    attended = _attended(lm, bank, [5, 6], max(LENGTHS), True)  # (H, 2, N + 2); logits up to a constant a row
    logs = attended.log()
    means = torch.stack([part.mean(dim=(0, 1, 2)) for part in torch.split(logs, [*LENGTHS, 2], dim=-1)[:3]])
    torch.testing.assert_close(scores[0] - scores[0].mean(), means - means.mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_attention_sums_to_one(tiny_lm: Any, architecture: str) -> None:
    """Methods 1.6, item 5: all prompts and the input share one softmax."""
    lm = tiny_lm(architecture)
    layer = LayerZero(lm)
    keys = _prompt_keys(layer, [lm.embed_prompt(prompt) for prompt in _bank()])
    start, _ = next(iter(keys.starts.items()))
    seen = layer.project(lm.embed(torch.tensor([[5, 6, 7]])), torch.arange(start, start + 3)[None])
    counted = torch.ones(1, 3, dtype=torch.bool)
    # The input itself is scored as if it were a prompt that only its last token sees whole.
    mass = attention_scores(seen, keys.keys, keys.lengths, counted, "joint_mass")  # (1, m)
    attended = _attended(lm, _bank(), [5, 6, 7], start, architecture in ROTARY)  # (H, 3, N + 3)
    to_input = attended[..., sum(LENGTHS) :].sum(dim=-1).mean()
    assert float(mass.sum() + to_input) == pytest.approx(1.0, abs=1e-5)


def test_ratios_within_a_prompt_are_those_of_the_prompt_alone(tiny_lm: Any) -> None:
    """Methods 1.6, item 5: the other prompts change the scale only. Each token is scored as a prompt of its own."""
    lm = tiny_lm()
    layer = LayerZero(lm)
    keys = _prompt_keys(layer, [lm.embed_prompt(prompt) for prompt in _bank()])
    seen = layer.project(lm.embed(torch.tensor([[5]])), torch.tensor([[5]]))
    one = torch.ones(1, 1, dtype=torch.bool)
    for head in range(4):
        single = copy.copy(seen)
        object.__setattr__(single, "query", seen.query[:, head : head + 1])
        object.__setattr__(single, "key", seen.key[:, head : head + 1])
        own = keys.keys[head : head + 1]
        joint = attention_scores(single, own, [1] * 12, one)[0, :3]
        alone = attention_scores(single, own[:, :3], [1] * 3, one)[0]
        torch.testing.assert_close(joint / joint.sum(), alone / alone.sum(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
@pytest.mark.parametrize("score", ["joint_mean", "joint_mass", "separate_mean", "logit_mean"])
def test_equal_prompts_score_equally_and_the_first_wins(tiny_lm: Any, architecture: str, score: Any) -> None:
    """Methods 1.6, item 2."""
    for length in (1, 3, 4, 20):
        same = [Prompt(name, embedding=_soft(length, 0)) for name in "ab"]
        lm = tiny_lm(architecture)
        for choice in AttentionSelector(score=score).fit(PromptBank(same), lm).select_batch(INPUTS):
            assert choice.index == 0
            assert choice.scores[0] == choice.scores[1] > choice.scores[2] == -torch.inf


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "opt", "gpt2"])
def test_reordering_permutes_the_scores(tiny_lm: Any, architecture: str) -> None:
    """Methods 1.6, item 6."""
    lm, order = tiny_lm(architecture), [2, 0, 1]
    scores = AttentionSelector().fit(_bank(), lm).raw_scores(INPUTS)
    turned = AttentionSelector().fit(_bank(order), lm).raw_scores(INPUTS)
    torch.testing.assert_close(turned, scores[:, order], atol=1e-6, rtol=1e-5)


def test_large_keys_along_the_mean_query_win(tiny_lm: Any) -> None:
    """Methods 1.6, item 7."""
    lm = tiny_lm()
    layer = LayerZero(lm)
    prompts = _prompt_keys(layer, [lm.embed_prompt(prompt) for prompt in _bank()])
    ids = torch.tensor([[5, 6, 7]])
    seen = layer.project(lm.embed(ids), torch.arange(5, 8)[None])
    counted = torch.ones_like(ids, dtype=torch.bool)
    for i, part in enumerate(torch.split(prompts.keys, list(LENGTHS), dim=1)):
        keys = [1000 * seen.query.mean(dim=2)[0][:, None].expand_as(part) if j == i else other
                for j, other in enumerate(torch.split(prompts.keys, list(LENGTHS), dim=1))]  # fmt: skip
        assert attention_scores(seen, torch.cat(keys, dim=1), LENGTHS, counted).argmax() == i


TOKENS = st.lists(st.lists(st.integers(3, 380), max_size=9), min_size=1, max_size=7)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inputs=TOKENS, architecture=st.sampled_from(["llama", "opt"]))
def test_alone_or_in_a_batch(inputs: list[list[int]], architecture: str, tiny_lm: Any) -> None:
    selector = AttentionSelector().fit(_bank(), tiny_lm(architecture))
    batch = selector.raw_scores(inputs)
    alone = torch.cat([selector.raw_scores([ids]) for ids in inputs])
    torch.testing.assert_close(batch, alone, atol=1e-6, rtol=1e-5)


def test_many_small_batches_change_nothing(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [[5 + i, 6, 7][: 1 + i % 3] for i in range(20)]
    selector = AttentionSelector().fit(_bank(), tiny_lm())
    whole = selector.raw_scores(inputs)
    monkeypatch.setattr("idp.select.attention._MAX_LOGITS", 200)
    torch.testing.assert_close(selector.raw_scores(inputs), whole, atol=1e-6, rtol=1e-5)


def test_empty_input_takes_no_prompt(tiny_lm: Any) -> None:
    empty, other = AttentionSelector().fit(_bank(), tiny_lm()).select_batch([[], [5]])
    assert (empty.index, empty.score) == (-1, 0.0)
    assert other.index >= 0
    assert AttentionSelector().fit(_bank(), tiny_lm()).select_batch([]) == []


def test_text_and_soft_prompts_together(tiny_lm: Any) -> None:
    lm = tiny_lm()
    text = "Think of what you knew before."
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    mixed = PromptBank([Prompt("soft", embedding=_soft(3, 0)), Prompt("text", text=text)])
    softened = PromptBank([mixed[0], Prompt("text", embedding=lm.embed(torch.tensor(ids)))])
    assert AttentionSelector().fit(mixed, lm).select_batch(INPUTS) == AttentionSelector().fit(
        softened, lm
    ).select_batch(INPUTS)


@pytest.mark.parametrize("score", ["joint_mean", "joint_mass", "separate_mean", "logit_mean"])
def test_calibration_centres_and_scales(tiny_lm: Any, score: Any) -> None:
    inputs = [[i, i + 1, 7] for i in range(10, 50)]
    centred, scaled = (
        AttentionSelector(score=score, calibrate="center"),
        AttentionSelector(score=score, calibrate="zscore"),
    )
    for selector, spread in ((centred, None), (scaled, 1.0)):
        selector.fit(_bank(), tiny_lm(), Calibration([*inputs, []]))
        scores = torch.tensor([choice.scores[:3] for choice in selector.select_batch(inputs)])
        torch.testing.assert_close(scores.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
        if spread is not None:
            torch.testing.assert_close(scores.std(dim=0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_calibration_stops_one_prompt_from_taking_all(tiny_lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [[i, i + 1, 7] for i in range(40)]

    def loud(self: AttentionSelector, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Give the first prompt ten times the attention, whatever the input, and each its own half of the inputs."""
        own = torch.tensor([[ids[0] % 2, 1 - ids[0] % 2] for ids in inputs])  # (N, 2)
        return (own + torch.tensor([2.3, 0.0])).exp() / 100

    monkeypatch.setattr(AttentionSelector, "raw_scores", loud)
    bank = PromptBank([Prompt("a", embedding=_soft(4, 0)), Prompt("b", embedding=_soft(4, 1))])
    plain = AttentionSelector().fit(bank, tiny_lm())
    assert {choice.index for choice in plain.select_batch(inputs)} == {0}
    for fair in (AttentionSelector(calibrate="center"), AttentionSelector(calibrate="zscore")):
        choices = fair.fit(bank, tiny_lm(), Calibration(inputs)).select_batch(inputs)
        assert [choice.index for choice in choices] == [1 - ids[0] % 2 for ids in inputs]


def test_calibration_is_needed(tiny_lm: Any) -> None:
    assert AttentionSelector().needs == "nothing"
    selector = AttentionSelector(calibrate="zscore")
    assert selector.needs == "inputs"
    with pytest.raises(SelectorError, match="got no calibration"):
        selector.fit(_bank(), tiny_lm())
    with pytest.raises(SelectorError, match="every calibration input is empty"):
        selector.fit(_bank(), tiny_lm(), Calibration([[]]))


def test_a_constant_score_does_not_divide_by_zero(tiny_lm: Any) -> None:
    selector = AttentionSelector(calibrate="zscore").fit(_bank(), tiny_lm(), Calibration([[5, 6]] * 3))
    assert all(abs(score) < 1e-3 for score in selector.select([5, 6]).scores[:3])


@pytest.mark.parametrize("calibrate", ["none", "center", "zscore"])
def test_state_round_trip(tiny_lm: Any, calibrate: Any) -> None:
    lm, bank = tiny_lm(), _bank()
    fitted = AttentionSelector(score="joint_mass", queries="last", calibrate=calibrate)
    fitted.fit(bank, lm, Calibration(INPUTS))
    loaded = AttentionSelector().load_state(fitted.state(), bank, lm)
    assert (loaded.score, loaded.queries, loaded.calibrate) == ("joint_mass", "last", calibrate)
    assert loaded.select_batch(INPUTS) == fitted.select_batch(INPUTS)


@pytest.mark.parametrize("option", ["score", "queries", "calibrate"])
def test_unknown_option(option: str) -> None:
    with pytest.raises(SelectorError, match=f"no {option} 'al'"):
        AttentionSelector(**{option: "al"})  # type: ignore[arg-type]


def test_unfitted() -> None:
    for ask in (AttentionSelector().state, lambda: AttentionSelector().select([5])):
        with pytest.raises(SelectorError, match="not fitted"):
            ask()
