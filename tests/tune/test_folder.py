from __future__ import annotations

import logging

import pytest

from idp.errors import OutputError, TaskError
from idp.tune.config import BuildConfig, load_config
from idp.tune.folder import RunFolder


def test_keeps_the_config_and_is_claimed_by_the_same_again(tmp_path):
    config = BuildConfig(steps=5)
    RunFolder(tmp_path / "run", config).claim()
    RunFolder(tmp_path / "run", config).claim()
    assert load_config(tmp_path / "run" / "config.yaml") == config


def test_another_config_is_refused_unless_it_may_overwrite(tmp_path):
    RunFolder(tmp_path, BuildConfig(steps=5)).claim()
    (tmp_path / "bank").mkdir()
    (tmp_path / "work").mkdir()
    with pytest.raises(TaskError, match="another run \\(steps, seed\\)"):
        RunFolder(tmp_path, BuildConfig(steps=6, seed=1))
    RunFolder(tmp_path, BuildConfig(steps=6), overwrite=True).claim()
    assert not (tmp_path / "bank").exists()
    assert load_config(tmp_path / "config.yaml").steps == 6


def test_what_the_package_logs_is_kept_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path, BuildConfig())
    for _ in range(2):
        with folder.logged():
            logging.getLogger("idp.tune").info("one")
            logging.getLogger("other").warning("two")
        logging.getLogger("idp.tune").warning("three")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "one"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="run"):
        RunFolder(tmp_path / "run", BuildConfig())


def test_a_run_that_computed_nothing_keeps_nobody_out(tmp_path):
    RunFolder(tmp_path, BuildConfig(steps=5)).claim()
    RunFolder(tmp_path, BuildConfig(steps=6)).claim()


def test_a_config_that_cannot_be_read_does_not_block_overwriting(tmp_path):
    RunFolder(tmp_path, BuildConfig()).claim()
    (tmp_path / "bank").mkdir()
    (tmp_path / "config.yaml").write_text("stepz: 5")
    with pytest.raises(TaskError, match="cannot be read"):
        RunFolder(tmp_path, BuildConfig())
    RunFolder(tmp_path, BuildConfig(), overwrite=True).claim()
    assert load_config(tmp_path / "config.yaml") == BuildConfig()


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".static.safetensors.1a2b.tmp").write_text("half")
    (tmp_path / ".bank.3c4d.tmp").mkdir()
    RunFolder(tmp_path, BuildConfig()).claim()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_log_on_a_full_disk_does_not_hide_what_went_wrong(tmp_path, capsys):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="the real error"), RunFolder(tmp_path, BuildConfig()).logged():
        logging.getLogger("idp.tune").info("one")
        raise OutputError("the real error")
    assert capsys.readouterr().err == ""
