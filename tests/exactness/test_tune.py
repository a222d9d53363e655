"""Prompts are tuned through quantised checkpoints as they are loaded."""

from __future__ import annotations

import pytest
import torch

from idp.model.load import load, load_trainable
from idp.observer import Silent
from idp.run.store import PrefixStore
from idp.tune.build import build
from idp.tune.config import BuildConfig
from idp.tune.examples import encode
from idp.tune.losses import example_losses
from idp.tune.sources import Data


@pytest.mark.parametrize("name", ["gptq", "compressed-tensors"])
def test_a_bank_is_built_through_a_quantised_checkpoint(request, tiny_lm, tmp_path, name):
    folder = request.getfixturevalue(name.replace("-", "_"))
    tiny_lm().tokenizer.save_pretrained(folder)
    lm = load_trainable(str(folder), "cpu", "float32")
    sums = [encode(lm, f"Question: What is {n} and {n}?\nAnswer:", [f" {2 * n}"], 0, "sums") for n in range(40)]
    config = BuildConfig(method="static", lengths=(4,), steps=8, lr=0.1, batch_size=8)
    built = build(lm, Data(sums[:30], sums[30:]), config, tmp_path, Silent())
    curve = built.curves["static"]
    assert min(point.held_out for point in curve) < 0.97 * curve[0].held_out
    assert built.bank["static"].embedding.dtype == torch.float32
    plain = load(str(folder), "cpu", "float32")  # as it is used
    built.bank.require(plain.fingerprint)
    losses = [example_losses(PrefixStore(model, built.bank), sums).mean(0) for model in (lm, plain)]  # (2,) each
    torch.testing.assert_close(*losses, atol=0.02, rtol=0)
