"""Tests of idp.errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idp import errors
from idp.errors import IdpError, brief, suggest


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.endswith("Error")])
def test_every_kind_is_an_idp_error(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, IdpError)
    assert kind.__doc__


def test_suggest_names_the_near_miss_first_and_then_all() -> None:
    assert suggest("ruoter", ["static", "router", "none"]) == "Did you mean 'router'? Known: none, router, static."


def test_suggest_names_several_near_misses() -> None:
    text = suggest("llama-7b-5bit", ["llama-7b-4bit", "llama-7b-3bit", "phi"])
    assert text.startswith("Did you mean 'llama-7b-")
    assert "' or 'llama-7b-" in text
    assert "or 'phi'" not in text


def test_suggest_ignores_case() -> None:
    assert suggest("ROUTER", ["Router"]).startswith("Did you mean 'Router'?")


def test_suggest_without_a_near_miss_lists_what_is_known() -> None:
    assert suggest("xyz", ["router", "none"]) == "Known: none, router."


def test_suggest_with_nothing_known() -> None:
    assert suggest("xyz", []) == "None are known."


@given(st.text(), st.lists(st.text(min_size=1), max_size=40))  # more are not listed
def test_suggest_lists_every_known_name(name: str, known: list[str]) -> None:
    text = suggest(name, known)
    assert all(candidate in text for candidate in known)


def test_a_long_list_of_known_names_is_cut_short():
    known = [f"task{number}" for number in range(1000)]
    assert suggest("tsak7", known).startswith("Did you mean 'task7'") and "Known" not in suggest("tsak7", known)
    assert "and 960 more" in suggest("?", known)


@pytest.mark.parametrize(("said", "expected"), [("two\nlines ", "two lines"), ("", "ValueError"), ("a " * 300, None)])
def test_an_error_is_told_briefly(said, expected):
    told = brief(ValueError(said))
    assert "\n" not in told and len(told) <= 240
    assert expected is None or told == expected
