"""What the default build of a bank costs, against tuning one static prompt: time and memory.

Two builds, each in a process of its own: one of a static prompt, one of parts. The time of an update of the static
prompt, measurements of its loss included, times the updates of all prompts is what tuning alone would take.

    python scripts/bench_build.py --model reference --out runs/bench-build

Finished builds in the folder would be read and not timed, so it has to be empty; on a machine that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from idp.cli.errors import guarded
from idp.files import require_free
from idp.tune.build import STATIC_STAGE


def built(flags: list[str], method: str, out: Path) -> dict[str, Any]:
    """What `idp bank build --json` says of one build."""
    command = [sys.executable, "-m", "idp", "bank", "build", *flags, "--method", method, "--json"]
    done = subprocess.run([*command, "--output", str(out)], stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def compared(static: dict[str, Any], parts: dict[str, Any]) -> dict[str, float]:
    """Time and memory of a build of parts, by themselves and against a static prompt."""
    each = static["seconds"][STATIC_STAGE] / static["updates"]  # seconds an update
    total = sum(parts["seconds"].values())
    return {
        "minutes": total / 60,
        "milliseconds an update, alone": 1000 * each,
        "time / updates alone": total / (each * parts["updates"]),
        "peak memory / static": parts["peak_memory_bytes"] / static["peak_memory_bytes"],
    }


@guarded()
def main(
    model: Annotated[str, typer.Option(help="The compressed model.")] = "reference",
    config: Annotated[str | None, typer.Option(help="YAML file or preset of other settings.")] = None,
    out: Annotated[Path, typer.Option(help="Empty folder of the builds.")] = Path("runs/bench-build"),
) -> None:
    """Build twice, and compare."""
    require_free(out)
    flags = ["--model", model, *(["--config", config] if config else [])]
    static = built(flags, "static", out / "static")
    parts = built(flags, "parts", out / "parts")
    table = Table("stage", "seconds", title=f"Building a bank for {model}")
    for name, seconds in parts["seconds"].items():
        table.add_row(name, f"{seconds:.0f}")
    for name, value in compared(static, parts).items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
