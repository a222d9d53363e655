"""A bank from a config alone: what `idp bank build` does, for the command line and for Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from idp.errors import TaskError
from idp.evaluate.material import evaluation_texts, training_items
from idp.model.aliases import ModelSpec, aliases, resolve
from idp.model.load import load, load_trainable
from idp.model.loaded import LanguageModel
from idp.observer import Observer
from idp.tune.atlas import HELD_OUT, atlas_data
from idp.tune.build import build
from idp.tune.built import Built
from idp.tune.config import BuildConfig
from idp.tune.folder import RunFolder
from idp.tune.objective_choice import asks_a_teacher
from idp.tune.sources import Data, Gathered, gather, prepare, reported

__all__ = ["build_bank"]

_ATLAS = "atlas"


def build_bank(config: BuildConfig, output: Path, observer: Observer, overwrite: bool = False) -> Built:
    """Load, gather, build and write; what is interrupted goes on when called again.

    Args:
        config: what is built, of which model and data.
        output: the run folder, see `idp.tune.folder.RunFolder`; its `bank` is the bank.
        observer: is told of progress.
        overwrite: whether the files of another run in the folder may be replaced.

    Returns:
        The bank and how it came about.

    Raises:
        IdpError: any setting, source or model that cannot be used, each with its own message; what another run left in
            the folder is then still there.

    Example:
        >>> config = BuildConfig(model="reference", method="static", steps=100)
        >>> build_bank(config, Path("run"), Silent()).bank.names  # doctest: +SKIP
        ('static',)
    """
    folder = RunFolder(output, config, overwrite)
    with folder.logged():
        spec = _resolve(config, config.model)
        read = load if config.method == "texts" else load_trainable
        lm = read(spec, config.device, config.dtype, observer=observer)
        observer.stage("reading data", None)
        dense = cache(lambda: _dense(config, spec, lm, observer))
        data = _data(lm, config, spec, dense, folder.work, observer)
        teacher = dense() if asks_a_teacher(config) else None
        built = build(lm, data, config, folder.work, observer, teacher, folder.claim)
        folder.finish(built, lm, teacher)
    return built


def _resolve(config: BuildConfig, name: str) -> ModelSpec:
    """What a name stands for, with what the user lets models do."""
    return resolve(name, allow_pickle=config.allow_pickle, trust_remote_code=config.trust_remote_code)


def _dense(config: BuildConfig, spec: ModelSpec, lm: LanguageModel, observer: Observer) -> LanguageModel | None:
    """The dense model, if one is named or known."""
    known = None if spec.dense in (spec.source, spec.name) else spec.dense  # nobody learns anything from himself
    name = known if config.teacher == "auto" else config.teacher
    if name in (None, "none"):
        return None
    return load(_resolve(config, str(name)), config.device, lm.dtype, observer=observer)


def _data(
    lm: LanguageModel,
    config: BuildConfig,
    spec: ModelSpec,
    dense: Callable[[], LanguageModel | None],
    work: Path,
    observer: Observer,
) -> Data:
    """Everything that the config names; of a reference model without data, its world."""
    if not (config.text or config.questions or config.tasks):
        return _world(lm, config, spec)
    found = gather(lm, config, dense, work, observer)
    folder = Path(config.data_dir) if config.data_dir else None
    if config.tasks:
        items = training_items(lm, config.tasks, config.limit, config.seed, folder)
        found = Gathered([*found.examples, *items.examples], found.counts | items.counts)
    checked = tuple(dict.fromkeys([*config.check, *config.tasks]))
    return prepare(lm, found, config, evaluation_texts(checked, folder), observer.note)


def _world(lm: LanguageModel, config: BuildConfig, spec: ModelSpec) -> Data:
    """Facts of the reference world."""
    if not (spec.name in aliases() and spec.name.startswith("reference")):
        raise TaskError("there is nothing to tune on: give --text, --questions or --tasks.")
    if config.check:
        raise TaskError("facts of the reference world are checked against its own tasks: leave --check out.")
    if config.held_out != 1 / HELD_OUT:
        raise TaskError(f"of the reference world one subject in {HELD_OUT} is held out: leave --held-out out.")
    data = atlas_data(lm, config.limit or config.atlas, config.seed)
    return reported(lm, data, evaluation_texts([_ATLAS]), "sentences that all stories have")
