"""Prompts are tuned through compressed models as they are: quantised by compressed-tensors, and pruned."""

from __future__ import annotations

import pytest
import torch

from idp.model.load import load
from idp.reference.world import build_world
from idp.tune.atlas import atlas_examples
from idp.tune.initial import initial
from idp.tune.loop import Job, tune
from idp.tune.objective import Objective
from idp.tune.plan import Plan


@pytest.mark.parametrize("name", ["reference-gptq", "reference-sparse"])
def test_the_loss_falls_and_the_base_stays_as_it_was(name):
    lm = load(name, "cpu", "float32")
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    examples, _ = atlas_examples(lm, build_world(0, 0.4), 8, 0)
    start = initial("frequent", lm, examples, 4, seed=0)
    job = Job(
        "static", start, examples, examples
    )  # the same on both sides: what is asked is whether gradients are right
    [tuned] = tune(Objective(lm, "answer"), [job], Plan(steps=10, lr=0.1, batch_size=16))
    assert tuned.best.held_out < 0.97 * tuned.curve[0].held_out
    assert all(torch.equal(value, before[key]) for key, value in lm.model.state_dict().items())
    assert tuned.embedding.dtype == torch.float32
