from __future__ import annotations

import gc
import importlib
import sys

import pytest

from idp.errors import ModelError
from idp.model.reading import reading
from idp.model.spec import ModelSpec

PLAIN = ModelSpec("m", "org/m")


@pytest.fixture(autouse=True)
def collecting():
    yield
    gc.enable()


def test_garbage_is_collected_unless_transformers_has_to_be_imported(monkeypatch):
    importlib.import_module("transformers.modeling_utils")
    with reading(PLAIN):
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils")
    with pytest.raises(ModelError), reading(PLAIN):
        assert not gc.isenabled()
        raise ModelError("no such model")
    assert gc.isenabled()


def test_a_collector_that_was_switched_off_stays_so(monkeypatch):
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils", raising=False)
    gc.disable()
    with reading(PLAIN):
        assert not gc.isenabled()
    assert not gc.isenabled()
