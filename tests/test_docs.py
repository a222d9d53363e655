"""The code in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import idp
from idp.bank.bank import PromptBank

DOCS = Path(__file__).parents[1] / "docs"


def test_the_recipe_for_a_bank_makes_one(tiny_lm, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "tuning.md").read_text(), re.DOTALL)
    code, count = re.subn(r"steps=\d+", "steps=2", code)
    assert count == 2
    lm = tiny_lm()
    monkeypatch.setattr(idp, "load", lambda name: lm)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "tuning.md", "exec"), {})  # noqa: S102
    bank = PromptBank.load("my-bank")
    assert bank.names == ("static", "part-0", "part-1")
    assert "router" in bank.selectors
    bank.require(lm.fingerprint)
