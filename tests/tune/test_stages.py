from __future__ import annotations

import logging

import torch

from idp.tune import stages
from idp.tune.stages import Stages, peak_memory


def test_every_stage_is_timed_logged_and_passed_on(watcher, monkeypatch, caplog):
    clock = iter([0.0, 2.0, 2.0, 5.0, 5.0, 9.0])
    monkeypatch.setattr(stages.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(stages, "peak_memory", lambda: 1_540_000_000)
    told = watcher()
    timed = Stages(told)
    with caplog.at_level(logging.INFO, "idp"):
        timed.stage("teacher", 3)
        timed.advance(2)
        timed.stage("losses", None)
        timed.note("two prompts are needed")
        timed.stage("teacher", 1)
        timed.finish()
        timed.finish()
    assert timed.seconds == {"teacher": 6.0, "losses": 3.0}
    assert told.stages == [["teacher", 3, 2], ["losses", None, 0], ["teacher", 1, 0]]
    assert told.notes == ["two prompts are needed"]
    memory = "at most 1.54 GB in memory so far"
    assert caplog.messages == [
        f"teacher: 2.0 s, {memory}",
        "two prompts are needed",
        f"losses: 3.0 s, {memory}",
        f"teacher: 4.0 s, {memory}",
    ]


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory()
    held = torch.ones(2**25 + (before or 0) // 4)  # more than was ever held
    assert before is None or (peak_memory() or 0) >= held.nbytes > before
