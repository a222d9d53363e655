from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import BankError, IdpError, ModelError, TaskError
from idp.model.loaded import LanguageModel
from idp.observer import Silent
from idp.run.store import PrefixStore
from idp.select.registry import get_selector
from idp.tune.build import build
from idp.tune.config import BuildConfig
from idp.tune.examples import Example
from idp.tune.losses import example_losses
from idp.tune.sources import Data

SMALL = {"steps": 4, "part_steps": 4, "parts": 3, "lengths": (3,), "sample": 20, "batch_size": 4, "lr": 0.05}


class Notes(Silent):
    """An observer that remembers its notes."""

    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


@pytest.fixture
def built(tiny_lm, some_examples, tmp_path):
    """Build on random data; fields of the config may be overridden."""
    lm = tiny_lm()
    data = Data(some_examples(40), some_examples(240, seed=1), {"sources": {"random": 100}})

    def make(teacher=None, folder="work", **settings):
        config = BuildConfig(**(SMALL | settings))
        return build(lm, data, config, tmp_path / folder, Silent(), teacher)

    return make


def test_parts_give_a_bank_with_fitted_selectors(built, tiny_lm, some_examples):
    result = built()
    bank = result.bank
    assert bank.names[0] == "static"
    assert set(bank.names[1:]) <= {"part-0", "part-1", "part-2"}
    assert bank.fingerprint == tiny_lm().fingerprint
    assert bank.provenance["method"] == "parts"
    router = get_selector("router").load_state(bank.selectors["router"], bank, tiny_lm())
    assert len(router.select_batch([example.context for example in some_examples(3)])) == 3
    means = result.means()
    assert {"none", "static", "router", "prompt of its part"} <= set(means)
    assert means["oracle (a bound)"] <= min(means.values())
    assert set(result.curves) == {"static", *(f"round-{n}/part-{p}" for n in (1, 2) for p in range(3))}


def test_every_prompt_says_what_it_was_started_from(built):
    result = built()
    assert [prompt.name for prompt in result.starts] == ["frequent-3"]
    inits = [prompt.provenance["init"] for prompt in result.bank]
    assert inits == ["frequent-3", *["static"] * (len(result.bank) - 1)]


def test_several_lengths_are_mixed(built):
    bank = built(lengths=(2, 5)).bank
    assert bank.names[:2] == ("static-2", "static-5")
    assert {len(prompt.embedding) for prompt in bank} == {2, 5}


def test_static_alone(built):
    result = built(method="static")
    assert result.bank.names == ("static",)
    assert result.parts is None


def test_the_teacher_is_the_default_where_there_is_one(built, tiny_lm, tmp_path):
    result = built(teacher=tiny_lm(seed=1), method="static")
    assert result.bank.provenance["objective"] == "distill+distill-choice"
    assert list((tmp_path / "work" / "teacher").iterdir())


@pytest.mark.parametrize("objective", ["next-token", "next-token+distill", "error", "distill"])
def test_other_objectives(built, tiny_lm, objective):
    result = built(teacher=tiny_lm(seed=1), method="static", objective=objective)
    assert result.bank.provenance["objective"] == objective


def test_a_mixture_has_its_router(built, tiny_lm):
    result = built(method="smop", lengths=(2,))
    bank = result.bank
    assert bank.names == ("smop-0", "smop-1", "smop-2")
    assert "router" in bank.selectors
    assert "smop" in bank.selectors
    assert result.starts == []
    assert {"smop", "router", "oracle (a bound)"} <= set(result.means())
    smop = get_selector("smop").load_state(bank.selectors["smop"], bank, tiny_lm())
    chosen = [choice.index for choice in smop.select_batch(result.calibration.inputs)]
    expected = result.calibration.losses[torch.arange(len(chosen)), torch.tensor(chosen)].mean()
    assert result.means()["smop"] == pytest.approx(float(expected))
    assert bank.provenance["best_step"] <= 4


def test_texts_are_chosen_from_a_pool(tiny_lm, tmp_path):
    """Answers that are what a text makes likely: the text that does is chosen, and the one that does harm is not."""
    lm, rng = tiny_lm(), random.Random(0)
    pool = PromptBank([Prompt("one", text="Answer with a fact: "), Prompt("two", text="The river ")])
    pool.save(tmp_path / "pool")
    contexts = [(1, *(rng.randrange(3, 384) for _ in range(6))) for _ in range(300)]
    options = [Example(context, ((40,), (50,)), 0, "easy") for context in contexts]
    losses = example_losses(PrefixStore(lm, pool), options)  # (N, 3)
    examples = [  # what the first text makes likelier than no prompt does is right
        replace(example, answer=int(row[0] > row[2])) for example, row in zip(options, losses.tolist(), strict=True)
    ]
    config = BuildConfig(method="texts", pool=str(tmp_path / "pool"), sample=200)
    result = build(lm, Data(examples[:200], examples[200:], {}), config, tmp_path / "work", Silent())
    assert result.bank.names[0] == "one"
    assert "objective" not in result.bank.provenance
    assert result.bank.provenance["pool"] == 2
    assert result.means()["static"] < result.means()["none"]
    again = build(lm, Data(examples[:200], examples[200:], {}), config, tmp_path / "work", Silent())
    assert again.bank.names == result.bank.names


def test_same_seed_same_bytes_whatever_was_kept(built, tmp_path):
    banks = [built(folder=folder).bank.save(tmp_path / f"bank-{n}") for n, folder in enumerate(["a", "b", "a"])]
    first, *others = [{path.name: path.read_bytes() for path in bank.iterdir()} for bank in banks]
    assert all(first == other for other in others)
    another = built(seed=1, folder="c").bank
    assert not torch.equal(PromptBank.load(banks[0])[0].embedding, another[0].embedding)


