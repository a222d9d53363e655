from __future__ import annotations

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from idp.bank.bank import PromptBank
from idp.reference.world import build_world
from idp.select.registry import get_selector


@pytest.fixture(scope="module")
def tuner(script):
    return script("tune_reference_bank")


@pytest.fixture(scope="module")
def world():
    return build_world(0, 0.05)


SETTINGS = {
    "steps_static": 4,
    "steps_part": 2,
    "parts": 2,
    "items_per_task": 8,
    "length": 2,
    "batch_size": 4,
}


def make(tuner, lm, world, work, **changes):
    recipe = tuner.Recipe(**(SETTINGS | changes))
    return tuner.make_bank(lm, world, recipe, work, Console(quiet=True))


@pytest.fixture(scope="module")
def lm(tiny_lm):
    return tiny_lm(max_position_embeddings=1024)


def test_makes_the_same_bank_twice_with_prompts_selectors_and_provenance(tuner, lm, world, tmp_path):
    bank, costs = make(tuner, lm, world, tmp_path / "one")
    assert bank.names == ("static", "part-0", "part-1")
    assert set(bank.selectors) == {"static", "attention:calibrate=center", "attention:calibrate=zscore", "router"}
    assert bank.fingerprint == lm.fingerprint
    assert all(prompt.embedding.shape == (2, lm.hidden_size) for prompt in bank)
    assert {"length", "init", "corpus", "objective", "steps", "seed"} <= set(bank["part-1"].provenance)
    assert bank["part-0"].provenance["init"] == "static"
    assert costs["oracle"]["easy"] <= costs["router"]["easy"]
    assert set(costs) >= {"none", "static", "attention", "router", "own part", "oracle"}
    again, _ = make(tuner, lm, world, tmp_path / "two")
    saved = [bank.save(tmp_path / "a"), again.save(tmp_path / "b")]
    for file in ("bank.json", "bank.safetensors"):
        assert len({(folder / file).read_bytes() for folder in saved}) == 1
    router = get_selector("router").load_state(bank.selectors["router"], bank, lm)
    assert -1 <= router.select([1, 5, 6]).index < 3


def test_finished_prompts_are_not_tuned_again(tuner, lm, world, tmp_path, monkeypatch):
    from idp.tune import loop

    first, _ = make(tuner, lm, world, tmp_path)
    assert (tmp_path / "part-1.csv").read_text().startswith("step,train,held_out\n0,,")
    monkeypatch.setattr(loop._Run, "update", lambda *_: pytest.fail("tuned again"))
    again, _ = make(tuner, lm, world, tmp_path)
    assert torch.equal(first["part-1"].embedding, again["part-1"].embedding)


def test_without_parts_the_bank_is_the_static_prompt(tuner, lm, world, tmp_path):
    bank, _ = make(tuner, lm, world, tmp_path, parts=0)
    assert bank.names == ("static",)


def test_runs_from_the_command_line(tuner, lm, world, tmp_path, monkeypatch):
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(tuner, "build_world", lambda seed: world)
    import typer

    app = typer.Typer()
    app.command()(tuner.main)
    changes = SETTINGS | {"steps_static": 1, "steps_part": 1}
    options = [text for name, value in changes.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "bank"), "--device", "cpu"]
    result = CliRunner().invoke(app, ["--variant", str(tmp_path / "model"), *options, *folders])
    assert result.exit_code == 0, result.output
    assert "saved 3 prompts and 4 selectors" in result.output
    assert len(PromptBank.load(tmp_path / "bank")) == 3


def test_a_missing_model_is_one_line(tuner, tmp_path):
    import typer

    app = typer.Typer()
    app.command()(tuner.main)
    result = CliRunner().invoke(app, ["--variant", str(tmp_path / "nothing"), "--device", "cpu"])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
