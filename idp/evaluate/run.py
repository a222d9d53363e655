"""An evaluation from settings to results."""

from __future__ import annotations

from pathlib import Path

from idp.evaluate.arms import run_arm
from idp.evaluate.bench import Bench
from idp.evaluate.evaluation import Evaluation
from idp.evaluate.settings import Observer, Settings, Silent


def evaluate(settings: Settings, observer: Observer | None = None) -> Evaluation:
    """Run all arms on all tasks.

    Answers are kept in the output folder as they come: the same call after an interruption goes on where it stopped.

    Args:
        settings: what to evaluate.
        observer: is told of progress.

    Returns:
        Every arm's results; write them with `idp.evaluate.report.write_report`.

    Raises:
        IdpError: any of its kinds, one line that says what is wrong and what to do.

    Example:
        >>> evaluate(Settings(limit=20, arms=("compressed", "router"))).arms["router"].mean  # doctest: +SKIP
        0.74
    """
    bench = Bench(settings, observer or Silent())
    results = {}
    for name in bench.arms:
        lm = bench.arm_model(name)
        bench.observer.stage(name, bench.items())
        results[name] = run_arm(name, lm, bench.tasks, settings.limit)
        del lm
        bench.release(name)
    return Evaluation(settings, _model(bench), _bank(bench), tuple(bench.tasks), results, bench.notes)


def _model(bench: Bench) -> dict[str, object]:
    spec, lm = bench.spec, bench.lm
    folder = Path(spec.source)
    return {
        "name": spec.name,
        "source": folder.name if folder.is_dir() else spec.source,  # a local path means nothing elsewhere
        "compression": spec.compression,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "fingerprint": lm.fingerprint.to_dict(),
    }


def _bank(bench: Bench) -> dict[str, object]:
    if not bench.uses_bank:
        return {"name": "none", "prompts": [], "provenance": {}}
    return {"name": bench.bank_name, "prompts": list(bench.bank.names), "provenance": dict(bench.bank.provenance)}
