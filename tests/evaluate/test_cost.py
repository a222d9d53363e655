"""Arms share what they compute: every prompt meets every item once."""

from __future__ import annotations

import sqlite3

import pytest
from torch.nn.modules.module import register_module_forward_hook

from idp.evaluate import Settings, evaluate
from idp.evaluate.memo import ANSWERS


@pytest.fixture
def passes():
    """Rows that went through a decoder layer of the models, as passes through all four of them."""
    counted = [0.0]

    def count(module, args, output):
        if type(module).__name__ == "LlamaDecoderLayer":
            counted[0] += args[0].shape[0] / 4

    hook = register_module_forward_hook(count)
    yield lambda: counted[0]
    hook.remove()


@pytest.mark.slow
def test_all_arms_cost_little_more_than_every_prompt_on_every_item(passes, tmp_path):
    """Beyond those: every prompt's own prefill, and the half passes of selectors that look at hidden states."""
    tasks = ("atlas_easy", "atlas_pair", "atlas_last_word", "atlas_control")
    evaluation = evaluate(Settings(tasks=tasks, limit=40, device="cpu", dtype="float32", output_dir=tmp_path / "out"))
    assert len(evaluation.arms) == 9
    database = sqlite3.connect(tmp_path / "out" / ANSWERS)
    [[needed]] = database.execute("SELECT count(*) FROM answers")
    database.close()
    prompts = len(evaluation.bank["prompts"])
    assert needed == 4 * 40 * (prompts + 2)  # every prompt, none, and the dense model
    assert needed <= passes() <= 1.3 * needed
