"""The folder of a build: its config, checkpoints, log, curves, and in the end the bank with its card."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from idp.bank.inits import save_with_inits
from idp.errors import MissingExtraError, OutputError, TaskError
from idp.files import atomic_write_text
from idp.tune.built import Built
from idp.tune.card import bank_card
from idp.tune.config import BuildConfig, load_config
from idp.tune.curves import draw_curves, write_curves

if TYPE_CHECKING:
    from idp.model.loaded import LanguageModel

__all__ = ["RunFolder"]

_LOG = logging.getLogger(__name__)

_CONFIG = "config.yaml"


class _Log(logging.FileHandler):
    """A log that gives up silently where the disk is full: what cannot be kept is then said by a better error."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close, even if the last lines are lost."""
        with contextlib.suppress(OSError):
            super().close()


class RunFolder:
    """Where a bank is built.

    | file | what |
    |---|---|
    | `config.yaml` | every setting; `idp bank build --config` repeats the run |
    | `log.txt` | what happened when |
    | `curves.csv`, `curves.png` | training and held-out loss of every prompt |
    | `work/` | checkpoints, the teacher's answers, measured losses; only needed to go on |
    | `bank/` | the bank, with its card (`README.md`), config and inits |

    Args:
        path: the folder, made where it is missing.
        config: how the bank is built.
        overwrite: whether the files of another run may be replaced.

    Raises:
        TaskError: the folder is that of a run with another config.
        OutputError: it cannot be written to.
    """

    def __init__(self, path: Path, config: BuildConfig, overwrite: bool = False) -> None:
        """Check whose the folder is."""
        self.path, self.config = path, config
        kept = path / _CONFIG
        begun = kept.exists() and (self.work.exists() or self.bank.exists())  # else it failed before it computed
        self._different = _differences(kept, config) if begun else []
        if self._different and not overwrite:
            raise TaskError(
                f"{path} is the folder of another run ({', '.join(self._different)}): give another --output, or "
                "--overwrite."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {path}: {error.strerror}. Choose another --output.") from error

    def claim(self) -> None:
        """Take the folder for this run; what another run left there goes, but for what can be used again.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if self._different:
            shutil.rmtree(self.bank, ignore_errors=True)
            for name in ("curves.csv", "curves.png"):
                (self.path / name).unlink(missing_ok=True)
            for losses in self.work.glob("losses-*"):  # in the last bits they depend on what was measured together
                losses.unlink(missing_ok=True)
        self._tidy()
        atomic_write_text(self.path / _CONFIG, self.config.to_yaml())

    def _tidy(self) -> None:
        """Remove what a run left that was killed while it wrote."""
        ours = [self.path.glob(f".{name}.*.tmp") for name in (_CONFIG, "curves.csv", "curves.png", "bank")]
        for unfinished in (*chain(*ours), *self.work.rglob(".*.tmp"), *self.bank.rglob(".*.tmp")):
            if unfinished.is_dir() and not unfinished.is_symlink():
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink(missing_ok=True)

    @property
    def work(self) -> Path:
        """Where checkpoints are kept."""
        return self.path / "work"

    @property
    def bank(self) -> Path:
        """Where the bank is kept."""
        return self.path / "bank"

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Write what the package logs to `log.txt` for as long as a run lasts, behind what is there already."""
        try:
            handler = _Log(self.path / "log.txt", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / 'log.txt'}: {error.strerror}.") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger = logging.getLogger("idp")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)
            handler.close()

    def finish(self, built: Built, lm: LanguageModel, teacher: LanguageModel | None) -> None:
        """Write what came out; the bank comes last, so that whoever finds it finds the rest.

        Raises:
            OutputError: the folder cannot be written to.
        """
        if built.curves:
            write_curves(self.path / "curves.csv", built.curves)
            try:
                draw_curves(self.path / "curves.png", built.curves)
            except MissingExtraError as error:
                _LOG.warning("no picture: %s", error)
        atomic_write_text(self.bank / _CONFIG, self.config.to_yaml())
        atomic_write_text(self.bank / "README.md", bank_card(built, self.config, lm, teacher))
        if built.starts:
            save_with_inits(built.bank, built.starts, self.bank)
        else:
            built.bank.save(self.bank)


def _differences(kept: Path, config: BuildConfig) -> list[str]:
    """The fields in which a config differs from one that was kept."""
    try:
        other = load_config(kept)
    except TaskError:  # damaged, or of another version
        return ["a config that cannot be read"]
    return [name for name, value in vars(other).items() if value != getattr(config, name)]