def test_activation_checkpointing_gives_the_same(built):
    prompts = [built(method="static", checkpointing=flag, folder=str(flag)).bank[0] for flag in (False, True)]
    torch.testing.assert_close(*(prompt.embedding for prompt in prompts), atol=1e-3, rtol=1e-3)


def test_gradients_of_held_out_examples_are_features_where_a_teacher_is_asked_too(built, tiny_lm):
    assert built(teacher=tiny_lm(seed=1), features=("gradient",)).parts is not None


@pytest.fixture
def text_only(tiny_lm, tmp_path):
    """Build from running text alone."""

    def make(begin, **settings):
        rng = random.Random(0)
        rows = [
            Example((begin or rng.randrange(3, 99),), (tuple(rng.randrange(3, 384) for _ in range(11)),), 0, "text")
            for _ in range(240)
        ]
        config = BuildConfig(**(SMALL | settings))
        told = Notes()
        return build(tiny_lm(), Data(rows[:60], rows[60:], {}), config, tmp_path / "work", told), told.notes

    return make


def test_rows_of_text_are_told_apart_by_what_they_begin_with(text_only):
    result, _ = text_only(begin=None)
    assert result.parts is not None
    assert len(result.parts.rounds[0].counts) == 3
    assert {len(ids) for ids in result.calibration.inputs} == {6}
    assert len(result.calibration.inputs) == 180


def test_texts_that_are_known_by_their_beginning_alone_are_one_part(text_only, tiny_lm):
    result, notes = text_only(begin=tiny_lm().prefix_token_id)
    assert result.parts is not None
    assert [len(each.counts) for each in result.parts.rounds] == [1, 1]
    assert any("no more different inputs" in note for note in notes)


def test_few_examples_are_said_to_be_few(tiny_lm, some_examples, tmp_path):
    told = Notes()
    data = Data(some_examples(6), some_examples(3, seed=1), {})
    build(tiny_lm(), data, BuildConfig(**SMALL, method="static"), tmp_path, told)
    assert any("too few to tell" in note for note in told.notes)


def test_a_pool_of_another_model_is_refused(built, tiny_lm, tmp_path):
    soft = torch.zeros(2, tiny_lm().hidden_size)
    pool = PromptBank([Prompt("soft", embedding=soft)], fingerprint=tiny_lm(seed=1).fingerprint)
    pool.save(tmp_path / "pool")
    with pytest.raises(BankError, match="was made for"):
        built(method="texts", pool=str(tmp_path / "pool"))


def test_a_teacher_with_another_tokenizer_is_refused_whatever_it_is_for(built, tiny_lm):
    base = tiny_lm(seed=1)
    other = copy.deepcopy(base.tokenizer)
    other.add_tokens(["<another>"])
    teacher = LanguageModel(base.model, other, "other")
    for settings in ({"objective": "answer", "features": ("loss-gap",)}, {"method": "static"}):
        with pytest.raises(ModelError, match="another tokenizer"):
            built(teacher=teacher, **settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"init": "foo"},
        {"features": ("foo",)},
        {"balance": 5.0},
        {"method": "smop", "router_noise": -1.0},
        {"optimizer": "adam"},
        {"objective": "answr"},
        {"method": "texts", "pool": "nowhere"},
    ],
)
def test_nothing_is_begun_before_all_is_checked(tiny_lm, some_examples, tmp_path, wrong):
    data, begun = Data(some_examples(40), some_examples(240, seed=1), {}), []
    teacher = tiny_lm(seed=1)
    with pytest.raises(IdpError):
        build(
            tiny_lm(), data, BuildConfig(**(SMALL | wrong)), tmp_path, Silent(), teacher, lambda: begun.append("begun")
        )
    assert begun == []
    assert not list(tmp_path.iterdir())


def test_features_of_what_broke_need_a_teacher_as_wide(built, tiny_lm, tmp_path):
    with pytest.raises(TaskError, match="differ in width"):
        built(teacher=tiny_lm(hidden_size=64), objective="answer", features=("damage",))
    assert not (tmp_path / "work").exists()


def test_a_part_of_held_out_examples_alone_is_the_first_static_prompts(built, monkeypatch):
    """Three clusters, of which the last holds no tuning example; two lengths, so two static prompts."""
    monkeypatch.setattr(
        "idp.tune.parts.clusters",
        lambda features, k, seed: torch.arange(len(features)) % 2 + (torch.arange(len(features)) > 250),
    )
    result = built(lengths=(2, 5), rounds=1)
    assert result.parts is not None and result.calibration.hints is not None
    assert len(result.parts.prompts) == 2
    untuned = [place for place, part in enumerate(result.parts.held_out) if part == -1]
    assert untuned
    assert {result.calibration.hints[place] for place in untuned} == {0}


def test_no_data_and_unknown_terms_are_refused(tiny_lm, some_examples, tmp_path):
    examples = some_examples(4)
    with pytest.raises(TaskError, match="give it more data"):
        build(tiny_lm(), Data(examples, []), BuildConfig(), tmp_path, Silent())
    with pytest.raises(TaskError, match="Did you mean 'answer'"):
        build(tiny_lm(), Data(examples, examples), BuildConfig(objective="answr"), tmp_path, Silent())
    with pytest.raises(TaskError, match="--teacher"):
        build(tiny_lm(), Data(examples, examples), BuildConfig(objective="distill"), tmp_path, Silent())
