from __future__ import annotations

import logging

import torch

from idp.tune import stages
from idp.tune.stages import Stages, peak_memory


def test_every_stage_is_timed_logged_and_passed_on(watcher, monkeypatch, caplog):
    clock = iter([0.0, 2.0, 2.0, 5.0, 5.0, 9.0])
    monkeypatch.setattr(stages.time, "monotonic", lambda: next(clock))
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
    assert caplog.messages == ["teacher: 2.0 s", "two prompts are needed", "losses: 3.0 s", "teacher: 4.0 s"]


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory()
    held = torch.ones(2**25 + (before or 0) // 4)  # more than was ever held
    assert before is None or (peak_memory() or 0) >= held.nbytes > before
