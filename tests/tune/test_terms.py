from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.tune.terms import TERMS, Reading, parse_terms, weigh, written


def reading(**changes):
    """A question of three options, the second of which is right, and one with a single option."""
    likelihoods = torch.tensor([[-1.0, -2.0, -3.0], [-1.5, -torch.inf, -torch.inf]])
    fields = {
        "likelihoods": likelihoods,
        "right": torch.tensor([-2.0, -1.5]),
        "single": torch.tensor([False, True]),
        "tokens": torch.ones(2),
        "scale": torch.ones(2),
    }
    return Reading(**(fields | changes))


TAUGHT = {
    "teacher": torch.tensor([[-3.0, -0.5, -4.0], [-0.2, -torch.inf, -torch.inf]]),
    "divergences": torch.tensor([[0.1, 0.4, 0.2], [0.3, 0.0, 0.0]]),
}


def test_by_hand():
    softmax = torch.tensor([-1.0, -2.0, -3.0]).softmax(0)[1]
    assert weigh({"answer": 1.0}, reading()).tolist() == [2.0, 1.5]
    assert weigh({"choice": 1.0}, reading())[0] == pytest.approx(float(-softmax.log()))
    assert weigh({"error": 1.0}, reading()).tolist() == pytest.approx([float(1 - softmax), 1 - 2.718281828**-1.5])
    assert weigh({"answer": 0.5, "choice": 2.0}, reading())[1] == pytest.approx(0.75)


def test_a_choice_alone_counts_the_answer_where_there_is_none():
    assert weigh({"choice": 2.0}, reading())[1] == pytest.approx(3.0)


def test_distillation_by_hand():
    read = reading(**TAUGHT)
    weights = torch.tensor([-3.0, -0.5, -4.0]).softmax(0)
    wanted = float((weights * torch.tensor([0.1, 0.4, 0.2])).sum())
    assert weigh({"distill": 1.0}, read).tolist() == pytest.approx([wanted, 0.3])
    student = torch.tensor([-1.0, -2.0, -3.0]).log_softmax(0)
    divergence = float((weights * (weights.log() - student)).sum())
    assert weigh({"distill": 1.0, "distill-choice": 1.0}, read).tolist() == pytest.approx([wanted + divergence, 0.3])


def test_missing_options_give_no_nan_in_gradients():
    likelihoods = torch.tensor([[-1.0, -2.0], [-1.5, -torch.inf]], requires_grad=True)
    taught = {name: value[:, :2] for name, value in TAUGHT.items()}
    read = reading(likelihoods=likelihoods, right=likelihoods[:, 0], single=torch.tensor([False, False]), **taught)
    weigh(dict.fromkeys(TERMS, 1.0), read).sum().backward()
    assert torch.isfinite(likelihoods.grad).all()


@given(
    st.dictionaries(
        st.sampled_from(["answer", "choice", "error", "distill"]), st.sampled_from([0.25, 1.0, 3.0]), min_size=1
    )
)
def test_what_is_written_is_read_back(terms):
    assert parse_terms(written(terms)) == terms


def test_spaces_do_not_matter():
    assert parse_terms(" answer + 0.5 * choice ") == {"answer": 1.0, "choice": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown objective ''"),
        ("answr", "Did you mean 'answer'"),
        ("answer+answer", "twice"),
        ("0*answer", "weight above 0"),
        ("x*answer", "weight above 0"),
        ("nan*answer", "weight above 0"),
        ("next-token+choice", "running text"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(TaskError, match=message):
        parse_terms(text)
