"""What an evaluation is asked to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from idp.errors import OutputError, brief
from idp.evaluate.arms import ARMS
from idp.files import atomic_write_text, json_text

if TYPE_CHECKING:
    from idp.evaluate.tasks import EvalTask

_FILE = "settings.json"
_NOT_KEPT = ("output_dir", "fresh", "resume", "allow_pickle", "trust_remote_code")


@dataclass(frozen=True)
class Settings:
    """Everything `idp eval` can be told.

    Attributes:
        model: alias, folder or hub id of the compressed model.
        dense: the same of the uncompressed one; None takes the alias's, ``"none"`` goes without.
        dense_bank: folder of a bank tuned for the dense model; None takes the one that its alias names.
        bank: folder of a bank; None takes the alias's, or the general text bank.
        tasks: tasks, tags or suites.
        arms: rows of the table.
        limit: items a task.
        text_limit: texts of a task of running text; None for all within the limit.
        batch_size: rows run at once; None finds a size for the device.
        device: ``auto``, ``cpu``, ``cuda`` ...
        dtype: ``auto``, ``float32``, ``bfloat16`` ...
        seed: of everything random.
        output_dir: where results and answers go.
        fit: whether selectors that the bank holds no state of may learn from training splits.
        fit_items: how many training items they learn from.
        allow_mismatch: whether a bank made for another model may be used.
        allow_pickle: whether models that are kept as a pickle may be read.
        trust_remote_code: whether code that comes with a model may be run.
        fresh: whether the answers of earlier runs are deleted first.
        data_dir: folder of local task files, read in place of the hub; None for the hub.
        resume: whether results that an interrupted run left in the output folder are taken as they are.
    """

    model: str = "reference"
    dense: str | None = None
    dense_bank: str | None = None
    bank: str | None = None
    tasks: tuple[str, ...] = ("atlas",)
    arms: tuple[str, ...] = ARMS
    limit: int | None = None
    text_limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    output_dir: Path = Path("idp-results")
    fit: bool = True
    fit_items: int = 400
    allow_mismatch: bool = False
    allow_pickle: bool = False
    trust_remote_code: bool = False
    fresh: bool = False
    data_dir: Path | None = None
    resume: bool = False

    def limit_of(self, entry: EvalTask) -> int | None:
        """How many items of a task are evaluated, None for all."""
        limits = [self.limit, self.text_limit if entry.is_text else None]
        return min((limit for limit in limits if limit is not None), default=None)

    def write(self) -> None:
        """Keep the settings in the output folder.

        Raises:
            OutputError: the file cannot be written.
        """
        data_dir = None if self.data_dir is None else str(self.data_dir)
        known = {**asdict(self), "data_dir": data_dir, **dict.fromkeys(_NOT_KEPT, None)}
        atomic_write_text(self.output_dir / _FILE, json_text(known))

    @classmethod
    def begun(cls, folder: Path, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Settings:
        """The settings of the run that was begun in a folder, to go on with it.

        Args:
            folder: the folder, which may be somebody else's: what models may do is not taken from it.
            allow_pickle: whether models that are kept as a pickle may be read.
            trust_remote_code: whether code that comes with a model may be run.

        Raises:
            OutputError: none was, or its settings cannot be read.
        """
        try:
            known = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            if known.keys() != {each.name for each in fields(cls)}:
                raise ValueError("they are not those of a run")
            lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
            paths = {"data_dir": Path(known["data_dir"])} if known.get("data_dir") else {}
            given = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code, "fresh": False}
            return cls(**{**known, **lists, **paths, **given, "output_dir": folder, "resume": True})
        except FileNotFoundError as error:
            raise OutputError(f"there is no run in {folder} to go on with: leave --resume out.") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise OutputError(f"the settings in {folder / _FILE} cannot be read: {brief(error)}") from error
