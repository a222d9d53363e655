from __future__ import annotations

import csv

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from idp.reference.corpus import epoch_documents
from idp.reference.world import build_world

STEPS = 6
SETTINGS = "seed 0, scale 0.08, 6 steps of 2 rows, peak 0.01"


@pytest.fixture(scope="module")
def train(script):
    """The script with a model small enough for a test."""
    module = script("train_reference")
    module.SHAPE = {
        **module.SHAPE,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    module.CONTEXT = 64
    return module


def run(train, folder, **changes):
    settings = {"steps": STEPS, "batch_size": 2, "scale": 0.08, "every": 2, "seed": 0, "device": "cpu", "peak": 1e-2}
    train.main(out=folder / "out", work=folder / "work", compiled=False, **(settings | changes))
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(train, folder)


def test_the_same_seed_gives_the_same_bytes(train, whole, tmp_path):
    assert run(train, tmp_path) == whole[1]


def test_another_seed_gives_another_model(train, whole, tmp_path):
    assert run(train, tmp_path, seed=1)["model.safetensors"] != whole[1]["model.safetensors"]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_run_resumes_to_the_same_bytes(train, whole, tmp_path, monkeypatch, stop):
    step, done = train.train_step, []

    def interrupted(*args):
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(step(*args))
        return done[-1]

    monkeypatch.setattr(train, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(train, tmp_path)
    monkeypatch.undo()
    again = []
    monkeypatch.setattr(train, "train_step", lambda *args: again.append(step(*args)) or again[-1])
    assert run(train, tmp_path) == whole[1]
    assert len(again) == STEPS - 2 * (stop // 2)  # what the last checkpoint holds is not done again
    assert (tmp_path / "work" / "loss.csv").read_text() == (whole[0] / "work" / "loss.csv").read_text()


def test_a_finished_run_only_writes_its_result_again(train, whole, monkeypatch):
    monkeypatch.setattr(train, "train_step", lambda *args: pytest.fail("trained again"))
    assert run(train, whole[0]) == whole[1]


def test_a_checkpoint_is_one_file_so_that_a_crash_cannot_leave_half_of_it(train, whole):
    assert {path.name for path in (whole[0] / "work").iterdir()} <= {"checkpoint.safetensors", "loss.csv", "loss.png"}
    model = train.build_model(AutoTokenizer.from_pretrained(whole[0] / "out"), 0)
    optimizer = train.make_optimizer(model, 1e-3)
    assert train.load_checkpoint(whole[0] / "work" / "checkpoint.safetensors", model, optimizer, SETTINGS) == STEPS
    assert train.load_checkpoint(whole[0] / "work" / "none.safetensors", model, optimizer, SETTINGS) == 0


def test_updates_lower_the_loss(train, whole):
    tokenizer = AutoTokenizer.from_pretrained(whole[0] / "out")
    model = train.build_model(tokenizer, 0)
    rows = next(train.batches(build_world(0, 0.08), tokenizer, 2, 0))
    losses = [train.train_step(model, model, train.make_optimizer(model, 1e-2), rows, 1e-2) for _ in range(10)]
    assert losses[-1] < losses[0] - 0.3


def test_the_result_loads_plainly_and_the_curve_is_kept(whole):
    folder, files = whole
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    model = AutoModelForCausalLM.from_pretrained(folder / "out", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "out")
    ids = tokenizer("The miller", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()
    assert model.config.bos_token_id == tokenizer.bos_token_id == ids[0, 0]
    with (folder / "work" / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert all(0 < float(row["loss"]) < 8 for row in rows)


def test_the_shipped_shape_stays_within_the_limits(script):
    module = script("train_reference")
    tokenizer = module.train_tokenizer(epoch_documents(build_world(0, 0.08), module.TOKENIZER_EPOCH), 300)
    model = module.build_model(tokenizer, 0)
    parameters = model.num_parameters() + (2048 - len(tokenizer)) * module.SHAPE["hidden_size"]
    assert parameters <= 8_000_000
    assert 2 * parameters < 20_000_000  # bytes in half precision


def test_building_a_model_leaves_the_global_generator_alone(train, whole):
    tokenizer = AutoTokenizer.from_pretrained(whole[0] / "out")
    before = torch.random.get_rng_state()
    first = train.build_model(tokenizer, 0).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, first[name]) for name, value in train.build_model(tokenizer, 0).state_dict().items())


def test_packing_loses_only_what_does_not_fill_a_row(train, whole):
    tokenizer = AutoTokenizer.from_pretrained(whole[0] / "out")
    documents = epoch_documents(build_world(0, 0.08), 100)
    rows = train.pack(documents, tokenizer)
    assert rows.shape[1] == train.CONTEXT
    text = tokenizer.decode(rows.flatten())
    whole_text = "".join(f"<s>{document}</s>" for document in documents)
    assert whole_text.startswith(text) or text[: len(text) - 8] in whole_text  # the last token may be half a letter
    assert rows.numel() > sum(map(len, tokenizer(documents).input_ids)) * 0.9


def test_every_row_of_an_epoch_comes_at_most_once_and_batches_follow_from_the_seed(train, whole):
    tokenizer, world = AutoTokenizer.from_pretrained(whole[0] / "out"), build_world(0, 0.08)
    rows = train.pack(epoch_documents(world, 0, 0), tokenizer)
    stream = train.batches(world, tokenizer, 2, 0)
    drawn = torch.cat([next(stream) for _ in range(len(rows) // 2)])
    assert len({tuple(row) for row in drawn.tolist()}) == len({tuple(row) for row in rows.tolist()}) - len(rows) % 2
    again = train.batches(world, tokenizer, 2, 0)
    assert torch.equal(torch.cat([next(again) for _ in range(len(rows) // 2)]), drawn)


def test_learning_rate_rises_then_falls_to_two_percent(train):
    rates = [train.learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] == 1 / 200 and max(rates) == pytest.approx(1.0)
    assert rates[:200] == sorted(rates[:200]) and rates[200:] == sorted(rates[200:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


def test_weight_decay_is_for_matrices_only(train, whole):
    model = train.build_model(AutoTokenizer.from_pretrained(whole[0] / "out"), 0)
    decayed, free = train.make_optimizer(model, 1e-3).param_groups
    assert all(p.ndim > 1 for p in decayed["params"]) and decayed["weight_decay"] > 0
    assert all(p.ndim == 1 for p in free["params"]) and free["weight_decay"] == 0
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_another_runs_checkpoint_is_refused(train, whole):
    with pytest.raises(SystemExit, match="another run .seed 0, .* not of this one .seed 1"):
        run(train, whole[0], seed=1)
