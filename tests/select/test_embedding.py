from __future__ import annotations

import sys

import pytest
import torch

from idp.bank import Prompt, PromptBank, SelectorState, text_bank
from idp.errors import MissingExtraError, ModelError, SelectorError
from idp.select import Calibration, EmbeddingSelector, sentences
from idp.select.embedding import description_of

FISH = ["Sharks swim in the deep sea.", "A whale eats plankton in the ocean.", "The tuna is a fish that swims fast."]
LAW = ["The judge read the verdict in court.", "A lawyer wrote the contract.", "The jury found him guilty of theft."]
SUMS = ["Two and two are four.", "Divide twelve by three.", "The square root of nine is three."]
ASKED = ["Which fish lives in the sea?", "Who defends someone in court?", "How much is seven times eight?"]
SOFT = PromptBank([Prompt(name, embedding=torch.ones(2, 32)) for name in ("a", "b")])


@pytest.fixture
def lm(tiny_lm):
    return tiny_lm()


@pytest.fixture
def ids(lm):
    return lambda texts: lm.tokenizer(texts)["input_ids"]


@pytest.fixture
def calibration(ids):
    """Fish belong to the first prompt, law to the second, sums to none."""
    owners = torch.arange(3).repeat_interleave(3)  # (9,)
    losses = torch.full((9, 3), 1.0)
    losses[torch.arange(9), owners] = torch.linspace(0.1, 0.9, 9)
    return Calibration(ids([*FISH, *LAW, *SUMS]), losses)


@pytest.fixture
def make(sentence_folder):
    return lambda **options: EmbeddingSelector(**{"model": sentence_folder, **options})


def _chosen(selector, inputs):
    return [choice.index for choice in selector.select_batch(inputs)]


@pytest.mark.parametrize("take", ["nearest", "mean"])
def test_the_nearest_examples_win_and_no_prompt_has_some_too(make, lm, ids, calibration, take):
    selector = make(take=take).fit(SOFT, lm, calibration)
    assert _chosen(selector, ids(ASKED)) == [0, 1, -1]
    assert selector.cost.forwards == 0 and selector.cost.labels
    assert selector.cost.parameters == (9 if take == "nearest" else 3) * 385
    hinted = Calibration(calibration.inputs, hints=[0, 0, 0, 1, 1, 1, -1, -1, -1])
    assert _chosen(make(take=take).fit(SOFT, lm, hinted), ids(ASKED)) == [0, 1, -1]


def test_scores_are_cosines(make, lm, ids, calibration):
    (choice,) = make().fit(SOFT, lm, calibration).select_batch(ids(FISH[1:2]))
    assert choice.score == pytest.approx(1, abs=1e-5)
    encoder = sentences.SentenceEncoder.load(make().model)
    rows = torch.nn.functional.normalize(encoder.encode([FISH[1], *LAW]), dim=1)
    assert choice.scores[1] == pytest.approx(float((rows[0] @ rows[1:].T).max()), abs=1e-5)


def test_few_examples_are_those_that_gain_most(make, lm, ids, calibration):
    selector = make(examples=1).fit(SOFT, lm, calibration)
    kept = ids([FISH[0], LAW[0], SUMS[0]])  # with the lowest losses of each
    assert [choice.score for choice in selector.select_batch(kept)] == pytest.approx([1, 1, 1], abs=1e-5)
    assert selector.select(ids(FISH[2:])[0]).score < 0.99


def test_an_arm_without_examples_is_never_chosen(make, lm, ids, calibration):
    few = calibration.rows(range(6))
    choices = make().fit(SOFT, lm, few).select_batch([*ids(ASKED), []])
    assert all(choice.scores[-1] == -torch.inf and choice.index != -1 for choice in choices)
    low, high = (make(threshold=threshold).fit(SOFT, lm, few) for threshold in (-1, 1))
    assert _chosen(low, ids(ASKED)) == [choice.index for choice in choices[:3]]
    assert _chosen(high, ids(ASKED)) == [-1, -1, -1]


