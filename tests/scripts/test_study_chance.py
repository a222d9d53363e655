from __future__ import annotations

import json

import pytest
import torch

from idp.errors import TaskError
from idp.reference.atlas import stable_hash
from idp.reference.world import build_world
from idp.tune.atlas import HELD_OUT


def test_arms_are_chosen_by_the_other_wordings(script):
    losses = [torch.tensor([[0.1, 0.2, 0.9]]), torch.tensor([[0.9, 0.3, 0.2]]), torch.tensor([[0.9, 0.1, 0.3]])]
    chosen = script("study_chance").chosen(losses, 0)
    assert [int(arms) for arms in chosen.values()] == [0, 2, 1]


def test_facts_are_those_of_held_out_subjects_or_unseen(script):
    module, world = script("study_chance"), build_world(0)
    held_out = module.asked_facts(world, "tuning", 50, 0)
    assert len(held_out) == 50
    assert all(fact.split == "tuning" and stable_hash("0", fact.subject) % HELD_OUT == 0 for fact in held_out)
    assert {fact.split for fact in module.asked_facts(world, "unseen", 50, 0)} == {"unseen"}


def test_evaluation_facts_are_not_asked(script, tmp_path):
    with pytest.raises(TaskError, match="not of 'evaluation'"):
        script("study_chance")._split("evaluation")


def test_what_other_wordings_tell_is_printed(script, capsys, tmp_path):
    script("study_chance").main("reference", None, split="unseen", facts=4, out=tmp_path)
    assert "4 unseen facts in three wordings" in capsys.readouterr().out
    rows = json.loads((tmp_path / "unseen.json").read_text())
    assert rows[0]["selector"] == "static"
    assert rows[0]["covered"]["value"] == 0.0
