"""Choosing a prompt for an input: one file per family, one protocol."""

from idp.select.attention import AttentionSelector
from idp.select.bandit import BanditSelector
from idp.select.base import Selection, Selector
from idp.select.calibration import Calibration
from idp.select.cascade import CascadeSelector
from idp.select.chance import RandomSelector
from idp.select.constant import NoneSelector, StaticSelector
from idp.select.embedding import EmbeddingSelector
from idp.select.keys import KeysSelector
from idp.select.likelihood import LikelihoodSelector
from idp.select.oracle import OracleSelector
from idp.select.registry import get_selector, selector_names
from idp.select.router import RouterSelector
from idp.select.smop import SmopSelector

__all__ = [
    "AttentionSelector",
    "BanditSelector",
    "Calibration",
    "CascadeSelector",
    "EmbeddingSelector",
    "KeysSelector",
    "LikelihoodSelector",
    "NoneSelector",
    "OracleSelector",
    "RandomSelector",
    "RouterSelector",
    "Selection",
    "Selector",
    "SmopSelector",
    "StaticSelector",
    "get_selector",
    "selector_names",
]
