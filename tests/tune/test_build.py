from __future__ import annotations

import pytest
import torch

from idp.bank.bank import PromptBank
from idp.bank.prompt import Prompt
from idp.errors import TaskError
from idp.observer import Silent
from idp.select.registry import get_selector
from idp.tune.build import build, objective_of
from idp.tune.config import BuildConfig
from idp.tune.prune import reduced
from idp.tune.sources import Data

SMALL = {"steps": 4, "part_steps": 4, "parts": 3, "lengths": (3,), "sample": 20, "batch_size": 4, "lr": 0.05}


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
    assert objective_of(BuildConfig(), True) == "distill+distill-choice"
    assert objective_of(BuildConfig(), False) == "answer+choice"
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


def test_texts_are_chosen_from_a_pool(built, tmp_path, monkeypatch, tiny_lm):
    pool = PromptBank([Prompt("one", text="Answer with a fact: "), Prompt("two", text="The river ")])
    pool.save(tmp_path / "pool")
    chosen = PromptBank(pool.prompts[:1])
    monkeypatch.setattr("idp.tune.build.choose_texts", lambda *_, **__: chosen)
    result = built(method="texts", pool=str(tmp_path / "pool"))
    assert result.bank.names == ("one",)
    assert "objective" not in result.bank.provenance


def test_same_seed_same_bytes_whatever_was_kept(built, tmp_path):
    banks = [built(folder=folder).bank.save(tmp_path / f"bank-{n}") for n, folder in enumerate(["a", "b", "a"])]
    first, *others = [{path.name: path.read_bytes() for path in bank.iterdir()} for bank in banks]
    assert all(first == other for other in others)
    another = built(seed=1, folder="c").bank
    assert not torch.equal(PromptBank.load(banks[0])[0].embedding, another[0].embedding)


def test_activation_checkpointing_gives_the_same(built):
    prompts = [built(method="static", checkpointing=flag, folder=str(flag)).bank[0] for flag in (False, True)]
    torch.testing.assert_close(*(prompt.embedding for prompt in prompts), atol=1e-3, rtol=1e-3)


def test_hints_at_prompts_that_are_left_out_go_to_the_next_best():
    from idp.select.base import Calibration

    losses = torch.tensor([[0.5, 0.1, 0.9, 1.0], [0.2, 0.1, 0.9, 1.0], [0.9, 0.9, 0.1, 1.0]])
    calibration = Calibration([[1], [2], [3]], losses, ["a"] * 3, [1, 1, 2])
    less = reduced(calibration, [0, 2])
    assert less.hints == [0, 0, 1]
    assert torch.equal(less.losses, losses[:, [0, 2, 3]])


def test_no_data_and_unknown_terms_are_refused(tiny_lm, some_examples, tmp_path):
    examples = some_examples(4)
    with pytest.raises(TaskError, match="give it more data"):
        build(tiny_lm(), Data(examples, []), BuildConfig(), tmp_path, Silent())
    with pytest.raises(TaskError, match="Did you mean 'answer'"):
        build(tiny_lm(), Data(examples, examples), BuildConfig(objective="answr"), tmp_path, Silent())
    with pytest.raises(TaskError, match="--teacher"):
        build(tiny_lm(), Data(examples, examples), BuildConfig(objective="distill"), tmp_path, Silent())
