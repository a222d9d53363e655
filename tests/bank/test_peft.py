"""Adapters of PEFT become prompts and prompts adapters; what is no prompt is refused by what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from idp.bank import peft as adapters
from idp.bank.fingerprint import Fingerprint
from idp.bank.peft import adapter_folders, load_peft, save_peft, save_peft_bank
from idp.bank.prompt import Prompt
from idp.bank.vectors import PromptVector
from idp.errors import BankError, MissingExtraError, OutputError

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

    Make = Callable[..., Path]

KINDS = ["PROMPT_TUNING", "P_TUNING"]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def soft(name: str = "mine", length: int = 3, width: int = 8, seed: int = 0) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    return Prompt(name, embedding=torch.randn(length, width, generator=generator))


@pytest.fixture
def adapter(tmp_path: Path) -> Make:
    """Write an adapter by hand; fields of its configuration and its tensors may be given."""

    def make(tensors: dict[str, torch.Tensor] | None = None, **fields: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "token_dim": 8}
        (folder / CONFIG).write_text(json.dumps(config | fields))
        save_file({"prompt_embeddings": torch.ones(3, 8)} if tensors is None else tensors, folder / WEIGHTS)
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_what_peft_trained_and_saved_is_read(
    trained_by_peft: Any, tiny_lm: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm: LanguageModel = tiny_lm()
    model = trained_by_peft(lm, kind)
    expected = model.get_prompt_embedding_to_save("default")  # (n, d)
    model.save_pretrained(tmp_path / "task")
    monkeypatch.setitem(sys.modules, "peft", None)  # reading does without it
    prompt = load_peft(tmp_path / "task", fingerprint=lm.fingerprint)
    assert prompt.embedding is not None
    assert torch.equal(prompt.embedding, expected)
    assert prompt.name == "task"
    noted = dict(prompt.provenance)
    assert noted.pop("peft_version")
    noted.pop("base_model_name_or_path", None)  # the tiny model has no name
    assert noted == {"source": "task", "peft_type": kind, "num_virtual_tokens": 5, "task_type": "CAUSAL_LM"}


def test_a_vector_does_not_become_an_adapter(tmp_path: Path) -> None:
    shift = PromptVector("shift", torch.ones(2, 8)).to_prompt()
    with pytest.raises(BankError, match="'shift' is a vector"):
        save_peft(shift, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prefix_tuning_is_refused_by_what_it_is(trained_by_peft: Any, tiny_lm: Any, tmp_path: Path) -> None:
    trained_by_peft(tiny_lm(), "PREFIX_TUNING").save_pretrained(tmp_path / "prefix")
    with pytest.raises(BankError, match="PREFIX_TUNING adapter: it holds keys and values for every layer"):
        load_peft(tmp_path / "prefix")


def test_the_name_may_be_given_and_the_base_model_is_remembered(adapter: Make) -> None:
    prompt = load_peft(adapter(base_model_name_or_path="org/model"), name="mine")
    assert prompt.name == "mine"
    assert prompt.provenance["base_model_name_or_path"] == "org/model"


def test_the_folder_one_stands_in_has_a_name(adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapter())
    assert load_peft(".").name == "adapter"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_adapters_of_any_floating_type_are_read(adapter: Make, dtype: torch.dtype) -> None:
    embedding = load_peft(adapter({"prompt_embeddings": torch.full((3, 8), 0.5, dtype=dtype)})).embedding
    assert embedding is not None
    assert torch.equal(embedding, torch.full((3, 8), 0.5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "LORA"}, "of type 'LORA', which is not a prompt; PROMPT_TUNING or P_TUNING is"),
        ({"peft_type": "CARTRIDGE"}, "keys and values for every layer"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, "of type 'MULTITASK_PROMPT_TUNING'"),
        ({"peft_type": None}, "of type None"),
        ({"peft_type": ["LORA"]}, "of type"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "encoder-decoder"),
        ({"num_transformer_submodules": 2}, "encoder-decoder"),
        ({"num_virtual_tokens": 4}, r"shape \(3, 8\), but adapter_config.json says \(4, 8\)"),
        ({"token_dim": 16}, r"shape \(3, 8\), but"),
    ],
)
def test_configurations_that_do_not_fit(adapter: Make, fields: dict[str, Any], message: str) -> None:
    folder = adapter(**fields)
    with pytest.raises(BankError, match=message) as caught:
        load_peft(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.ones(3, 8)}, "holds no 'prompt_embeddings'"),
        (
            {"prompt_embeddings": torch.ones(3, 8), "score.weight": torch.ones(1)},
            r"more than a prompt \(score.weight\)",
        ),
        ({"prompt_embeddings": torch.full((3, 8), torch.nan)}, "NaN"),
        ({"prompt_embeddings": torch.ones(24)}, "shape"),
        ({"prompt_embeddings": torch.ones(3, 8, dtype=torch.int32)}, "floating-point"),
    ],
)
def test_weights_that_are_no_prompt(adapter: Make, tensors: dict[str, torch.Tensor], message: str) -> None:
    folder = adapter(tensors)
    with pytest.raises(BankError, match=message) as caught:
        load_peft(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"LORA"', "\ud800"])
def test_a_configuration_that_is_none(adapter: Make, text: str) -> None:
    folder = adapter()
    (folder / CONFIG).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BankError, match=r"adapter_config\.json (cannot be read|is not)"):
        load_peft(folder)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(BankError, match="no PEFT adapter at"):
            load_peft(path)


def test_a_pickle_is_not_opened(adapter: Make) -> None:
    folder = adapter()
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(BankError, match=r"is a pickle, which may run code.*safe_serialization=True"):
        load_peft(folder)


def test_weights_that_are_missing_or_damaged(adapter: Make) -> None:
    folder = adapter()
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(BankError, match="is not a safetensors file"):
        load_peft(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(BankError, match=r"is incomplete: adapter_model\.safetensors is missing"):
        load_peft(folder)


def test_another_width_is_an_error_that_names_both(adapter: Make) -> None:
    fingerprint = Fingerprint("LlamaForCausalLM", 16, 384, "0" * 16, "1" * 16)
    with pytest.raises(BankError, match=r"8 wide, trained on org/model; it does not fit LlamaForCausalLM of width 16"):
        load_peft(adapter(base_model_name_or_path="org/model"), fingerprint=fingerprint)


def test_adapters_are_found_in_a_folder_and_below_it(tmp_path: Path) -> None:
    save_peft_bank([soft("b"), soft("a")], tmp_path / "all")
    assert [path.name for path in adapter_folders(tmp_path / "all")] == ["a", "b"]
    assert adapter_folders(tmp_path / "all" / "a") == [tmp_path / "all" / "a"]
    assert adapter_folders(tmp_path / "nowhere") == []


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(
    names=st.lists(st.text(min_size=1, max_size=80).filter(str.strip), min_size=1, max_size=4, unique=True),
    length=st.integers(1, 5),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, kind: str, names: list[str], length: int
) -> None:
    prompts = [soft(name, length, seed=seed) for seed, name in enumerate(names)]
    folders = save_peft_bank(prompts, tmp_path_factory.mktemp("out") / "adapters", peft_type=kind)
    assert len({folder.name.lower() for folder in folders}) == len(names)
    assert all(folder.parent.name == "adapters" for folder in folders)
    for folder, prompt in zip(folders, prompts, strict=True):
        read = load_peft(folder)
        assert read.name == prompt.name
        assert read.digest == prompt.digest


def test_the_configuration_is_one_of_peft(tmp_path: Path) -> None:
    from peft import PeftConfig, PromptEncoderConfig, PromptTuningConfig

    save_peft(soft(), tmp_path / "one", base_model="org/model")
    config = PeftConfig.from_pretrained(tmp_path / "one")
    assert isinstance(config, PromptTuningConfig)
    assert (config.num_virtual_tokens, config.token_dim, config.inference_mode) == (3, 8, True)
    assert config.base_model_name_or_path == "org/model"
    assert set(load_file(tmp_path / "one" / WEIGHTS)) == {"prompt_embeddings"}
    save_peft(load_peft(tmp_path / "one"), tmp_path / "other", peft_type="P_TUNING")
    encoded = PeftConfig.from_pretrained(tmp_path / "other")
    assert isinstance(encoded, PromptEncoderConfig)
    assert encoded.base_model_name_or_path == "org/model"  # as it was imported


def test_text_has_no_vectors(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="prompt 'brief' is text"):
        save_peft_bank([soft(), Prompt("brief", text="Be brief. ")], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unknown_types_and_empty_lists(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="unknown type of adapter 'PTUNING'. Did you mean 'P_TUNING'"):
        save_peft(soft(), tmp_path / "out", peft_type="PTUNING")
    with pytest.raises(BankError, match="no prompt to write"):
        save_peft_bank([], tmp_path / "out")


def test_without_peft_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'idp\[peft\]'"):
        save_peft(soft(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_bank_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_peft_bank([soft("old")], tmp_path / "out")
    write, written = adapters.atomic_write_bytes, []

    def fails_later(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 2:
            raise OutputError("cannot write: no space left on device.")
        write(path, data)

    monkeypatch.setattr(adapters, "atomic_write_bytes", fails_later)
    with pytest.raises(OutputError, match="no space"):
        save_peft_bank([soft("a"), soft("b")], tmp_path / "out", overwrite=True)
    assert len(written) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in adapter_folders(tmp_path / "out")] == ["old"]


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    save_peft_bank([soft("old")], tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        save_peft_bank([soft("new")], tmp_path / "out")
    save_peft_bank([soft("new")], tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    save_peft(soft("newer"), tmp_path / "out" / "new", overwrite=True)
    assert load_peft(tmp_path / "out" / "new").name == "newer"


def test_a_folder_with_other_things_is_not_replaced_even_when_asked(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("kept")
    with pytest.raises(OutputError, match=r"holds dear\.txt, which is no adapter"):
        save_peft_bank([soft()], tmp_path / "letters", overwrite=True)
    with pytest.raises(OutputError, match="holds letters, which is no adapter"):
        save_peft(soft(), tmp_path, overwrite=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "kept"
