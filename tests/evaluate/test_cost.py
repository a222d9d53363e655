"""Arms share what they compute: every prompt meets every item once."""

from __future__ import annotations

import sqlite3
from collections import Counter

import pytest
from torch.nn.modules.module import register_module_forward_hook

from idp.evaluate import Settings, evaluate
from idp.evaluate.memo import ANSWERS


@pytest.fixture
def passes():
    """Rows that went through a decoder layer of the models, as passes through all four of them: read, and written."""
    counted = Counter()

    def count(module, args, output):
        if type(module).__name__ == "LlamaDecoderLayer":
            rows, positions, _ = args[0].shape
            counted["written" if positions == 1 else "read"] += rows / 4

    hook = register_module_forward_hook(count)
    yield counted
    hook.remove()


@pytest.mark.slow
def test_all_arms_cost_little_more_than_every_prompt_on_every_item(passes, tmp_path):
    """Beyond those: every prompt's own prefill, and the half passes of selectors that look at hidden states.

    What is written takes a pass for each token more, for every prompt and item once.
    """
    tasks = ("atlas_easy", "atlas_pair", "atlas_last_word", "atlas_control", "atlas_trivia")
    evaluation = evaluate(Settings(tasks=tasks, limit=40, device="cpu", dtype="float32", output_dir=tmp_path / "out"))
    assert len(evaluation.arms) == 9
    database = sqlite3.connect(tmp_path / "out" / ANSWERS)
    [[kept]] = database.execute("SELECT count(*) FROM answers")
    database.close()
    prompts = len(evaluation.bank["prompts"])
    every = 40 * (prompts + 2)  # every prompt, none, and the dense model
    assert kept == 5 * every + 40  # beside a bank there is less room to write in: without a prompt that is done twice
    assert 5 * every <= passes["read"] <= 1.3 * 5 * every
    assert passes["written"] <= 16 * (every + 40)  # as many as an answer of atlas_trivia may have tokens
