"""`idp model info`: what a model is and how it was compressed."""

from __future__ import annotations

import json as jsonlib
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idp.cli.errors import guarded
from idp.cli.options import AllowPickle, Debug, Device, DType, Json, TrustRemoteCode
from idp.cli.quiet import hush

if TYPE_CHECKING:
    from idp.model.aliases import ModelSpec
    from idp.model.info import ModelInfo
    from idp.observer import Observer

_LAYER = re.compile(r"\.(\d+)\.")


@guarded()
def info_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Alias (see: idp models), folder, .gguf file, hub id.")],
    load: Annotated[
        bool, typer.Option("--load", help="Load it too, which tells its fingerprint and its size in memory.")
    ] = False,
    device: Device = "auto",
    dtype: DType = "auto",
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model is and how it was compressed; weights are sampled and, without --load, not loaded.

    Of a model on the hub that is not here, only the heads of its files are read.
    """
    hush(debug)
    from idp.cli.progress import progress
    from idp.model.aliases import resolve
    from idp.model.info import model_info

    spec = resolve(model, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    with progress(debug) as observer:
        info = model_info(spec, observer)
        if load:
            info = _loaded(spec, info, device, dtype, observer)
    facts = _facts(spec, info, device, dtype)
    if json:
        typer.echo(jsonlib.dumps({**facts, "sparsity": dict(info.sparsity)}, indent=2, ensure_ascii=False))
    else:
        _print(facts, info)


def _facts(spec: ModelSpec, info: ModelInfo, device: str, dtype: str) -> dict[str, Any]:
    facts = {
        "model": spec.name,
        "source": info.source,
        "architecture": info.architecture,
        "compression": info.describe(),
        "method": info.compression.method,
        "bits": info.compression.bits,
        "group_size": info.compression.group_size,
        "mean_sparsity": info.mean_sparsity,
        "pattern": info.pattern,
        "stored_values": info.values,
        "disk_bytes": info.disk_bytes,
    }
    if info.fingerprint is None:
        return facts | _estimate(spec, info, device, dtype)
    return facts | {
        "memory_bytes": info.memory_bytes,
        "dtype": info.dtype,
        "fingerprint": info.fingerprint.to_dict(),
    }


def _estimate(spec: ModelSpec, info: ModelInfo, device: str, dtype: str) -> dict[str, Any]:
    """What the model would take in the type that it would be loaded in."""
    if info.held is None:
        return {}
    from idp.model.device import resolve_device, resolve_dtype

    kind = resolve_dtype(spec.dtype if dtype == "auto" else dtype, resolve_device(device))
    return {"estimated_memory_bytes": info.held.bytes(kind.itemsize), "dtype": str(kind).removeprefix("torch.")}


def _loaded(spec: ModelSpec, info: ModelInfo, device: str, dtype: str, observer: Observer) -> ModelInfo:
    """What only the loaded model tells."""
    from idp.model.info import measured
    from idp.model.load import load

    observer.stage(f"loading {spec.name}", None)
    return measured(info, load(spec, device=device, dtype=dtype, observer=observer))


def _print(facts: dict[str, Any], info: ModelInfo) -> None:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.text import Text

    from idp.cli.tables import print_rows

    said = {key: facts[key] for key in ("architecture", "compression", "source")}
    if note := _unknown(info.compression.method):
        said["note"] = note
    said["on disk"] = f"{decimal(facts['disk_bytes'])}, {facts['stored_values']:,} stored values"
    if "memory_bytes" in facts:
        said["in memory"] = f"{decimal(facts['memory_bytes'])}, {facts['dtype']}"
        said["fingerprint"] = ", ".join(f"{key} {value}" for key, value in facts["fingerprint"].items())
    elif "estimated_memory_bytes" in facts:
        said["in memory"] = f"about {decimal(facts['estimated_memory_bytes'])}, {facts['dtype']}"
    console = Console()
    for key, value in said.items():
        console.print(Text.assemble((f"{key}: ", "bold"), value), soft_wrap=True)
    if rows := by_layer(info):
        console.print()
        print_rows(rows)


def _unknown(method: str) -> str:
    """What to say of a method that is not loaded here; transformers is asked for those that idp knows nothing of."""
    from idp.model.needs import is_known

    return "" if is_known(method) else f"transformers knows no method {method!r}, so this model cannot be loaded."


def by_layer(info: ModelInfo) -> list[dict[str, Any]]:
    """Share of zeros in percent, a row a layer and a column a matrix; nothing for a model without zeros."""
    table: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, share in info.sparsity.items():
        found = _LAYER.search(name)
        if found:
            matrix = name[found.end() :].removesuffix(".weight").rpartition(".")[2]
            table[int(found[1])][matrix] = f"{share:.0%}"
    return [{"layer": layer, **table[layer]} for layer in sorted(table)] if any(info.sparsity.values()) else []
