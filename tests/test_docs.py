"""The code in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import idp
from idp.bank.bank import PromptBank

ROOT = Path(__file__).parents[1]


def test_the_recipe_for_a_bank_makes_one(tiny_lm, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tuning.md").read_text(), re.DOTALL)
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


def test_the_readme_wraps_the_embedded_model(capsys):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    answer, chosen = capsys.readouterr().out.rsplit(maxsplit=1)
    assert "eldest child of the Drutrems?\nAnswer: " in answer
    assert -1 <= int(chosen) < len(PromptBank.load("tuned/sparse"))
