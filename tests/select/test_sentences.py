from __future__ import annotations

import sys

import httpx
import huggingface_hub
import pytest
import torch

from idp.errors import MissingExtraError, ModelError
from idp.select import sentences
from idp.select.sentences import SentenceEncoder, texts_of

TEXTS = ["Who wrote the letter?", "Name the author of this letter.", "Whales are mammals."]


@pytest.fixture(scope="module")
def encoder(sentence_folder):
    return SentenceEncoder.load(sentence_folder)


@pytest.fixture
def other(tiny_lm, tmp_path):
    """The folder of a language model, which is one of sentences by the mean of its states."""
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "other")
    lm.tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_what_means_the_same_is_near(encoder):
    found = encoder.encode(TEXTS)
    assert found.shape == (3, encoder.dimension) == (3, 384)
    assert found.dtype == torch.float64
    near = torch.nn.functional.normalize(found, dim=1) @ torch.nn.functional.normalize(found, dim=1).T
    assert near[0, 1] > 0.6 > 0.3 > near[0, 2]


def test_a_text_is_judged_as_if_it_were_alone(encoder):
    texts = [*TEXTS, "", "word " * 300]
    together = encoder.encode(texts)
    torch.testing.assert_close(torch.cat([encoder.encode([text]) for text in texts]), together, atol=1e-5, rtol=1e-5)
    assert encoder.encode([]).shape == (0, 384)


def test_a_model_is_loaded_once_and_known_by_its_fingerprint(encoder, sentence_folder, other):
    assert SentenceEncoder.load(sentence_folder) is encoder
    small = SentenceEncoder.load(str(other))
    assert small.dimension == small.encode(["one"]).shape[1] == 32
    assert len(small.fingerprint) == len(encoder.fingerprint) == 16
    assert small.fingerprint != encoder.fingerprint
    again = SentenceEncoder("elsewhere", encoder._model)
    assert again.fingerprint == encoder.fingerprint
    pooling = again._model[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "pooling_mode", "cls")
        assert SentenceEncoder("elsewhere", encoder._model).fingerprint != encoder.fingerprint


def test_texts_are_those_of_the_tokens(tiny_lm):
    lm = tiny_lm()
    ids = lm.tokenizer(TEXTS)["input_ids"]
    assert ids[0][0] == lm.tokenizer.bos_token_id
    assert texts_of(lm, [*ids, []]) == [*TEXTS, ""]
    assert texts_of(lm, []) == []


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[embed\]'"):
        SentenceEncoder.load("org/never-loaded")


def test_offline_says_where_it_looked_and_what_helps(monkeypatch):
    monkeypatch.setattr(sentences, "_read", lambda *_, **__: pytest.fail("would try again for a minute"))
    with pytest.raises(ModelError) as offline:
        SentenceEncoder.load("org/never-cached")
    for words in ("org/never-cached", "cannot be reached", str(huggingface_hub.constants.HF_HUB_CACHE), "model=FOLDER"):
        assert words in str(offline.value)

    def unreachable(*_, **__):
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(ModelError, match=r"cannot be reached.*model=FOLDER"):
        SentenceEncoder.load("org/never-cached")


def test_half_a_download_is_gone_on_with(monkeypatch):
    calls = []

    def read(_, __, local_files_only=True):
        calls.append(local_files_only)
        if local_files_only:
            raise ModelError("no weights")
        return "model"

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "modules.json")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(sentences, "_read", read)
    assert SentenceEncoder.load("org/half")._model == "model"
    assert calls == [True, False]


def test_folders_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="there is no folder /no/such/folder"):
        SentenceEncoder.load("/no/such/folder")
    with pytest.raises(ModelError, match="cannot read the configuration and weights"):
        SentenceEncoder.load(str(tmp_path))


def test_code_of_a_model_is_not_run(other):
    (other / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "mine.Module"}]')
    (other / "mine.py").write_text("raise RuntimeError('it was run')")
    with pytest.raises(ModelError, match="not part of Sentence Transformers") as caught:
        SentenceEncoder.load(str(other))
    assert "it was run" not in str(caught.value)
