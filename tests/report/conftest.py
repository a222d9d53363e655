from __future__ import annotations

import pytest
from made_runs import made_run

RIGHT = {
    "dense": {"easy": [1] * 40, "hard": [1] * 30 + [0] * 10},
    "compressed": {"easy": [1] * 20 + [0] * 20, "hard": [1] * 10 + [0] * 30},
    "router": {"easy": [1] * 32 + [0] * 8, "hard": [0] * 4 + [1] * 16 + [0] * 20},
    "oracle": {"easy": [1] * 36 + [0] * 4, "hard": [1] * 28 + [0] * 12},
}


@pytest.fixture
def right():
    """Dense, compressed, a router and the bound on two tasks of forty items."""
    return RIGHT


@pytest.fixture
def run(tmp_path, right):
    """A factory of evaluations: `run("name", ...)` is its folder."""

    def make(name="run", arms=right, **options):
        return made_run(tmp_path / name, arms, **{"prompts": {"router": ["one", "two"]}, **options})

    return make
