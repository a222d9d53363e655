"""Tests of the names `idp` offers, and of how quickly it can be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import idp


def test_importing_idp_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, idp; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", idp.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(idp, name) is not None
    assert name in dir(idp)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'wrapp'"):
        _ = idp.wrapp


def test_the_version_is_that_of_the_installed_package() -> None:
    assert idp.__version__ == version("idp")


LAYERS = (
    "errors files resources stats report bank model text run compress select dynamic tune rivals evaluate cli".split()
)
"""From the bottom up; what is in none of them is used by all."""


def _imports(file: Path) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    return [node.module.split(".")[1] for node in nodes if (node.module or "").startswith("idp.")]


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if (Path(idp.__file__).parent / layer).is_dir()])
def test_imports_run_one_way(layer: str) -> None:
    upwards = {
        f"{file.name} imports {other}"
        for file in (Path(idp.__file__).parent / layer).rglob("*.py")
        for other in _imports(file)
        if other in LAYERS and LAYERS.index(other) > LAYERS.index(layer)
    }
    assert not upwards
