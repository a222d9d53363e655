"""Selectors by name: built-in or a stranger's, through one door."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from idp.errors import SelectorError
from idp.select import (
    AttentionSelector,
    NoneSelector,
    RandomSelector,
    RouterSelector,
    SmopSelector,
    StaticSelector,
    registry,
)
from idp.select.registry import get_selector, selector_names

BUILT_IN = [AttentionSelector, NoneSelector, RandomSelector, RouterSelector, SmopSelector, StaticSelector]


@pytest.mark.parametrize("selector", BUILT_IN)
def test_built_in(selector: type) -> None:
    assert selector.name in selector_names()  # type: ignore[attr-defined]
    assert type(get_selector(selector.name)) is selector  # type: ignore[attr-defined]


def test_seed_goes_to_those_that_take_one() -> None:
    router = get_selector("router", seed=5, l2=0.5)
    assert isinstance(router, RouterSelector)
    assert (router.seed, router.l2) == (5, 0.5)
    assert get_selector("none", seed=5).name == "none"


def test_options_behind_the_name_may_be_numbers_and_win_over_the_seed() -> None:
    router = get_selector("router:l2=0.1,seed=3", seed=5)
    assert isinstance(router, RouterSelector)
    assert (router.seed, router.l2) == (3, 0.1)


@pytest.mark.parametrize("spec", ["router:l2=much", "attention:queries=3", "router:l2=-1"])
def test_options_of_the_wrong_kind(spec: str) -> None:
    with pytest.raises(SelectorError):
        get_selector(spec)


def test_unknown_name() -> None:
    with pytest.raises(SelectorError, match=r"unknown selector 'ruoter'\. Did you mean 'router'"):
        get_selector("ruoter")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("auto", "best router that a bank holds; name one here"),
        ("mix:how=sum", "mixtures are arms of idp eval"),
        ("router:hidden=1.5", "whole number"),
        ("router:hidden=abc", "hidden of selector 'router' is a number of at least 0, not 'abc'"),
        ("router:l2=abc", "l2 of selector 'router' is a number"),
        ("router:l2=nan", "l2 of selector 'router' is a number"),
        ("router:hidden=inf", "whole number"),
        ("router:price=-1", "price of selector 'router' is a number of at least 0"),
        ("router:abstain=false", "abstain of selector 'router' is 0 or 1, not 'false'"),
    ],
)
def test_what_is_no_selector_or_no_value_says_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        get_selector(spec)


def test_a_selector_says_what_it_was_asked_for_by() -> None:
    assert get_selector("router:features=state").spec == "router:features=state"
    assert RouterSelector().spec is None


def test_unknown_option() -> None:
    with pytest.raises(SelectorError, match=r"no option 'calibration'\. Did you mean 'calibrate'"):
        get_selector("attention", calibration="zscore")
    with pytest.raises(SelectorError, match="no option 'l2'"):
        get_selector("none", l2=1.0)


@pytest.mark.parametrize(
    ("value", "message"), [("idp.nowhere:X", "cannot be imported"), ("builtins:dict", "is not a class derived from")]
)
def test_broken_plug_in(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    points = EntryPoints([EntryPoint("mine", value, registry.GROUP)])

    def fake(**selected: Any) -> EntryPoints:
        return points.select(**selected)

    monkeypatch.setattr(registry, "entry_points", fake)
    with pytest.raises(SelectorError, match=message):
        get_selector("mine")
