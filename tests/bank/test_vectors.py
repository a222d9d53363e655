"""The algebra of prompt vectors: arXiv 2408.01119, checked on any numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from idp.bank import Fingerprint, Prompt, PromptBank, PromptVector
from idp.bank.vectors import is_vector, similarities
from idp.errors import BankError

DENSE = Fingerprint("LlamaForCausalLM", 2, 384, "a" * 16, "1" * 16)
SPARSE = replace(DENSE, weights="2" * 16)
OTHER = replace(DENSE, tokenizer="b" * 16)

# Numbers so small that their products leave the range of fp32 would say nothing about the algebra.
NUMBERS = st.floats(-1000, 1000, width=32).map(lambda number: number if abs(number) > 1e-6 else 0.0)
SHAPE = (3, 2)
ROWS = st.lists(NUMBERS, min_size=6, max_size=6).map(lambda numbers: torch.tensor(numbers).reshape(SHAPE))
WEIGHTS = st.floats(-8, 8, width=32).map(lambda weight: weight if abs(weight) > 1e-3 else 0.0)
EPSILON = torch.finfo(torch.float32).eps


def vector(rows: Tensor, name: str = "v", fingerprint: Fingerprint | None = None) -> PromptVector:
    return PromptVector(name, rows, fingerprint)


def soft(rows: Tensor, name: str = "p", **provenance: Any) -> Prompt:
    return Prompt(name, embedding=rows, provenance=provenance)


def rows_of(prompt: Prompt) -> Tensor:
    assert prompt.embedding is not None
    return prompt.embedding


def close(found: Tensor, expected: Tensor, *operands: Tensor) -> bool:
    """Equal up to one rounding for each operand, of the size of the largest number there is on the way."""
    largest = sum(float(operand.abs().max()) for operand in operands)
    return bool((found - expected).abs().max() <= len(operands) * EPSILON * largest)


@given(tuned=ROWS, init=ROWS)
def test_init_plus_vector_is_the_tuned_prompt(tuned: Tensor, init: Tensor) -> None:
    between = PromptVector.between(soft(tuned), soft(init))
    assert close(rows_of(between.apply(soft(init))), tuned, tuned, init)


@given(a=ROWS, b=ROWS)
def test_what_is_added_can_be_taken_away(a: Tensor, b: Tensor) -> None:
    assert close((vector(a) + vector(b) - vector(b)).delta, a, a, b)


@given(a=ROWS, init=ROWS)
def test_weight_zero_gives_the_init(a: Tensor, init: Tensor) -> None:
    assert torch.equal(rows_of(vector(a).apply(soft(init), weight=0)), init)


@given(a=ROWS, b=ROWS)
def test_sums_have_no_order_and_differences_are_sums(a: Tensor, b: Tensor) -> None:
    one, other = vector(a), vector(b)
    assert torch.equal((one + other).delta, (other + one).delta)
    assert torch.equal((one - other).delta, (one + -other).delta)
    assert torch.equal((-(one - other)).delta, (other - one).delta)
    back = -one
    assert torch.equal((-back).delta, a)


@given(a=ROWS, b=ROWS, c=ROWS)
def test_sums_can_be_grouped(a: Tensor, b: Tensor, c: Tensor) -> None:
    one, two, three = vector(a), vector(b), vector(c)
    assert close(((one + two) + three).delta, (one + (two + three)).delta, a, b, c)


@given(a=ROWS, b=ROWS, weight=WEIGHTS)
def test_scaling(a: Tensor, b: Tensor, weight: float) -> None:
    one, other = vector(a), vector(b)
    assert torch.equal((1 * one).delta, a)
    assert torch.equal((-1 * one).delta, (-one).delta)
    assert torch.equal((2 * one).delta, (one + one).delta)
    assert torch.equal((weight * one).delta, (one * weight).delta)
    assert close((weight * (one + other)).delta, (weight * one + weight * other).delta, weight * a, weight * b)


@given(a=ROWS, init=ROWS, weight=WEIGHTS)
def test_a_weight_is_a_scaled_vector(a: Tensor, init: Tensor, weight: float) -> None:
    scaled = weight * vector(a)
    assert torch.equal(rows_of(vector(a).apply(soft(init), weight)), rows_of(scaled.apply(soft(init))))


def test_a_vector_is_transplanted() -> None:
    init, tuned, other = torch.zeros(SHAPE), torch.ones(SHAPE), torch.full(SHAPE, 5.0)
    made = PromptVector.between(soft(tuned), soft(init)).apply(soft(other), weight=0.5)
    assert torch.equal(rows_of(made), torch.full(SHAPE, 5.5))
    assert made.kind == "soft"
    assert not is_vector(made)


def test_names_and_provenance_say_what_was_done() -> None:
    a, b = vector(torch.ones(SHAPE), "a"), vector(torch.ones(SHAPE), "b")
    between = PromptVector.between(soft(a.delta, "tuned"), soft(b.delta, "init"))
    assert (between.name, between.provenance) == ("tuned - init", {"of": "tuned", "minus": "init", "vector": True})
    assert (a + b).provenance == {"of": "a", "plus": "b", "vector": True}
    assert (a - b).provenance == {"of": "a", "minus": "b", "vector": True}
    assert (-a).provenance == {"minus": "a", "vector": True}
    assert (0.5 * a).provenance == {"of": "a", "times": 0.5, "vector": True}
    assert [(a - (b + a)).name, (-(a + b)).name, (2 * (a - b)).name] == ["a - (b + a)", "-(a + b)", "2 (a - b)"]
    made = (a + b).apply(soft(a.delta, "init"), 0.25)
    assert made.name == "init + 0.25 (a + b)"
    assert made.provenance == {"init": "init", "plus": "a + b", "times": 0.25}
    assert a.apply(soft(a.delta, "init")).name == "init + a"


def test_a_bank_keeps_vectors(tmp_path: Path) -> None:
    made = PromptVector("sums", torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)), DENSE, {"seed": 1})
    loaded = PromptBank.load(PromptBank([made.to_prompt()], DENSE).save(tmp_path))
    read = PromptVector.from_prompt(loaded["sums"], loaded.fingerprint)
    assert torch.equal(read.delta, made.delta)
    assert (read.name, read.fingerprint, read.provenance) == (made.name, DENSE, {"seed": 1, "vector": True})


def test_numbers_are_an_own_detached_copy_in_fp32() -> None:
    numbers = torch.ones(SHAPE, dtype=torch.float64, requires_grad=True)
    made = vector(numbers)
    with torch.no_grad():
        numbers.zero_()
    assert made.delta.dtype is torch.float32
    assert not made.delta.requires_grad
    assert torch.equal(made.delta, torch.ones(SHAPE))


class TestModels:
    def test_one_model_stays(self) -> None:
        a, b, any_model = (vector(torch.ones(SHAPE), fingerprint=model) for model in (DENSE, DENSE, None))
        assert [made.fingerprint for made in (a + b, a - b, -a, 2 * a, any_model + a)] == [DENSE] * 5
        assert (any_model - any_model).fingerprint is None

    @pytest.mark.parametrize("other", [SPARSE, OTHER])
    def test_two_models_are_refused_and_named(self, other: Fingerprint) -> None:
        a, b = vector(torch.ones(SHAPE), "a", DENSE), vector(torch.ones(SHAPE), "b", other)
        for combine in (lambda: a + b, lambda: a - b):
            with pytest.raises(BankError) as caught:
                combine()
            assert DENSE.describe() in str(caught.value)
            assert other.describe() in str(caught.value)


@pytest.mark.parametrize("other", [(2, 2), (3, 4)])
def test_different_shapes_are_refused_and_named(other: tuple[int, int]) -> None:
    a, b = vector(torch.ones(SHAPE), "a"), vector(torch.ones(other), "b")
    said = rf"'a' has 3 tokens of width 2 and 'b' has {other[0]} tokens of width {other[1]}"
    operations: list[Callable[[], object]] = [
        lambda: a + b,
        lambda: a - b,
        lambda: a.similarity(b),
        lambda: b.apply(soft(a.delta, "a")),
        lambda: PromptVector.between(soft(a.delta, "a"), soft(b.delta, "b")),
    ]
    for operation in operations:
        with pytest.raises(BankError, match=said):
            operation()


def test_texts_have_no_vectors() -> None:
    text, rows = Prompt("brief", text="Be brief. "), torch.ones(SHAPE)
    with pytest.raises(BankError, match="'brief' is a text"):
        PromptVector.between(text, soft(rows))
    with pytest.raises(BankError, match="'brief' is a text"):
        PromptVector.between(soft(rows), text)
    with pytest.raises(BankError, match="'brief' is a text"):
        vector(rows).apply(text)
    with pytest.raises(BankError, match="'brief' is a prompt and not a vector"):
        PromptVector.from_prompt(text)


def test_prompts_and_vectors_are_not_taken_for_each_other() -> None:
    stored, prompt = vector(torch.ones(SHAPE), "v").to_prompt(), soft(torch.ones(SHAPE), "p")
    assert (is_vector(stored), is_vector(prompt)) == (True, False)
    with pytest.raises(BankError, match="'p' is a prompt and not a vector"):
        PromptVector.from_prompt(prompt)
    with pytest.raises(BankError, match="'v' is a vector, where a prompt"):
        PromptVector.between(stored, prompt)
    with pytest.raises(BankError, match="'v' is a vector, where a prompt"):
        vector(torch.ones(SHAPE)).apply(stored)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_weight_is_finite(weight: float) -> None:
    a = vector(torch.ones(SHAPE))
    for operation in (lambda: weight * a, lambda: a.apply(soft(a.delta), weight)):
        with pytest.raises(BankError, match="finite number, not"):
            operation()


@pytest.mark.parametrize("weight", [1e30, 1e300])
def test_overflow_is_an_error_that_says_so(weight: float) -> None:
    huge = vector(torch.full(SHAPE, 3e38), "huge")
    operations: list[Callable[[], object]] = [
        lambda: huge + huge,
        lambda: weight * huge,
        lambda: huge.apply(soft(huge.delta), weight),
        lambda: PromptVector.between(soft(huge.delta), soft(-huge.delta)),
    ]
    for operation in operations:
        with pytest.raises(BankError, match="do not fit into fp32"):
            operation()


def test_numbers_have_to_be_a_finite_matrix() -> None:
    with pytest.raises(BankError, match="NaN or infinity"):
        vector(torch.tensor([[math.nan]]))
    with pytest.raises(BankError, match="shape"):
        vector(torch.ones(3))


class TestSimilarity:
    def test_means_over_tokens_are_compared(self) -> None:
        a = vector(torch.tensor([[4.0, 2.0], [2.0, -2.0]]), "a")  # mean (3, 0)
        b = vector(torch.tensor([[0.0, 8.0], [6.0, 0.0]]), "b")  # mean (3, 4)
        assert a.similarity(b) == pytest.approx(0.6, abs=1e-12)
        assert similarities([a, b, -a]).tolist() == [
            pytest.approx(row, abs=1e-12) for row in ([1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1])
        ]

    @given(a=ROWS, b=ROWS, weight=st.sampled_from([0.125, 2, 1024]))
    def test_a_cosine(self, a: Tensor, b: Tensor, weight: float) -> None:
        assume(all(rows.double().mean(dim=0).norm() > 0 for rows in (a, b)))
        one, other = vector(a), vector(b)
        table = similarities([one, other, -one])
        assert torch.allclose(table, table.T, atol=1e-12)
        assert torch.equal(table.diagonal(), torch.ones(3, dtype=torch.float64))
        assert float(table.abs().max()) <= 1
        assert one.similarity(other) == pytest.approx(float(table[0, 1]), abs=1e-12)
        assert float(table[2, 1]) == pytest.approx(-float(table[0, 1]), abs=1e-12)
        assert (weight * one).similarity(other) == pytest.approx(one.similarity(other), abs=1e-9)

    def test_weights_may_differ_and_nothing_else(self) -> None:
        a, b, c = (vector(torch.ones(SHAPE), fingerprint=model) for model in (DENSE, SPARSE, OTHER))
        assert a.similarity(b) == pytest.approx(1)
        with pytest.raises(BankError, match="tokenizer"):
            similarities([a, b, c])

    def test_a_mean_of_zero_has_no_direction(self) -> None:
        still = vector(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), "still")
        with pytest.raises(BankError, match="'still' is zero"):
            similarities([still])

    def test_nothing_to_compare(self) -> None:
        with pytest.raises(BankError, match="no vectors"):
            similarities([])
