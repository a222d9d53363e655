"""Tests of idp.resources."""

from __future__ import annotations

from pathlib import Path

import pytest

from idp import resources
from idp.errors import IdpError


def test_prompt_bank_dir_holds_text_prompts() -> None:
    assert list((resources.prompt_bank_dir() / "text").glob("*.yaml"))


def test_eval_dir_holds_tasks() -> None:
    assert (resources.eval_dir() / "tasks").is_dir()


def test_a_checkout_keeps_data_beside_the_package(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "eval").mkdir()
    assert resources._find("eval", package=tmp_path / "idp") == tmp_path / "eval"


def test_a_wheel_keeps_data_inside_the_package(tmp_path: Path) -> None:
    inside = tmp_path / "idp" / "_data" / "eval"
    inside.mkdir(parents=True)
    assert resources._find("eval", package=tmp_path / "idp") == inside


def test_another_package_of_the_same_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    with pytest.raises(IdpError, match="'eval' is missing"):
        resources._find("eval", package=tmp_path / "idp")


def test_a_relative_folder_of_the_environment_is_made_absolute(monkeypatch, tmp_path):
    from idp.resources import cache_dir, config_dir

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDP_CACHE", "a/b")
    monkeypatch.setenv("IDP_CONFIG", "c")
    assert (cache_dir(), config_dir()) == (tmp_path / "a/b", tmp_path / "c")
