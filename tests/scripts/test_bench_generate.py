from __future__ import annotations

import pytest
import torch
import typer
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def subject(script):
    return script("bench_subjects")


@pytest.fixture(scope="module")
def generate(script):
    return script("bench_generate")


@pytest.fixture(scope="module")
def subjects(subject, tiny_lm):
    lm = tiny_lm()
    return subject.Subjects(lm, subject.plan_for(lm, 0, 0, 1, 0, True))


def test_sizes_are_those_of_the_goals(subject, tiny_lm):
    plan = subject.plan_for(tiny_lm(), 0, 0, 5, 0, False)
    assert plan.lengths == (16, 28, 40, 52, 64, 76, 88, 100)
    assert (plan.tokens, plan.new_tokens, plan.batch) == (32, 64, 16)
    assert subject.plan_for(tiny_lm(), 512, 128, 5, 0, False).tokens == 512


def test_the_router_gives_different_requests_different_prompts(subjects):
    assert len(set(subjects.batch.choices)) == len(subjects.batch.choices)
    assert len({call.choices for call in subjects.singles}) == len(subjects.singles)
    assert subjects.batch.ids.shape[1] == subjects.plan.tokens
    subjects.run([subjects.router], [subjects.batch])()
    assert tuple(choice.index for choice in subjects.router.last_selections) == subjects.batch.choices


def test_the_static_side_uses_the_same_prompt_on_every_row(subjects):
    static = subjects.static(subjects.longest(subjects.batch))
    subjects.run([static], [subjects.batch])()
    assert {choice.index for choice in static.last_selections} == {max(subjects.batch.choices)}
    assert len(subjects.static_of_length(11).bank[0].embedding) == 11


def test_all_sides_generate_the_wanted_number_of_tokens(subjects):
    call = subjects.batch
    for model in (subjects.router, subjects.lm.model, subjects.lora):
        with torch.no_grad():
            output = model.generate(call.ids, attention_mask=call.mask, **subjects.settings())
        assert output.shape[1] == call.ids.shape[1] + subjects.plan.new_tokens


def test_adapters_are_in_a_copy(subjects):
    assert any("lora_" in name for name, _ in subjects.lora.named_parameters())
    assert not any("lora_" in name for name, _ in subjects.lm.model.named_parameters())


def test_rows_alone_have_no_padding(subjects):
    rows = subjects.batch.alone()
    assert sum(row.ids.shape[1] for row in rows) == subjects.batch.tokens
    assert [row.choices[0] for row in rows] == list(subjects.batch.choices)


def test_peak_memory_is_the_same_every_time_and_sees_temporaries(generate):
    def call():
        kept = torch.ones(1000)  # 4,000 bytes
        kept.add(1).add_(1)  # 4,000 more for a moment

    (peak,) = {generate.peak_bytes(call, torch.device("cpu")) for _ in range(3)}
    assert 8000 <= peak < 8100  # the numbers added are tensors of a few bytes


def test_a_difference_within_the_noise_has_no_ratio(generate, subjects):
    course = generate.Course(subjects, [subjects.batch], lambda: None)
    clear, unclear = course.added_row([1.0, 2.0], [2.0, 8.0]), course.added_row([1.0, -0.1], [2.0, 8.0])
    assert (clear.ratio, clear.spread) == (3.0, (2.0, 4.0))
    assert (unclear.ratio, unclear.spread) == (None, None)
    assert "no ratio" in unclear.note


def test_runs_from_the_command_line(generate, run_script):
    rows = run_script(generate.main)
    required = {"work", "against", "ratio", "floor_ratio", "max_abs_error", "goal"}
    assert all(required <= set(row) for row in rows)
    errors = [row["max_abs_error"] for row in rows if row["max_abs_error"] is not None]
    assert len(errors) == 2
    assert max(errors) < 1e-4
    assert {row["unit"] for row in rows} == {"s", "parameters", "bytes"}
    assert sum(row["goal"] is not None for row in rows) == 6


def test_too_few_repeats_are_refused(generate):
    app = typer.Typer()
    app.command()(generate.main)
    assert CliRunner().invoke(app, ["--repeats", "3"]).exit_code == 2