def test_descriptions_need_no_calibration(make, lm, ids):
    bank = text_bank()
    selector = make().fit(bank, lm)
    chosen = [bank[index].name for index in _chosen(selector, ids(["atlas: the capital and the rivers of a country"]))]
    assert chosen == ["domain-geography"]
    assert selector.needs == "nothing" and not selector.cost.labels
    assert all(choice.scores[-1] == -torch.inf for choice in selector.select_batch(ids(ASKED)))
    unsure = make(threshold=0.9).fit(bank, lm)
    assert _chosen(unsure, ids(ASKED)) == [-1, -1, -1]
    assert unsure.select(ids(ASKED)[0]).score == 0.9


def test_a_description_comes_before_a_text():
    soft = torch.ones(1, 4)
    assert description_of(Prompt("a", text="Be brief.\n")) == "Be brief."
    assert description_of(Prompt("a", text="Be brief.", provenance={"description": "short answers"})) == "short answers"
    assert description_of(Prompt("a", embedding=soft, provenance={"text": "Once"})) == "Once"
    assert description_of(Prompt("a", embedding=soft, provenance={"seed": 0})) == ""


def test_what_is_needed_depends_on_the_bank(make, lm, calibration):
    described = PromptBank([Prompt("a", text="Fish. ")])
    for options, of_texts, of_soft in [
        ({}, "nothing", "losses"),
        ({"by": "examples"}, "losses", "losses"),
        ({"by": "description"}, "nothing", "nothing"),
    ]:
        assert make(**options).needs_for(described) == of_texts
        assert make(**options).needs_for(SOFT) == of_soft
    assert make().needs == "losses" and make(by="description").needs == "nothing"
    with pytest.raises(SelectorError, match="has to be fitted on calibration losses"):
        make().fit(SOFT, lm)
    with pytest.raises(SelectorError, match="prompt 'a' has neither a text nor a description"):
        make(by="description").fit(SOFT, lm)
    with pytest.raises(SelectorError, match="learns from losses"):
        make().fit(SOFT, lm, Calibration(calibration.inputs))


def test_state_can_be_kept(make, lm, ids, calibration, tmp_path):
    fitted = make(threshold=0.3, examples=2).fit(SOFT, lm, calibration)
    state = SelectorState.load(fitted.state().save(tmp_path / "state.safetensors"))
    again = EmbeddingSelector().load_state(state, SOFT, lm)
    inputs = [*ids(ASKED), []]
    assert again.select_batch(inputs) == fitted.select_batch(inputs)
    assert (again.by, again.threshold, again.examples) == ("examples", 0.3, 2)
    assert again.state().config == fitted.state().config


def test_another_sentence_model_and_broken_states_are_refused(make, lm, calibration, tmp_path):
    state = make().fit(SOFT, lm, calibration).state()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SelectorError, match=f"made with the sentence model .*, and {tmp_path} is another one"):
        make(model=str(tmp_path)).load_state(state, SOFT, lm)
    arms = state.tensors["arms"]
    for broken in (
        {"arms": arms[1:]},
        {"arms": arms + 1},
        {"arms": arms.double()},
        {"keys": state.tensors["keys"][:, 1:]},
    ):
        with pytest.raises(SelectorError, match="not a state of selector 'embedding'"):
            make().load_state(SelectorState(state.config, {**state.tensors, **broken}), SOFT, lm)
    with pytest.raises(SelectorError, match="not a state of selector 'embedding'"):
        make().load_state(SelectorState({**state.config, "model": None, "digest": None}, {}), SOFT, lm)


def test_bad_options():
    for options, message in [
        ({"by": "name"}, "has no by 'name'"),
        ({"take": "median"}, "has no take 'median'"),
        ({"examples": 0}, "1 or more examples"),
        ({"threshold": 1.5}, "a cosine, -1 to 1"),
        ({"threshold": float("nan")}, "a cosine, -1 to 1"),
    ]:
        with pytest.raises(SelectorError, match=message):
            EmbeddingSelector(**options)
    with pytest.raises(SelectorError, match="was not fitted"):
        EmbeddingSelector().select([5])
    with pytest.raises(SelectorError, match="was not fitted"):
        EmbeddingSelector().state()


def test_what_is_not_there_is_found_before_anything_is_run(tiny_lm, monkeypatch):
    with pytest.raises(ModelError, match="cannot be reached for org/never-cached"):
        EmbeddingSelector(model="org/never-cached").require(tiny_lm())
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError):
        EmbeddingSelector(model="org/never-cached").require(tiny_lm())
