from __future__ import annotations

import pytest

from idp.launch import rank, world_size

VARIABLES = [
    f"{prefix}{what}" for prefix in ("", "PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_") for what in ("RANK", "SIZE")
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_started_by_itself_is_the_only_one() -> None:
    assert (rank(), world_size()) == (0, 1)


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")])
def test_a_launcher_says_which_of_how_many(monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]) -> None:
    for name, value in zip(names, ("2", "4"), strict=True):
        monkeypatch.setenv(name, value)
    assert (rank(), world_size()) == (2, 4)


@pytest.mark.parametrize("nonsense", ["", "-1", "many"])
def test_what_is_no_number_is_as_good_as_unset(monkeypatch: pytest.MonkeyPatch, nonsense: str) -> None:
    monkeypatch.setenv("RANK", nonsense)
    monkeypatch.setenv("WORLD_SIZE", nonsense)
    assert (rank(), world_size()) == (0, 1)
