from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.select.probabilities import OF_A_PROMPT, cbm, certainty, entropy, global_entropy

P = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]]], dtype=torch.float64)  # (T, X, Y)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("le", (0.4127, 0.6419)),
        ("ge-mean", (0.6881, 0.6474)),
        ("ge", (0.6931, 0.0)),
        ("mi", (0.2754, 0.0055)),
        ("mi-g", (0.2804, -0.6419)),
        ("zlp", (1.0, 0.5)),
        ("zpm", (1.0, 0.5)),
        ("mdl", (-0.4127, -0.6419)),
    ],
)
def test_scores_of_a_prompt_worked_out_by_hand(score, expected):
    torch.testing.assert_close(OF_A_PROMPT[score](P), torch.tensor(expected).double(), atol=6e-5, rtol=0)


def test_calibration_by_marginalisation_worked_out_by_hand():
    ratios = P / P.mean(dim=1, keepdim=True)
    torch.testing.assert_close(
        ratios[0], torch.tensor([[1.6364, 0.2222], [0.3636, 1.7778]]).double(), atol=6e-5, rtol=0
    )
    torch.testing.assert_close(cbm(P)[0, 0], torch.tensor([0.8044, 0.1956]).double(), atol=6e-5, rtol=0)
    assert cbm(P)[1, 0].argmax() == 1  # it flips what the second prompt answers to the first input
    torch.testing.assert_close(cbm(P, softmax=False), ratios / ratios.sum(-1, keepdim=True))


@st.composite
def _probabilities(draw):
    shape = [draw(st.integers(1, 4)) for _ in range(2)] + [draw(st.integers(2, 5))]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


@given(_probabilities())
def test_mutual_information_is_what_the_mean_hides(p):
    assert (OF_A_PROMPT["mi"](p) >= -1e-6).all()  # entropy is concave
    torch.testing.assert_close(OF_A_PROMPT["mi"](p), global_entropy(p) - entropy(p).mean(dim=1))
    torch.testing.assert_close(certainty(p).mean(dim=1), -OF_A_PROMPT["le"](p))


@given(_probabilities())
def test_ratios_are_one_on_average_and_a_prompt_alone_agrees_with_itself(p):
    ratios = p / p.mean(dim=1, keepdim=True)
    torch.testing.assert_close(ratios.mean(dim=1), torch.ones_like(ratios[:, 0]))
    for score in ("zlp", "zpm", "zmv"):
        assert OF_A_PROMPT[score](p[:1]).item() == 1


def test_an_answer_that_no_input_gets_is_not_divided_by_zero():
    p = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    assert torch.isfinite(cbm(p)).all()
    assert torch.isfinite(cbm(p, softmax=False)).all()
