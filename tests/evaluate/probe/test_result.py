from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import fisher_exact

from idp.evaluate.probe.report import accuracy_table, headline, regain_table, to_markdown, write
from idp.evaluate.probe.result import Inside, Probed, regains, rows_of

COUNTS = {"tuning": 40, "evaluation": 60, "unseen": 80}


def asked_of(book="closed"):
    return [SimpleNamespace(split=split, book=book) for split, count in COUNTS.items() for _ in range(count)]


def answers(shares):
    """Of each set the first questions are right, as many as a share of it."""
    return np.concatenate([np.arange(count) < round(shares[split] * count) for split, count in COUNTS.items()]).astype(
        float
    )


@pytest.fixture
def right():
    """All seen facts known, half of them lost; one arm gives most of them back, another as much as luck does."""
    dense = answers({"tuning": 1, "evaluation": 1, "unseen": 0.25})
    compressed = answers({"tuning": 0.5, "evaluation": 0.5, "unseen": 0})
    return {
        "dense": dense,
        "compressed": compressed,
        "good": answers({"tuning": 0.9, "evaluation": 0.9, "unseen": 0.05}),
        "lucky": answers({"tuning": 0.6, "evaluation": 0.6, "unseen": 0.05}),
    }


def test_what_is_right_again_is_counted_among_what_was_lost(right):
    good, lucky = regains(asked_of(), right)
    assert good.lost == {"tuning": 20, "evaluation": 30, "unseen": 20}
    assert good.regained == {"tuning": 16, "evaluation": 24, "unseen": 4}
    assert good.shares["evaluation"].value == pytest.approx(0.8)
    assert good.shares["evaluation"].low < 0.8 < good.shares["evaluation"].high
    assert lucky.regained == {"tuning": 4, "evaluation": 6, "unseen": 4}


def test_the_test_is_fishers_corrected_for_the_arms(right):
    good, lucky = regains(asked_of(), right)
    assert good.p == pytest.approx(2 * fisher_exact([[24, 6], [4, 16]]).pvalue)
    assert lucky.p == pytest.approx(1.0)


def test_open_book_answers_are_no_evidence_of_knowledge(right):
    [good, _] = regains(asked_of("open"), right)
    assert good.lost == {"tuning": 0, "evaluation": 0, "unseen": 0}
    assert np.isnan(good.shares["evaluation"].value) and good.p == 1.0


def test_an_arm_that_only_guesses_is_seldom_called_a_repair():
    """Answers drawn anew at chance, on what was lost of either set: the test errs in 5 % of studies at most."""
    asked, rng, found = asked_of(), np.random.default_rng(0), []
    for _ in range(300):
        dense = (rng.random(180) < 0.6).astype(float)
        compressed = np.where(rng.random(180) < 0.5, dense, 0.0)
        arm = (rng.random(180) < 0.25).astype(float)
        found.append(regains(asked, {"dense": dense, "compressed": compressed, "arm": arm})[0].p < 0.05)
    assert np.mean(found) <= 0.05


@pytest.fixture
def probed(right):
    asked = asked_of()
    parts = {split: np.array([each.split == split for each in asked]) for split in COUNTS}
    sets = list(rows_of(asked, right, parts, "closed"))
    inside = {"good": Inside((0.5, 0.25), (0.1, 0.2), 64)}
    return Probed("sparse", "dense", list(right), sets, sets[:2], regains(asked, right), inside, ["a note"])


def test_accuracy_by_set(probed):
    rows = accuracy_table(probed.sets, probed.arms).rows
    assert rows[1] == ["closed, evaluation", "60", "100.0", "50.0", "90.0", "60.0"]
    assert list(rows_of(asked_of(), {"dense": np.ones(180)}, {"none": np.zeros(180, dtype=bool)}, "closed")) == []


def test_the_verdict_says_displaced_only_beyond_luck(probed):
    good, lucky = headline(probed)
    assert good.startswith("good has right again 80 % [") and good.endswith("part of it was displaced and not lost.")
    assert lucky.endswith("luck could have done it.")


def test_an_arm_that_regains_less_than_luck_is_no_repair(right):
    worse = {**right, "good": answers({"tuning": 0.5, "evaluation": 0.5, "unseen": 0.25})}
    asked = asked_of()
    found = Probed("m", "d", list(worse), [], [], regains(asked, worse), {}, [])
    assert found.regains[0].p < 0.05 and headline(found)[0].endswith("luck could have done it.")


def test_without_anything_lost_nothing_is_concluded(right):
    same = {**right, "compressed": right["dense"]}
    found = Probed("m", "d", list(same), [], [], regains(asked_of(), same), {}, [])
    assert headline(found)[0] == "good: compression lost none of the evaluation questions."
    assert list(regain_table(found.regains).rows[0][1:4]) == ["none lost"] * 3


def test_files(probed, tmp_path):
    paths = write(probed, tmp_path / "out")
    assert [path.name for path in paths] == ["probe.json", "probe.md", "probe.png"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    text = to_markdown(probed)
    assert "| good | 80 % [" in text and "The null hypothesis" in text and text.endswith("- a note\n")
    assert "| 1 | 25.0 | 20.0 |" in text
