from __future__ import annotations

import pytest

from idp.run.passes import run_expanded, run_packed


@pytest.fixture(scope="module")
def bench(script):
    return script("bench_score")


def test_questions_are_those_of_the_goals(bench):
    four = bench.questions(bench.WORKS[0], 50, 32_000, seed=0)
    assert {len(request.continuations) for request in four} == {4}
    assert all(64 <= len(request.context) <= 128 for request in four)
    assert all(8 <= len(option) <= 24 for request in four for option in request.continuations)
    assert four == bench.questions(bench.WORKS[0], 50, 32_000, seed=0)
    assert four != bench.questions(bench.WORKS[0], 50, 32_000, seed=1)


def test_the_rival_gets_the_batch_size_that_is_best_for_it(bench, monkeypatch):
    class Slow:
        def _loglikelihood_tokens(self, asked, disable_tqdm):
            clock.now += 100 / self.batch_size_per_gpu if self.batch_size_per_gpu <= 8 else self.batch_size_per_gpu

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(bench, "time", clock)
    assert bench.best_batch_size(Slow(), [None] * 10) == 8


@pytest.mark.parametrize("place", range(4))
def test_all_sides_find_the_same(bench, tiny_lm, place):
    lm, work = tiny_lm(), bench.WORKS[place]
    requests, bank = bench.questions(work, 2, lm.vocab_size, 0), bench.bank_of(lm, work.prompt, 0)
    assert (bank is None) == (work.prompt == 0)
    answers = [make(lm, bank, requests).answers() for make in (bench.idp_side, bench.lm_eval_side, bench.hf_side)]
    for other in answers[1:]:
        assert other == pytest.approx(answers[0], abs=1e-4)


def test_the_expanded_side_runs_the_other_way_and_leaves_the_first(bench, tiny_lm, monkeypatch):
    lm = tiny_lm()
    requests = bench.questions(bench.WORKS[0], 2, lm.vocab_size, 0)
    ran = []
    for way, run in dict(bench.ways.PASSES).items():
        monkeypatch.setitem(bench.ways.PASSES, way, lambda *a, run=run: ran.append(run) or run(*a))
    bench.expanded_side(lm, None, requests).run()
    assert set(ran) == {run_expanded}
    ran.clear()
    bench.idp_side(lm, None, requests).run()
    assert set(ran) == {run_packed}


def test_runs_from_the_command_line(bench, run_script, monkeypatch):
    monkeypatch.setattr(bench, "BATCH_SIZES", (2,))
    rows = run_script(bench.main)
    assert all({"work", "against", "ratio", "floor_ratio", "max_abs_error", "goal"} <= set(row) for row in rows)
    assert len(rows) == 10
    assert max(row["max_abs_error"] for row in rows if row["max_abs_error"] is not None) < 1e-4
