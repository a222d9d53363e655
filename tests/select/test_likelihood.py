from __future__ import annotations

import pytest
import torch

from idp.errors import SelectorError
from idp.select import Calibration, LikelihoodSelector
from idp.select.probabilities import OF_A_PROMPT, cbm, entropy

INPUTS = [[5, 6, 7], [100], [200, 201, 9, 9, 9], [300, 4]]
OPTIONS = [[(7, 8), (9,)], [(3,), (4, 5, 6)], (), [(11,), (12,), (13,)]]


@pytest.fixture
def prompted(tiny_lm, mixed_bank):
    lm = tiny_lm()
    return lm, mixed_bank(lm)


@pytest.fixture
def next_logs(plain_logits):
    """Log-probabilities `(T, V)` of what follows each position, under every prompt and under none, without tricks."""

    def run(lm, bank, ids):
        return [plain_logits(lm, prompt, ids).double().log_softmax(-1) for prompt in [*bank, None]]

    return run


def _scores(selector, inputs, options=None):
    chosen = selector.select_batch(inputs) if options is None else selector.select_among(inputs, options)
    assert all(each.score == max(each.scores) for each in chosen)
    return torch.tensor([each.scores for each in chosen], dtype=torch.float64)


def test_mdl_is_the_entropy_of_the_first_token(prompted, next_logs):
    found = _scores(LikelihoodSelector().fit(prompted[1], prompted[0]), INPUTS)
    for row, ids in zip(found, INPUTS, strict=True):
        expected = torch.stack([-entropy(logs[-1].exp()) for logs in next_logs(*prompted, ids)])
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)


def test_with_options_it_is_that_of_the_options_by_the_mean_of_their_tokens(prompted, next_logs):
    found = _scores(LikelihoodSelector().fit(prompted[1], prompted[0]), INPUTS, OPTIONS)
    without = _scores(LikelihoodSelector().fit(prompted[1], prompted[0]), INPUTS)
    torch.testing.assert_close(found[2], without[2], atol=1e-5, rtol=1e-5)  # it has no options; fp32 in other batches
    for row, ids, options in [(found[0], INPUTS[0], OPTIONS[0]), (found[3], INPUTS[3], OPTIONS[3])]:
        means = []
        for option in options:
            logs = next_logs(*prompted, [*ids, *option])
            means.append([one[len(ids) - 1 : -1].gather(-1, torch.tensor(option)[:, None]).mean() for one in logs])
        expected = -entropy(torch.tensor(means, dtype=torch.float64).T.softmax(-1))
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)


def test_ppl_judges_the_input_itself(prompted, next_logs):
    selector = LikelihoodSelector(score="ppl").fit(prompted[1], prompted[0])
    found = _scores(selector, INPUTS)
    assert not selector.answers
    torch.testing.assert_close(found, _scores(selector, INPUTS, OPTIONS))
    for row, ids in zip(found, INPUTS, strict=True):
        logs = next_logs(*prompted, ids)
        seen = [one[:-1].gather(-1, torch.tensor(ids[1:])[:, None]).mean() if ids[1:] else 0 for one in logs]
        torch.testing.assert_close(row, torch.tensor(seen).double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("score", ["mdl", "mi-l", "mi-gl"])
@pytest.mark.parametrize("calibrate", ["none", "cbm"])
def test_averages_are_over_the_calibration(prompted, next_logs, score, calibrate):
    selector = LikelihoodSelector(score=score, calibrate=calibrate).fit(*prompted[::-1], Calibration(INPUTS))
    p = torch.stack([torch.stack([logs[-1] for logs in next_logs(*prompted, ids)]) for ids in INPUTS], 1).exp()
    p = cbm(p) if calibrate == "cbm" else p  # (T, X, V)
    bonus = {"mdl": 0.0, "mi-l": OF_A_PROMPT["ge-mean"](p), "mi-gl": OF_A_PROMPT["ge"](p)}[score]
    torch.testing.assert_close(_scores(selector, INPUTS).T, (bonus - entropy(p).T).T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("score", sorted(OF_A_PROMPT))
def test_for_a_task_one_prompt_is_chosen_once(prompted, score):
    selector = LikelihoodSelector(score=score, per="task").fit(*prompted[::-1], Calibration(INPUTS, options=OPTIONS))
    chosen = selector.select_batch(INPUTS)
    assert len({each.index for each in chosen}) == 1
    assert selector.forwards == 0 and not selector.answers
    assert selector.cost.parameters == len(prompted[1]) + 1


def test_a_number_of_options_that_was_never_seen_is_judged_by_the_first_token(prompted):
    calibration = Calibration(INPUTS[:2], options=OPTIONS[:2])
    selector = LikelihoodSelector(score="mi-l").fit(*prompted[::-1], calibration)
    torch.testing.assert_close(_scores(selector, [INPUTS[3]], [OPTIONS[3]]), _scores(selector, [INPUTS[3]]))
    assert not torch.equal(_scores(selector, [INPUTS[0]], [OPTIONS[0]]), _scores(selector, [INPUTS[0]]))


@pytest.mark.parametrize("options", [{}, {"score": "mi-gl", "calibrate": "cbm"}, {"score": "zlp", "per": "task"}])
def test_state_can_be_kept(prompted, options):
    lm, bank = prompted
    fitted = LikelihoodSelector(**options).fit(bank, lm, Calibration(INPUTS, options=OPTIONS))
    again = LikelihoodSelector().load_state(fitted.state(), bank, lm)
    assert again.select_among(INPUTS, OPTIONS) == fitted.select_among(INPUTS, OPTIONS)
    assert fitted.select_batch([]) == []


def test_cutting_into_parts_changes_nothing(prompted, monkeypatch):
    selector = LikelihoodSelector().fit(*prompted[::-1])
    whole = _scores(selector, INPUTS, OPTIONS)
    monkeypatch.setattr("idp.select.answers._ENTRIES", 1)
    torch.testing.assert_close(_scores(selector, INPUTS, OPTIONS), whole, atol=1e-5, rtol=1e-5)
    LikelihoodSelector(score="mi-l").fit(*prompted[::-1], Calibration(INPUTS))  # of one input, which fits


def test_what_it_costs(prompted):
    cost = LikelihoodSelector().fit(*prompted[::-1]).cost
    assert (cost.forwards, cost.parameters, cost.labels, cost.answers) == (len(prompted[1]) + 1, 0, False, True)


def test_bad_options_and_states(prompted):
    lm, bank = prompted
    for wrong in ({"score": "mi"}, {"per": "word"}, {"calibrate": "pmi"}, {"score": "ppl", "per": "task"}):
        with pytest.raises(SelectorError, match="selector 'likelihood' has no"):
            LikelihoodSelector(**wrong)
    with pytest.raises(SelectorError, match="has to be fitted on calibration inputs"):
        LikelihoodSelector(score="mi-l").fit(bank, lm)
    with pytest.raises(SelectorError, match="was not fitted"):
        LikelihoodSelector().select([5])
    state = LikelihoodSelector(score="mi-l").fit(bank, lm, Calibration(INPUTS)).state()
    cut = type(state)(state.config, {name: tensor[:2] for name, tensor in state.tensors.items()})
    for broken in (cut, type(state)(state.config, {})):
        with pytest.raises(SelectorError, match="not a state of selector 'likelihood'"):
            LikelihoodSelector().load_state(broken, bank, lm)
