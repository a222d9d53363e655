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
from idp.bank.state import SelectorState
from idp.errors import SelectorError
from idp.model.loaded import LanguageModel
from idp.select import AttentionSelector, Calibration

ROTARY = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt_neox"]
LEARNED = ["opt", "gpt2"]
LENGTHS = (3, 5, 4)
SCORES: list[Any] = ["joint_mean", "joint_mass", "separate_mean", "logit_mean"]
INPUTS = [[5, 6, 7, 8, 9, 10], [300], [40, 41, 42]]


def _soft(length: int, seed: int) -> Tensor:
    return torch.randn(length, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def expected(attended: Any) -> Any:
    """The mean attention to each prompt from the full model's pass, `(m,)`; one pass for each place of the input."""

    def read(lm: LanguageModel, bank: PromptBank, ids: list[int], first: int = 0, layer: int = 0) -> Tensor:
        lengths = [len(lm.embed_prompt(prompt)) for prompt in bank]
        right_aligned = lm.name.removeprefix("tiny-") not in LEARNED
        means = []
        for i, n in enumerate(lengths):
            start = max(lengths) if right_aligned else n
            to_all = attended(lm, bank, ids, start, right_aligned, layer)  # (H, T, N + T)
            begin = sum(lengths[:i])
            means.append(to_all[:, first:, begin : begin + n].mean())
        return torch.stack(means)

    return read


@pytest.mark.parametrize("queries", ["all", "last"])
@pytest.mark.parametrize("architecture", ROTARY + LEARNED)
def test_equals_the_full_model(tiny_lm: Any, soft_bank: Any, expected: Any, architecture: str, queries: Any) -> None:
    lm, bank = tiny_lm(architecture), soft_bank()
    scores = AttentionSelector(queries=queries).fit(bank, lm).raw_scores(INPUTS)  # one batch, padded
    for row, ids in zip(scores, INPUTS, strict=True):
        torch.testing.assert_close(row, expected(lm, bank, ids, -1 if queries == "last" else 0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "implementation", "layer"),
    [
        *((architecture, "eager", 1) for architecture in (*ROTARY, "gemma3", *LEARNED)),
        *((architecture, "sdpa", 1) for architecture in ("llama", "gemma3", *LEARNED)),
        *((architecture, "sdpa", 2) for architecture in ("llama", "opt")),
    ],
)
def test_a_layer_above_equals_the_full_model(
    tiny_lm: Any, soft_bank: Any, expected: Any, architecture: str, implementation: str, layer: int
) -> None:
    """Of the one pass in which prompts see themselves and the input sees all of them: methods 1.4."""
    made = tiny_lm(architecture, **({"num_hidden_layers": layer + 1} if layer > 1 else {}))
    lm, bank = LanguageModel(copy.deepcopy(made.model), made.tokenizer, made.name), soft_bank()
    lm.model.set_attn_implementation(implementation)
    selector = AttentionSelector(layer=layer).fit(bank, lm)
    for row, ids in zip(selector.raw_scores(INPUTS), INPUTS, strict=True):
        torch.testing.assert_close(row, expected(lm, bank, ids, layer=layer), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_question_alone_asks(tiny_lm: Any, soft_bank: Any, expected: Any, layer: int) -> None:
    lm, bank = tiny_lm(), soft_bank()
    selector = AttentionSelector(queries="question", layer=layer).fit(bank, lm)
    texts = ("Question: Was it?\nAnswer: No.\n", "Question: Is it?\nAnswer:")
    context, question = (lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    shown, plain = selector.raw_scores([[1, *context, *question], [1, *question]])
    torch.testing.assert_close(shown, expected(lm, bank, [1, *context, *question], 1 + len(context), layer))
    torch.testing.assert_close(plain, expected(lm, bank, [1, *question], 1, layer))


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_mass_and_mean_differ_by_the_length(tiny_lm: Any, soft_bank: Any, architecture: str) -> None:
    lm, bank = tiny_lm(architecture), soft_bank()
    mean = AttentionSelector().fit(bank, lm).raw_scores(INPUTS)
    mass = AttentionSelector(score="joint_mass").fit(bank, lm).raw_scores(INPUTS)
    torch.testing.assert_close(mass, mean * torch.tensor(LENGTHS))


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_separate_mean_is_the_model_with_that_prompt_alone(tiny_lm: Any, soft_bank: Any, architecture: str) -> None:
    lm, bank = tiny_lm(architecture), soft_bank()
    scores = AttentionSelector(score="separate_mean").fit(bank, lm).raw_scores(INPUTS)  # (3, m)
    for i, prompt in enumerate(bank):
        alone = AttentionSelector().fit(PromptBank([prompt]), lm).raw_scores(INPUTS)  # (3, 1)
        torch.testing.assert_close(scores[:, i], alone[:, 0], atol=1e-6, rtol=1e-5)


def test_logit_mean(tiny_lm: Any, attended: Any, soft_bank: Any) -> None:
    lm, bank = tiny_lm(), soft_bank()
    scores = AttentionSelector(score="logit_mean").fit(bank, lm).raw_scores([[5, 6]])
    found = attended(lm, bank, [5, 6], max(LENGTHS), True)  # (H, 2, N + 2); logits up to a constant a row
    logs = found.log()
    means = torch.stack([part.mean(dim=(0, 1, 2)) for part in torch.split(logs, [*LENGTHS, 2], dim=-1)[:3]])
    torch.testing.assert_close(scores[0] - scores[0].mean(), means - means.mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("score", SCORES)
def test_equal_prompts_score_equally_and_the_first_wins(
    tiny_lm: Any, architecture: str, layer: int, score: Any
) -> None:
    """Methods 1.6, item 2."""
    for length in (1, 4, 20):
        same = [Prompt(name, embedding=_soft(length, 0)) for name in "ab"]
        lm = tiny_lm(architecture)
        for choice in AttentionSelector(score=score, layer=layer).fit(PromptBank(same), lm).select_batch(INPUTS):
            assert choice.index == 0
            assert choice.scores[0] == choice.scores[1] > choice.scores[2] == -torch.inf


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "opt", "gpt2"])
def test_reordering_permutes_the_scores(tiny_lm: Any, soft_bank: Any, architecture: str, layer: int) -> None:
    """Methods 1.6, item 6."""
    lm, order = tiny_lm(architecture), [2, 0, 1]
    scores = AttentionSelector(layer=layer).fit(soft_bank(), lm).raw_scores(INPUTS)
    turned = AttentionSelector(layer=layer).fit(soft_bank(order), lm).raw_scores(INPUTS)
    torch.testing.assert_close(turned, scores[:, order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_a_bank_of_one(tiny_lm: Any, soft_bank: Any, expected: Any, architecture: str, layer: int) -> None:
    lm, bank = tiny_lm(architecture), soft_bank([1])
    joint, separate = (AttentionSelector(score=rule, layer=layer).fit(bank, lm) for rule in SCORES[::2])
    torch.testing.assert_close(joint.raw_scores(INPUTS), separate.raw_scores(INPUTS), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(joint.raw_scores([[5, 6]])[0], expected(lm, bank, [5, 6], layer=layer))
    assert [choice.index for choice in joint.select_batch([*INPUTS, []])] == [0, 0, 0, -1]


TOKENS = st.lists(st.lists(st.integers(3, 380), max_size=9), min_size=1, max_size=7)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inputs=TOKENS, architecture=st.sampled_from(["llama", "opt"]), layer=st.sampled_from([0, 1]))
def test_alone_or_in_a_batch(
    inputs: list[list[int]], architecture: str, layer: int, tiny_lm: Any, soft_bank: Any
) -> None:
    selector = AttentionSelector(layer=layer).fit(soft_bank(), tiny_lm(architecture))
    batch = selector.raw_scores(inputs)
    alone = torch.cat([selector.raw_scores([ids]) for ids in inputs])
    torch.testing.assert_close(batch, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("limit", "layer"), [("_MAX_LOGITS", 0), ("_MAX_CACHED", 1)])
def test_many_small_batches_change_nothing(
    tiny_lm: Any, soft_bank: Any, monkeypatch: pytest.MonkeyPatch, limit: str, layer: int
) -> None:
    inputs = [[5 + i, 6, 7][: 1 + i % 3] for i in range(20)]
    selector = AttentionSelector(layer=layer).fit(soft_bank(), tiny_lm())
    whole = selector.raw_scores(inputs)
    monkeypatch.setattr(f"idp.select.attention_keys.{limit}", 60)
    assert len(list(selector._ready().batches(inputs))) > 3
    torch.testing.assert_close(selector.raw_scores(inputs), whole, atol=1e-6, rtol=1e-5)


def test_empty_input_takes_no_prompt(tiny_lm: Any, soft_bank: Any) -> None:
    empty, other = AttentionSelector().fit(soft_bank(), tiny_lm()).select_batch([[], [5]])
    assert (empty.index, empty.score) == (-1, 0.0)
    assert other.index >= 0
    assert AttentionSelector().fit(soft_bank(), tiny_lm()).select_batch([]) == []


def test_text_and_soft_prompts_together(tiny_lm: Any) -> None:
    lm = tiny_lm()
    text = "Think of what you knew before."
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    mixed = PromptBank([Prompt("soft", embedding=_soft(3, 0)), Prompt("text", text=text)])
    softened = PromptBank([mixed[0], Prompt("text", embedding=lm.embed(torch.tensor(ids)))])
    assert AttentionSelector().fit(mixed, lm).select_batch(INPUTS) == AttentionSelector().fit(
        softened, lm
    ).select_batch(INPUTS)


@pytest.mark.parametrize("score", SCORES)
def test_calibration_centres_and_scales(tiny_lm: Any, soft_bank: Any, score: Any) -> None:
    inputs = [[i, i + 1, 7] for i in range(10, 50)]
    centred, scaled = (
        AttentionSelector(score=score, calibrate="center"),
        AttentionSelector(score=score, calibrate="zscore"),
    )
    for selector, spread in ((centred, None), (scaled, 1.0)):
        selector.fit(soft_bank(), tiny_lm(), Calibration([*inputs, []]))
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


def test_calibration_is_needed(tiny_lm: Any, soft_bank: Any) -> None:
    assert AttentionSelector().needs == "nothing"
    selector = AttentionSelector(calibrate="zscore")
    assert selector.needs == "inputs"
    with pytest.raises(SelectorError, match="got no calibration"):
        selector.fit(soft_bank(), tiny_lm())
    with pytest.raises(SelectorError, match="every calibration input is empty"):
        selector.fit(soft_bank(), tiny_lm(), Calibration([[]]))


def test_fitted_needs_losses_and_lets_no_prompt_win(tiny_lm: Any, soft_bank: Any) -> None:
    bank, selector = soft_bank(), AttentionSelector(calibrate="fitted")
    assert (AttentionSelector().needs, selector.needs) == ("nothing", "losses")
    with pytest.raises(SelectorError, match="measure them first"):
        selector.fit(bank, tiny_lm(), Calibration(INPUTS))
    with pytest.raises(SelectorError, match="3 columns, but a bank of 3 needs 4"):
        selector.fit(bank, tiny_lm(), Calibration(INPUTS, torch.zeros(3, 3)))
    for best in (1, 3):
        losses = torch.ones(4, 4).index_fill(1, torch.tensor([best]), 0.0)
        choices = selector.fit(bank, tiny_lm(), Calibration([*INPUTS, []], losses)).select_batch([*INPUTS, []])
        assert [choice.index for choice in choices] == [best if best < 3 else -1] * 3 + [-1]
        assert all(choice.scores[3] == 0.0 for choice in choices)
    assert selector.cost.labels and selector.cost.parameters == 6


@pytest.mark.parametrize(
    ("calibrate", "queries", "layer"),
    [("none", "last", 0), ("center", "all", 1), ("zscore", "question", 0), ("fitted", "question", 1)],
)
def test_state_round_trip(tiny_lm: Any, soft_bank: Any, calibrate: Any, queries: Any, layer: int) -> None:
    lm, bank = tiny_lm(), soft_bank()
    losses = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    fitted = AttentionSelector(score="joint_mass", queries=queries, calibrate=calibrate, layer=layer)
    fitted.fit(bank, lm, Calibration(INPUTS, losses))
    loaded = AttentionSelector().load_state(fitted.state(), bank, lm)
    assert (loaded.score, loaded.queries, loaded.calibrate, loaded.layer) == ("joint_mass", queries, calibrate, layer)
    assert loaded.select_batch(INPUTS) == fitted.select_batch(INPUTS)
    assert loaded.cost == fitted.cost
    again = AttentionSelector(score="joint_mass", queries=queries, calibrate=calibrate, layer=layer)
    assert again.fit(bank, lm, Calibration(INPUTS, losses)).select_batch(INPUTS) == fitted.select_batch(INPUTS)


def test_a_state_from_before_layers(tiny_lm: Any, soft_bank: Any) -> None:
    """The shipped banks hold such states."""
    lm, bank = tiny_lm(), soft_bank()
    fitted = AttentionSelector(calibrate="center").fit(bank, lm, Calibration(INPUTS))
    state = fitted.state()
    old = SelectorState({key: value for key, value in state.config.items() if key != "layer"}, state.tensors)
    loaded = AttentionSelector(layer=1).load_state(old, bank, lm)
    assert loaded.layer == 0
    assert loaded.select_batch(INPUTS) == fitted.select_batch(INPUTS)


@pytest.mark.parametrize("broken", [{"mean": torch.zeros(2)}, {"std": torch.ones(3, 1)}, {"mean": None}])
def test_a_broken_state(tiny_lm: Any, soft_bank: Any, broken: dict[str, Any]) -> None:
    lm, bank = tiny_lm(), soft_bank()
    state = AttentionSelector(calibrate="center").fit(bank, lm, Calibration(INPUTS)).state()
    tensors = {name: tensor for name, tensor in (state.tensors | broken).items() if tensor is not None}
    with pytest.raises(SelectorError, match="not a state of selector 'attention'"):
        AttentionSelector().load_state(SelectorState(state.config, tensors), bank, lm)


@pytest.mark.parametrize(("architecture", "forwards"), [("llama", 1.0), ("opt", 3.0)])
def test_layers_below_are_counted_in_every_pass(
    tiny_lm: Any, soft_bank: Any, architecture: str, forwards: float
) -> None:
    lm = tiny_lm(architecture)
    assert AttentionSelector().fit(soft_bank(), lm).forwards == 0.0
    assert AttentionSelector(layer=1).fit(soft_bank(), lm).forwards == forwards


@pytest.mark.parametrize("layer", [-1, 0.5, "1", True])
def test_a_layer_that_is_no_number(layer: Any) -> None:
    with pytest.raises(SelectorError, match="count the layers from 0"):
        AttentionSelector(layer=layer)


def test_a_layer_that_the_model_lacks(tiny_lm: Any, soft_bank: Any) -> None:
    with pytest.raises(SelectorError, match="tiny-llama has 2 layers.* no layer 2 to look at: choose 0 to 1"):
        AttentionSelector(layer=2).fit(soft_bank(), tiny_lm())


@pytest.mark.parametrize("layer", [0, 1])
def test_broken_weights(broken_lm: Any, soft_bank: Any, layer: int) -> None:
    lm = broken_lm(f"model.layers.{layer}.self_attn.q_proj.weight")
    with pytest.raises(SelectorError, match="NaN"):
        AttentionSelector(layer=layer).fit(soft_bank(), lm).select([5, 6])
    with pytest.raises(SelectorError, match="attention scores of broken are NaN"):
        AttentionSelector(layer=layer, calibrate="center").fit(soft_bank(), lm, Calibration(INPUTS))


@pytest.mark.parametrize("option", ["score", "queries", "calibrate"])
def test_unknown_option(option: str) -> None:
    with pytest.raises(SelectorError, match=f"no {option} 'al'"):
        AttentionSelector(**{option: "al"})  # type: ignore[arg-type]


def test_unfitted() -> None:
    for ask in (AttentionSelector().state, lambda: AttentionSelector().select([5])):
        with pytest.raises(SelectorError, match="not fitted"):
            ask()
