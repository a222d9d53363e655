from __future__ import annotations

import io
import json

import pytest
import torch
import typer
from rich.console import Console


@pytest.fixture(scope="module")
def bench(script):
    return script("benchmarking")


class Clock:
    """A clock that only work moves, and a diary of the work."""

    def __init__(self):
        self.now = 0.0
        self.diary = ""

    def __call__(self):
        return self.now

    def work(self, name, *seconds):
        times = iter(seconds)

        def do():
            self.diary += name
            self.now += next(times)

        return do


def test_sides_alternate_after_one_warm_up_each_and_swap_their_order(bench):
    clock = Clock()
    done = []
    ours = clock.work("a", 100, 1, 2, 9)
    theirs = clock.work("b", 100, 2, 2, 3)
    timing = bench.alternate(ours, theirs, 3, lambda: done.append(clock.diary), clock=clock)
    assert clock.diary == "ab" + "ab" + "ba" + "ab"
    assert done == ["abab", "ababba", "ababbaab"]
    assert timing.ours == (1, 2, 9)
    assert timing.theirs == (2, 2, 3)
    assert (timing.seconds, timing.against_seconds) == (2, 2)
    assert timing.ratios == [2, 1, 3 / 9]


def test_of_three_sides_each_begins_in_turn(bench):
    clock = Clock()
    sides = [clock.work(name, *[1] * 4) for name in "abc"]
    assert bench.round_robin(sides, 3, clock=clock) == [(1, 1, 1)] * 3
    assert clock.diary == "abc" + "abc" + "bca" + "cab"


def test_a_row_holds_medians_the_median_of_paired_ratios_and_the_floor(bench, tiny_lm):
    timing = bench.Timing((1.0, 2.0, 4.0), (3.0, 3.0, 4.0))
    row = bench.compare(tiny_lm(), "ours", "theirs", timing, floor_seconds=0.5, max_abs_error=0.0, goal=1.6)
    assert (row.seconds, row.against_seconds) == (2, 3)
    assert row.ratio == 1.5
    assert row.spread == (1, 3)
    assert row.floor_ratio == 6
    assert (row.model, row.device, row.dtype, row.repeats) == ("tiny-llama", "cpu", "float32", 3)
    assert row.reached is False


def test_a_goal_is_reached_missed_or_absent(bench, tiny_lm):
    def reached(**facts):
        return bench.compare(tiny_lm(), "ours", "theirs", bench.Timing((1.0,), (1.0,)), **facts).reached

    assert reached(goal=1.0) is True
    assert reached(goal=1.1) is False
    assert reached() is None


def rows_of(bench, lm):
    timed = bench.compare(lm, "choosing", "not choosing", bench.Timing((0.1,), (0.2,)), goal=1.0, note="a note")
    bare = bench.Row("other", "bytes", "more bytes", None, None, None, None, 2e6, 4e6, None, unit="bytes")
    return [timed, bare]


def test_rows_are_written_as_a_list_with_what_they_were_measured_on(bench, tiny_lm, tmp_path):
    bench.write(rows_of(bench, tiny_lm()), tmp_path / "new" / "rows.json")
    rows = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert [row["ratio"] for row in rows] == [2.0, None]
    assert {"model", "work", "against", "ratio", "floor_ratio", "max_abs_error", "goal", "seconds"} <= set(rows[0])
    assert all(row["environment"]["torch"] == torch.__version__ for row in rows)


def test_the_table_shows_every_row_and_note(bench, tiny_lm):
    out = io.StringIO()
    bench.show(rows_of(bench, tiny_lm()), Console(file=out, width=100))
    shown = out.getvalue()
    for text in ("tiny-llama (cpu, float32)", "choosing", "100.0 ms", "2.000", "reached", "a note", "4.00 MB", "torch"):
        assert text in shown


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (-0.5, "s", "-500.0 ms"), (12.3, "s", "12.30 s"), (4096, "parameters", "4,096")],
)
def test_amounts_are_readable(bench, value, unit, text):
    assert bench.amount(value, unit) == text


def test_a_median_needs_five_repeats_unless_it_is_only_a_try(bench):
    with pytest.raises(typer.BadParameter, match="5 or more"):
        bench.set_up(4, False, 0, "68m")
    with pytest.raises(typer.BadParameter, match="68m or 61m or 7b"):
        bench.set_up(5, False, 0, "70b")
    assert bench.set_up(5, False, 0, "68m") == 5
    assert bench.set_up(5, True, 0, "68m") <= 2


def test_the_random_model_is_what_its_shape_and_seed_say(bench):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = [bench.random_llama(seed=seed, device="cpu", **small, vocab_size=50) for seed in (0, 0, 1)]
    weights = [lm.model.get_output_embeddings().weight for lm in made]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert made[0].dtype == torch.float32
    assert len(made[0].tokenizer) == made[0].vocab_size == 50
    assert made[0].tokenizer("w4 w49 w50")["input_ids"] == [1, 4, 49, 0]
    assert made[0].pad_token_id == made[0].model.config.pad_token_id


def test_the_default_shape_has_60_to_120_million_parameters(bench):
    from transformers import AutoModelForCausalLM, LlamaConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**bench.SHAPES["68m"]))
    assert 60e6 < sum(parameter.numel() for parameter in model.parameters()) < 120e6


def test_speeds_are_measured(bench, tiny_lm):
    assert bench.tokens_per_second(tiny_lm(), 8, 2, 1) > 0
    assert bench.decoded_tokens_per_second(tiny_lm(), 8, 2, 2, steps=3) > 0
