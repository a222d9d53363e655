"""Libraries are silenced, our own warnings are shown once, and --debug shows everything."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from idp.cli.quiet import hush, undisturbed


def test_variables_are_set_unless_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TQDM_DISABLE": "0"})
    hush(debug=False)
    assert os.environ["TQDM_DISABLE"] == "0"
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def test_debug_silences_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: None)
    hush(debug=True)
    assert "TQDM_DISABLE" not in os.environ
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=1)


def test_warnings_are_ignored() -> None:
    hush(debug=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("not shown", UserWarning, stacklevel=1)
    assert caught == []


def test_own_warnings_are_told_once_a_kind() -> None:
    told: list[str] = []
    log = logging.getLogger("idp.somewhere")
    with undisturbed(told.append, debug=False):
        for length in (3, 4):
            log.warning("a context of %d tokens was cut", length)
        log.warning("something else")
        log.info("not for users")
    log.warning("too late")
    assert told == ["a context of 3 tokens was cut", "something else"]


def test_what_libraries_print_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with undisturbed(print, debug=False):
        print("advice")
        print("100%|####|", file=sys.stderr)
    print("result")
    assert capsys.readouterr() == ("result\n", "")


def test_what_libraries_print_is_shown_on_stderr_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    with undisturbed(print, debug=True):
        print("advice")
    assert capsys.readouterr() == ("", "advice\n")
