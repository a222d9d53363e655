"""An evaluation from settings to results."""

from __future__ import annotations

from idp.evaluate.arms import ArmResult, run_arm
from idp.evaluate.bench import Bench
from idp.evaluate.evaluation import Evaluation
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import templates_compiled_once
from idp.files import public_name
from idp.observer import Observer, Silent


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
    with templates_compiled_once():
        results = {name: _run(bench, name) for name in bench.arms}
    return Evaluation(settings, _model(bench), _bank(bench), tuple(bench.tasks), results, bench.notes)


def _run(bench: Bench, name: str) -> ArmResult:
    """Run one arm, and give its model back before the next is loaded."""
    lm = bench.arm_model(name)
    passes = lm.mixture.passes(len(bench.bank)) + 1 if lm.mixture else 1
    bench.observer.stage(name, bench.items() * passes)
    result = run_arm(name, lm, bench.tasks, bench.settings.limit)
    del lm
    bench.release(name)
    return result


def _model(bench: Bench) -> dict[str, object]:
    spec, lm = bench.spec, bench.lm
    return {
        "name": spec.name,
        "source": public_name(spec.source),
        "compression": spec.compression,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "fingerprint": lm.fingerprint.to_dict(),
    }


def _bank(bench: Bench) -> dict[str, object]:
    if not bench.uses_bank:
        return {"name": "none", "prompts": [], "provenance": {}}
    return {"name": bench.bank_name, "prompts": list(bench.bank.names), "provenance": dict(bench.bank.provenance)}
