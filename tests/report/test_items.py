from __future__ import annotations

from idp.report.items import fates, told
from idp.report.run import read_run


def test_items_are_followed_from_the_dense_model_to_an_arm(run):
    """Easy: 20 lost, 12 of them right again. Hard: 20 lost, 10 of them right again, and 4 newly wrong."""
    easy, hard = fates(read_run(run()), "router")
    assert (easy.task, easy.lost, easy.regained, easy.broken) == ("easy", 20, 12, 0)
    assert (hard.task, hard.lost, hard.regained, hard.broken) == ("hard", 20, 10, 4)


def test_examples_are_of_items_regained_and_then_of_items_lost(run):
    easy, _ = fates(read_run(run()), "router", examples=2)
    assert [own.value for _, _, own in easy.examples] == [1.0, 1.0, 0.0, 0.0]
    assert [dense.id for dense, _, _ in easy.examples] == ["easy-20", "easy-21", "easy-32", "easy-33"]
    assert all(dense.value > compressed.value for dense, compressed, _ in easy.examples)


def test_without_a_dense_model_nothing_is_known_to_be_lost(run, right):
    assert fates(read_run(run(arms={name: right[name] for name in ("compressed", "router")})), "router") == []


def test_tasks_that_are_neither_right_nor_wrong_are_left_out(run):
    assert [fate.task for fate in fates(read_run(run(text=True)), "router")] == ["easy", "hard"]


def test_every_arm_with_prompts_is_told_of(run):
    assert list(told(read_run(run()))) == [
        ("router", "easy", 12, 20),
        ("router", "hard", 10, 20),
        ("oracle", "easy", 16, 20),
        ("oracle", "hard", 18, 20),
    ]
