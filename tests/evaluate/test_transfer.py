from __future__ import annotations

import json

import pytest

from idp.errors import TaskError
from idp.evaluate.settings import Settings
from idp.evaluate.transfer import transfer, write_transfer


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
