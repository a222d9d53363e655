"""Tests of idp.evaluate.building."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idp.evaluate import building
from idp.model.aliases import resolve
from idp.observer import Silent
from idp.tune.config import BuildConfig


@pytest.mark.parametrize("name", ["reference-dense", "smollm2-135m"])
def test_a_dense_model_has_no_teacher(name, tiny_lm, monkeypatch):
    monkeypatch.setattr(building, "load", lambda *args, **kwargs: pytest.fail("loaded it a second time"))
    assert building._dense(BuildConfig(model=name), resolve(name), tiny_lm(), Silent()) is None


def test_a_compressed_model_has_the_dense_one_as_teacher(tiny_lm, monkeypatch):
    loaded = []
    monkeypatch.setattr(building, "load", lambda spec, *args, **kwargs: loaded.append(spec.name) or tiny_lm())
    spec = replace(resolve("reference-dense"), name="pruned", source="org/pruned", dense="reference-dense")
    assert building._dense(BuildConfig(model="pruned"), spec, tiny_lm(), Silent()) is tiny_lm()
    assert loaded == ["reference-dense"]
