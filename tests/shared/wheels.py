"""Tiny wheels with a file in them, and a folder that pip takes for its index: no network is asked."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from idp.files import sha256_of
from idp.model.spec import ModelSpec, PackageFile

CONTENT = b"GGUF" + bytes(range(256)) * 16
MEMBER = "tiny_model/data/tiny.gguf"
REQUIREMENT = "tiny-model==1.0"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMPLETE = {"tiny/tiny.gguf", "tiny/.verified.json"}
INSTALLED = "raise AssertionError('the package was imported')\n"

_METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: a-package-that-is-nowhere\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Index:
    """A folder of wheels.

    Attributes:
        links: the folder.
        cache: where models are kept once they were fetched.
    """

    links: Path
    cache: Path

    def wheel(self, content: bytes = CONTENT, member: str = MEMBER) -> Path:
        """Put the wheel there; importing the package would fail, and what it depends on is nowhere."""
        path = self.links / "tiny_model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tiny_model/__init__.py", INSTALLED)
            archive.writestr(member, content)
            archive.writestr("tiny_model-1.0.dist-info/METADATA", _METADATA)
            archive.writestr("tiny_model-1.0.dist-info/WHEEL", _WHEEL)
            archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
        return path

    def package(self, sha256: str = SHA256, **changed: object) -> PackageFile:
        """The file in the wheel, as an alias names it."""
        wheel = self.wheel_path
        known = {"sha256": sha256, "wheel_sha256": sha256_of(wheel), "wheel_bytes": wheel.stat().st_size}
        return PackageFile(REQUIREMENT, MEMBER, **(known | changed))

    @property
    def wheel_path(self) -> Path:
        """The wheel."""
        return next(self.links.glob("*.whl"))

    def spec(self, sha256: str = SHA256, **changed: object) -> ModelSpec:
        """A model that travels in the wheel."""
        package = self.package(sha256, **changed)
        return ModelSpec("tiny", str(self.cache / "models" / "tiny"), gguf="tiny.gguf", package=package)


def make_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Have pip read a folder and nothing else, and keep models in another."""
    links, cache = folder / "links", folder / "cache"
    links.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(links),
        "PIP_NO_INDEX": "1",
        "IDP_CACHE": str(cache),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_CONSTRAINT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return Index(links, cache)


def place(spec: ModelSpec) -> Path:
    """The file once it was fetched."""
    return Path(spec.source) / "tiny.gguf"


def left(spec: ModelSpec) -> set[str]:
    """Everything that is in the cache beside locks."""
    folder = Path(spec.source).parent
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {".tiny.lock"}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """A package that pip installed; who imports it fails."""
    file = folder / MEMBER
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (folder / "tiny_model" / "__init__.py").write_text(INSTALLED)
    monkeypatch.syspath_prepend(folder)
    return file


def alias(index: Index, folder: Path, sha256: str = SHA256) -> Path:
    """A user's file with the model in it."""
    file = folder / "models.yaml"
    package = index.package(sha256)
    file.write_text(
        f"tiny: {{source: {package.source!r}, dense: tiny, sha256: '{sha256}', wheel_sha256: '{package.wheel_sha256}'}}"
    )
    return file
