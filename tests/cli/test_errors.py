"""Errors become one line and an exit code."""

from __future__ import annotations

import pytest
import typer

from idp.cli.errors import RESUMABLE, complain, guarded
from idp.errors import BankError, IdpError


def failing(error: BaseException, interrupted: str = "interrupted") -> object:
    @guarded(interrupted=interrupted)
    def command(debug: bool = False) -> None:
        raise error

    return command


def run(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(typer.Exit) as caught:
        failing(error, RESUMABLE)(debug=debug)  # type: ignore[operator]
    return caught.value.exit_code


def test_own_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(BankError("the bank is broken:\n  make it again.")) == 1
    assert capsys.readouterr().err == "error: the bank is broken: make it again.\n"


def test_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(KeyboardInterrupt()) == 130
    said = "interrupted; what was computed is kept, run the same command again to go on\n"
    assert capsys.readouterr() == ("", said)


def test_unforeseen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ZeroDivisionError("division by zero")) == 70
    error = capsys.readouterr().err
    assert error.startswith("error: ZeroDivisionError: division by zero (not foreseen")
    assert "--debug" in error
    assert error.count("\n") == 1


def test_unforeseen_without_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(AssertionError()) == 70
    assert capsys.readouterr().err.startswith("error: AssertionError (not foreseen")


def test_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(MemoryError()) == 1
    assert "--batch-size" in capsys.readouterr().err


@pytest.mark.parametrize("error", [IdpError("no"), ValueError("no"), KeyboardInterrupt()])
def test_traceback_with_debug_only(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    run(error)
    assert "Traceback" not in capsys.readouterr().err
    run(error, debug=True)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [typer.Exit(3), typer.Abort(), typer.BadParameter("no"), BrokenPipeError()])
def test_what_typer_deals_with_goes_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        failing(error)()  # type: ignore[operator]


def test_a_command_keeps_its_name_and_signature() -> None:
    @guarded()
    def command(limit: int, debug: bool = False) -> None:
        """Do it."""

    assert command.__name__ == "command"
    assert command.__doc__ == "Do it."
    command(limit=1)


def test_complain_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("a\n b\tc")
    assert capsys.readouterr().err == "a b c\n"
