"""Choosing a prompt for an input: one file per family, one protocol."""

from idp.select.attention import AttentionSelector
from idp.select.base import Calibration, Selection, Selector
from idp.select.chance import RandomSelector
from idp.select.constant import NoneSelector, StaticSelector
from idp.select.registry import get_selector, selector_names
from idp.select.router import RouterSelector
from idp.select.smop import SmopSelector

__all__ = [
    "AttentionSelector",
    "Calibration",
    "NoneSelector",
    "RandomSelector",
    "RouterSelector",
    "Selection",
    "Selector",
    "SmopSelector",
    "StaticSelector",
    "get_selector",
    "selector_names",
]
