"""Everything `idp bank build` can be told, as flags or as YAML."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from idp.errors import TaskError, suggest
from idp.files import read_yaml

__all__ = ["METHODS", "PRESETS", "BuildConfig", "load_config"]

METHODS = ("parts", "static", "smop", "texts")

_PRESETS = {path.stem: path for path in sorted(Path(__file__).with_name("presets").glob("*.yaml"))}

PRESETS = tuple(_PRESETS)
"""The settings of papers, by name."""


def _about(default: Any, text: str) -> Any:
    """A field with the text that explains it on the command line."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class BuildConfig:
    """How a bank is built: the fields are the flags of `idp bank build` and the keys of its YAML files.

    Example:
        >>> BuildConfig(steps=100).changed({"lengths": [5, 16]}).lengths
        (5, 16)
    """

    model: str = _about("reference", "Compressed model: alias, folder, .gguf file or hub id.")
    teacher: str = _about("auto", "Dense model to distil from: alias, folder or hub id; auto takes the alias's; none.")
    text: tuple[str, ...] = _about((), "Running text to tune on: file, folder or data set id (repeatable).")
    text_field: str = _about("text", "Where JSON lines and data sets keep their text.")
    text_split: str = _about("train", "Split of a data set that is read.")
    questions: tuple[str, ...] = _about((), "Questions to tune on: JSONL files (repeatable).")
    tasks: tuple[str, ...] = _about((), "lm-eval tasks whose training splits are tuned on (repeatable).")
    check: tuple[str, ...] = _about((), "Tasks whose evaluation items must not occur in the tuning data (repeatable).")
    data_dir: str = _about("", "Folder of local files for --tasks and --check, read in place of the hub.")
    template: str = _about("Question: {question}\nAnswer:", "How a question of --questions is put.")
    row_tokens: int = _about(128, "Tokens of a row of running text.")
    atlas: int = _about(8000, "Items of each task about the reference world, for a reference model without other data.")
    limit: int = _about(0, "Most examples of each source; 0 for all.")
    as_text: float = _about(0.0, "Share of the questions that are read as running text too, with their answers.")
    held_out: float = _about(0.25, "Share of your data that judges prompts and fits selectors.")
    method: str = _about("parts", f"What is built: {', '.join(METHODS)}.")
    objective: str = _about("auto", "Sum of terms such as answer+choice; auto distils where there is a teacher.")
    temperature: float = _about(1.0, "Of the teacher's distributions.")
    top_k: int = _about(16, "Tokens kept of each of the teacher's distributions.")
    lengths: tuple[int, ...] = _about(
        (16,), "Virtual tokens of the prompts; several are mixed in one bank (repeatable)."
    )
    init: str = _about(
        "frequent", "Where prompts start: frequent, vocabulary, uniform, labels, text:WORDS, prompt:PATH:NAME."
    )
    steps: int = _about(1600, "Updates of the static prompt.")
    lr: float = _about(0.1, "Peak learning rate of the static prompt.")
    parts: int = _about(20, "Parts of the data, a prompt each.")
    part_steps: int = _about(300, "Updates of each part's prompt, over all rounds.")
    part_lr: float = _about(0.05, "Peak learning rate of the parts' prompts, which start from the static one.")
    rounds: int = _about(2, "Rounds of assigning examples to prompts and tuning these.")
    balance: float = _about(1.0, "How far parts are held towards equal size, 0 to 1.")
    features: tuple[str, ...] = _about(
        ("state",), "What parts are found by: state, embedding, damage, loss-gap, gradient."
    )
    sample: int = _about(4000, "Examples whose losses under all prompts are measured for a new assignment.")
    batch_size: int = _about(32, "Examples an update of each prompt.")
    rows_at_once: int = _about(0, "Most rows whose activations are in memory at once; 0 for the batch size.")
    checkpointing: bool = _about(False, "Compute activations twice to save memory.")
    optimizer: str = _about("adamw", "adamw or adafactor.")
    schedule: str = _about("cosine", "cosine, linear or constant.")
    warmup: float = _about(0.05, "Warm-up: a share of the steps, or from 1 their number.")
    weight_decay: float = _about(0.0, "Weight decay.")
    clip: float = _about(1.0, "Largest norm of a gradient; 0 for none.")
    measurements: int = _about(10, "How often the held-out loss of a prompt is measured in a round.")
    patience: int = _about(0, "Measurements without progress after which a prompt is done; 0 for never.")
    router_noise: float = _about(1.0, "Spread of the noise on the router of method smop while it is tuned.")
    load_balance: float = _about(0.0, "Weight of even use of the prompts of method smop.")
    pool: str = _about("text", "Bank that method texts chooses from.")
    count: int = _about(8, "Most texts that method texts chooses.")
    dtype: str = _about("auto", "auto, float32, bfloat16 or float16.")
    device: str = _about("auto", "auto, cpu, cuda, ...")
    allow_pickle: bool = _about(False, "Read weights that are kept as a pickle; plain tensors of it and no code.")
    trust_remote_code: bool = _about(False, "Run code that comes with a model, which can do anything.")
    seed: int = _about(0, "Of everything drawn at random.")

    def __post_init__(self) -> None:
        """Check what is not checked where it is used."""
        for name, kind in get_type_hints(BuildConfig).items():
            _check_type(name, getattr(self, name), kind)
        if self.method not in METHODS:
            raise TaskError(f"unknown method {self.method!r}. {suggest(self.method, METHODS)}")
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) < len(self.lengths):
            raise TaskError(f"cannot tune prompts of lengths {list(self.lengths)}; give different ones, 1 or more.")
        if self.method == "smop" and len(self.lengths) > 1:
            raise TaskError("the prompts of a mixture (smop) have one length; give one.")
        if min(self.top_k, self.count, self.sample) < 1 or not self.temperature > 0:
            raise TaskError(
                f"top_k {self.top_k}, count {self.count} and sample {self.sample} have to be 1 or more, and "
                f"temperature {self.temperature:g} above 0."
            )
        if not 0 < self.held_out < 1 or self.limit < 0:
            raise TaskError(f"cannot hold out {self.held_out:g} of at most {self.limit} examples; give 0 to 1.")
        if not 0 <= self.as_text <= 1:
            raise TaskError(f"cannot read a share of {self.as_text:g} of the questions as text; give 0 to 1.")

    def changed(self, values: Mapping[str, Any]) -> BuildConfig:
        """Return the config with other values, lists taken as tuples.

        Raises:
            TaskError: an unknown key (near misses are named), or a value of the wrong type.
        """
        known = [each.name for each in fields(self)]
        for key in values:
            if key not in known:
                raise TaskError(f"unknown key {key!r} in the config. {suggest(key, known)}")
        kinds = get_type_hints(BuildConfig)
        plain: dict[str, Any] = {key: _plain(value, kinds[key]) for key, value in values.items()}
        return replace(self, **plain)

    def to_yaml(self) -> str:
        """Write every field as YAML that `load_config` reads."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return yaml.safe_dump(plain, sort_keys=False)


def _plain(value: Any, kind: Any) -> Any:
    """A value as a field holds it: lists are tuples, and `1e-2`, which YAML takes for a text, is a number."""
    if isinstance(value, list):
        return tuple(value)
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _check_type(name: str, value: Any, kind: Any) -> None:
    """Complain about a value that a flag of this kind could not have."""
    each = get_args(kind)[0] if get_args(kind) else kind
    values = value if get_args(kind) else (value,)
    right = isinstance(values, tuple) and all(_is(one, each) for one in values)
    if not right:
        many = "a list of " if get_args(kind) else ""
        raise TaskError(f"{name} is {value!r} in the config, but it has to be {many}{each.__name__}.")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def load_config(path: str | os.PathLike[str]) -> BuildConfig:
    """Read a YAML file of some of the fields; dashes and underscores in keys are the same.

    Args:
        path: the file, or one of `PRESETS`.

    Raises:
        TaskError: the file cannot be read, is no mapping, or has an unknown key or a value of the wrong type.

    Example:
        >>> load_config("prompt-tuning").optimizer
        'adafactor'
    """
    path = _PRESETS.get(str(path), path)
    if not (Path(path).suffix or Path(path).exists()):
        raise TaskError(f"{path} is neither a YAML file nor a preset. {suggest(str(path), PRESETS)}")
    values = read_yaml(path, TaskError)
    if not isinstance(values, dict):
        raise TaskError(f"{path} is not a config: it has to be a mapping such as `steps: 600`.")
    return BuildConfig().changed({str(key).replace("-", "_"): value for key, value in values.items()})
