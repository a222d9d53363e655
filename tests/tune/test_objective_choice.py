from __future__ import annotations

import pytest

from idp.errors import TaskError
from idp.observer import Silent
from idp.tune.config import BuildConfig
from idp.tune.objective_choice import asks_a_teacher, make_objective, objective_of


def test_distillation_is_the_default_where_there_is_a_teacher():
    assert objective_of(BuildConfig(), True) == "distill+distill-choice"
    assert objective_of(BuildConfig(), False) == "answer+choice"


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({}, True),
        ({"objective": "answer"}, False),
        ({"objective": "answer+distill"}, True),
        ({"method": "texts"}, False),
        ({"objective": "answer", "features": ("damage",)}, True),
        ({"objective": "answer", "features": ("damage",), "method": "static"}, False),
    ],
)
def test_who_asks_a_teacher(settings, asks):
    assert asks_a_teacher(BuildConfig(**settings)) is asks


def test_a_teacher_is_run_only_where_it_is_needed(tiny_lm, some_examples, tmp_path):
    dense = tiny_lm(seed=1)
    made = {
        name: make_objective(
            tiny_lm(), BuildConfig(objective=name), some_examples(6), tmp_path / name, Silent(), teacher=dense
        )
        for name in ("answer", "distill")
    }
    assert made["answer"].teacher is None
    assert not (tmp_path / "answer").exists()
    assert made["distill"].teacher is not None
    assert made["distill"].teacher.name == dense.name
    assert list((tmp_path / "distill").iterdir())


def test_distillation_without_a_teacher_is_refused(tiny_lm, some_examples, tmp_path):
    with pytest.raises(TaskError, match="needs the dense model as teacher"):
        make_objective(tiny_lm(), BuildConfig(objective="distill"), some_examples(6), tmp_path, Silent())
