"""Fixtures of the tests of models that travel in a package."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheels import Index, make_index

from idp.model.spec import ModelSpec


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    made = make_index(tmp_path, monkeypatch)
    made.wheel()
    return made


@pytest.fixture
def spec(index: Index) -> ModelSpec:
    """A model that travels in a package which is on the index alone."""
    return index.spec()


@pytest.fixture
def offline(spec: ModelSpec, index: Index) -> ModelSpec:
    """The same where the index has nothing."""
    index.wheel_path.unlink()
    return spec
