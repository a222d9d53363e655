from __future__ import annotations

import pytest
import torch

from idp.errors import TaskError
from idp.observer import Silent
from idp.tune.features import Source
from idp.tune.initial import initial
from idp.tune.objective import Objective
from idp.tune.parts import OWN, PartsSettings, Rounds
from idp.tune.plan import Plan

SETTINGS = {"parts": 20, "rounds": 2, "balance": 1.0, "sample": 4000, "features": ("state",), "seed": 0}


@pytest.fixture
def rounds(tiny_lm, some_examples, tmp_path):
    """Rounds on random data; settings and plan may be overridden."""
    lm, tuning = tiny_lm(), some_examples(40, kinds="ca")
    static = initial("frequent", lm, tuning, 3, 0)

    def make(observer=None, folder="work", **settings):
        fields = SETTINGS | {"parts": 3, "sample": 30} | settings
        return Rounds(
            Source(Objective(lm), static, None, 0),
            tuning,
            some_examples(60, seed=1, kinds="ca"),
            PartsSettings(**fields),
            Plan(steps=12, batch_size=8, lr=0.1),
            tmp_path / folder,
            observer or Silent(),
        )

    return make, static


def test_gives_a_prompt_a_part_and_tells_what_each_round_came_to(rounds):
    make, static = rounds
    told = Silent()
    notes = []
    told.note = notes.append
    parts = make(told).run([static])
    assert len(parts.prompts) == len(parts.counts)
    assert all(prompt.shape == static.shape for prompt in parts.prompts)
    assert not all(torch.equal(prompt, static) for prompt in parts.prompts)
    assert [sum(each.counts) for each in parts.rounds] == [40, 40]
    assert len(parts.held_out) == 60
    assert set(parts.held_out) <= set(range(len(parts.prompts)))
    for each in parts.rounds:
        assert set(each.held_out) == {"none", "static", "own part", "oracle"}
        assert each.held_out["oracle"] <= min(each.held_out.values())
    assert {name.partition("/")[0] for name in parts.curves} == {"round-1", "round-2"}
    assert sum("held-out loss" in note for note in notes) == 2


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_prompts_of_the_best_round_are_kept(rounds, monkeypatch, best):
    make, static = rounds
    judged, numbers = Rounds._judged, iter([1, 2, 3])

    def distorted(self, prompts, own):
        return judged(self, prompts, own) | {OWN: float(next(numbers) != best)}

    monkeypatch.setattr(Rounds, "_judged", distorted)
    told, notes = Silent(), []
    told.note = notes.append
    parts = make(told, rounds=3).run([static])
    assert len(parts.rounds) == 3
    assert parts.counts == parts.rounds[best - 1].counts
    assert {len(curves) for curves in parts.history} == {best}
    assert len(parts.curves) == sum(len(each.counts) for each in parts.rounds)
    assert any(f"round {best} are kept" in note for note in notes) == (best < 3)


def test_one_prompt_better_for_all_does_not_get_everything(rounds):
    make, static = rounds
    parts = make(balance=1.0, rounds=3).run([static, 20 * torch.randn(static.shape), 20 * torch.randn(static.shape)])
    assert len(parts.rounds[-1].counts) == 3
    assert max(parts.rounds[-1].counts) <= 30


def test_lengths_may_be_mixed(rounds):
    make, static = rounds
    parts = make().run([static, static[:1]])
    assert {len(prompt) for prompt in parts.prompts} <= {1, 3}


def test_the_same_again_and_from_its_checkpoints(rounds, monkeypatch):
    make, static = rounds
    first = make().run([static])
    fresh = make(folder="another").run([static])
    monkeypatch.setattr("idp.tune.loop._Run.update", lambda *_: pytest.fail("tuned again"))
    monkeypatch.setattr("idp.tune.losses._column", lambda *_, **__: pytest.fail("measured again"))
    kept = make().run([static])
    for other in (fresh, kept):
        assert all(torch.equal(*pair) for pair in zip(first.prompts, other.prompts, strict=True))
        assert first.held_out == other.held_out


@pytest.mark.parametrize("wrong", [{"parts": 0}, {"rounds": 0}, {"sample": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(TaskError, match="cannot make"):
        PartsSettings(**(SETTINGS | wrong))


def test_more_parts_than_examples_are_refused(rounds):
    make, static = rounds
    with pytest.raises(TaskError, match="ask for 1 to"):
        make(parts=500).run([static])
