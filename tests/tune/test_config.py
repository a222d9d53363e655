from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp.errors import TaskError
from idp.tune.config import PRESETS, BuildConfig, load_config


def test_what_is_written_is_read_back(tmp_path):
    config = BuildConfig(
        steps=7, lengths=(1, 5), questions=("a.jsonl",), checkpointing=True, template="Q: {question}\nA:"
    )
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "c.yaml") == config


@given(st.integers(0, 10**6), st.floats(1e-6, 10), st.text(max_size=20))
def test_values_survive_yaml(tmp_path_factory, steps, lr, template):
    path = tmp_path_factory.mktemp("c") / "c.yaml"
    config = BuildConfig(steps=steps, lr=lr, template=template)
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config


def test_dashes_are_underscores_and_the_rest_is_the_default(tmp_path):
    (tmp_path / "c.yaml").write_text("part-steps: 9\nlengths: [4]\nlr: 1\n")
    assert load_config(tmp_path / "c.yaml") == BuildConfig(part_steps=9, lengths=(4,), lr=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 3", "Did you mean 'steps'"),
        ("steps: many", "steps is 'many' in the config, but it has to be int"),
        ("steps: true", "has to be int"),
        ("lengths: 4", "has to be a list of int"),
        ("lengths: []", "lengths"),
        ("lengths: [0]", "lengths"),
        ("checkpointing: 1", "has to be bool"),
        ("method: part", "Did you mean 'parts'"),
        ("held_out: 1.0", "cannot hold out"),
        ("limit: -1", "cannot hold out"),
        ("- 1", "not a config"),
        ("a: [", "not YAML"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(TaskError, match=message):
        load_config(tmp_path / "c.yaml")


def test_a_missing_file_and_another_encoding_are_named(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    for name in ("c.yaml", "nowhere.yaml"):
        with pytest.raises(TaskError, match=name):
            load_config(tmp_path / name)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_configs(name):
    assert load_config(name) != BuildConfig()


def test_presets_are_what_the_papers_say():
    soft, mixture = load_config("compress-then-prompt"), load_config("smop")
    assert (soft.objective, soft.steps, soft.lr, soft.schedule) == ("next-token", 30_000, 1e-3, "linear")
    assert (mixture.method, mixture.parts, mixture.lengths, mixture.optimizer) == ("smop", 4, (5,), "adafactor")


def test_near_misses_of_presets_are_named():
    with pytest.raises(TaskError, match="Did you mean 'smop'"):
        load_config("smopp")


def test_a_file_without_suffix_is_a_file(tmp_path):
    (tmp_path / "mine").write_text("steps: 3")
    assert load_config(tmp_path / "mine").steps == 3


def test_a_config_needs_nothing_heavy():
    code = "import sys, idp.tune.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
