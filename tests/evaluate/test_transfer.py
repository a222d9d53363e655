from __future__ import annotations

import json
from dataclasses import replace

import pytest

from idp.errors import ModelError, TaskError
from idp.evaluate.settings import Settings
from idp.evaluate.transfer import transfer, write_transfer
from idp.model.aliases import resolve


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    settings = Settings(
        bank="tuned/sparse",
        tasks=("atlas_easy", "atlas_short"),
        arms=("compressed", "static"),
        limit=12,
        output_dir=tmp_path_factory.mktemp("transfer"),
    )
    found = transfer(settings, ["reference", "reference-gptq", "reference"])
    return found, settings.output_dir


def test_every_arm_on_every_model_once(rows):
    found, folder = rows
    pairs = [("reference", "compressed"), ("reference", "static")]
    assert [(row.model, row.arm) for row in found] == pairs + [("reference-gptq", arm) for _, arm in pairs]
    assert [row.own for row in found] == [True, True, False, False]
    assert {path.name for path in folder.iterdir()} == {"reference", "reference-gptq"}


def test_gains_are_paired_with_the_model_alone(rows):
    for base, row in zip(rows[0][::2], rows[0][1::2], strict=True):
        assert base.gain is None
        assert row.gain.difference.value == pytest.approx(row.mean - base.mean)


def test_is_written_as_json(rows, tmp_path):
    written = json.loads(write_transfer(rows[0], tmp_path).read_text())
    assert [row["model"] for row in written] == [row.model for row in rows[0]]
    assert set(written[1]["gain"]) == {"value", "ci95", "p"}


@pytest.mark.parametrize(("bank", "models"), [(None, ["reference"]), ("text", [])])
def test_a_bank_and_models_are_needed(bank, models):
    with pytest.raises(TaskError, match="name a bank"):
        transfer(Settings(bank=bank), models)


def test_one_dense_model_serves_all_folders(settings, compressed, dense):
    found = transfer(settings(tasks=("atlas_text", "atlas_easy"), arms=("dense", "compressed")), [compressed, dense])
    pairs = [(model, arm) for model in (compressed, dense) for arm in ("dense", "compressed")]
    assert [(row.model, row.arm) for row in found] == pairs
    assert found[0].mean == found[2].mean == found[3].mean


def test_folders_have_a_gap_to_the_dense_model_that_is_given(settings):
    folder = resolve("reference-gptq").source
    study = settings(bank="tuned/gptq", dense="reference-dense", arms=("dense", "compressed"), tasks=("atlas_hard",))
    assert [row.gap.value for row in transfer(replace(study, limit=40), [folder])] == [1, 0]
    assert [(row.arm, row.gap) for row in transfer(replace(study, dense=None), [folder])] == [("compressed", None)]


def test_none_goes_without_the_dense_model_of_an_alias(settings):
    study = settings(bank="tuned/gptq", dense="none", arms=("dense", "compressed"), tasks=("atlas_easy",))
    assert [(row.arm, row.gap) for row in transfer(study, ["reference-gptq"])] == [("compressed", None)]


@pytest.mark.parametrize(("name", "message"), [("refrence-dense", "Did you mean"), ("./none/there", "no folder")])
def test_a_dense_model_that_was_asked_for_must_load(settings, compressed, name, message):
    with pytest.raises(ModelError, match=message):
        transfer(settings(dense=name, arms=("dense", "compressed")), [compressed])
