"""Lists on the command line."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from idp.cli.options import check_names, rows_at_once, split_names

NAME = st.text("abcdefgh-_", min_size=1, max_size=8)


@given(st.lists(NAME, min_size=1, max_size=6), st.sampled_from([",", ", ", " ,,"]))
def test_names_come_back(names: list[str], separator: str) -> None:
    assert split_names(separator.join(names)) == tuple(names)


def test_options_of_a_selector_stay_with_it() -> None:
    text = "router,attention:calibrate=center,queries=last,attention:score=joint_mass,none"
    expected = ("router", "attention:calibrate=center,queries=last", "attention:score=joint_mass", "none")
    assert split_names(text) == expected


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_nothing_is_an_error(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        split_names(text)
    with pytest.raises(typer.BadParameter):
        check_names(text)


def test_not_given_is_fine() -> None:
    assert check_names(None) is None


def test_a_batch_size_is_a_number_or_auto() -> None:
    assert [rows_at_once(text) for text in ("1", "64", "auto")] == [1, 64, None]
    for text in ("0", "-3", "many", "1.5", ""):
        with pytest.raises(typer.BadParameter, match="neither a number of rows"):
            rows_at_once(text)


def test_options_may_hold_selectors_and_paths() -> None:
    text = "cascade:first=[keys:keys=learned,x=1],then=[none],share=0.1, embedding:by=examples,model=/a:b,none"
    expected = (
        "cascade:first=[keys:keys=learned,x=1],then=[none],share=0.1",
        "embedding:by=examples,model=/a:b",
        "none",
    )
    assert split_names(text) == expected
    with pytest.raises(typer.BadParameter, match="never closes"):
        split_names("cascade:first=[keys")
