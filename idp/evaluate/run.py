"""An evaluation from settings to results."""

from __future__ import annotations

from collections.abc import Callable

from idp.errors import OutputError, brief
from idp.evaluate.arms import ArmResult, arm_result, run_task
from idp.evaluate.bench import Bench
from idp.evaluate.evaluation import Evaluation
from idp.evaluate.kept import RunFolder, TaskResult
from idp.evaluate.settings import Settings
from idp.evaluate.tasks import templates_compiled_once
from idp.files import public_name
from idp.observer import Observer, Silent
from idp.run.store import PrefixStore


def evaluate(
    settings: Settings, observer: Observer | None = None, then: Callable[[Evaluation], object] | None = None
) -> Evaluation:
    """Run all arms on all tasks.

    Answers are kept in the output folder as they come: the same call after an interruption goes on where it stopped.

    Args:
        settings: what to evaluate.
        observer: is told of progress.
        then: what is done with the outcome while the output folder is still this run's alone, by one process of those
            that share the work; `idp.evaluate.write_report` writes the results.

    Returns:
        Every arm's results.

    Raises:
        IdpError: any of its kinds, one line that says what is wrong and what to do.

    Example:
        >>> asked = Settings(limit=20, arms=("compressed", "router"))
        >>> evaluate(asked, then=write_report).arms["router"].mean  # doctest: +SKIP
        0.74
    """
    bench = Bench(settings, observer or Silent())
    with bench.held() as folder, templates_compiled_once():
        if bench.team.is_first:
            folder.begin(anew=not settings.resume)
            settings.write()
        outcome = _outcome(bench, folder)
        if then is not None and bench.team.is_first:
            bench.observer.stage("testing differences", None)
            then(outcome)
    return outcome


def _outcome(bench: Bench, folder: RunFolder) -> Evaluation:
    """Run the arms one after the other; one that fails leaves the others alone."""
    results: dict[str, ArmResult] = {}
    failed: dict[str, Exception] = {}
    for name in bench.arms:
        try:
            results[name] = _run(bench, name, folder)
        except (OutputError, MemoryError):
            raise
        except Exception as error:
            if bench.team.size > 1:  # the others wait for this process
                raise
            failed[name] = error
            bench.note(f"arm {name!r} failed: {brief(error)}")
        finally:
            bench.release(name)
    if not results:
        raise next(iter(failed.values()))
    reasons = {name: brief(error) for name, error in failed.items()}
    return Evaluation(
        bench.settings,
        _model(bench),
        _bank(bench),
        tuple(bench.tasks),
        results,
        bench.notes,
        failed=reasons,
        items=bench.item_hashes,
    )


def _run(bench: Bench, name: str, folder: RunFolder) -> ArmResult:
    """Run one arm on the tasks whose results are not there yet, and give its model back before the next is loaded."""
    key = bench.circumstances(name)
    found = bench.team.agree(lambda: _kept(bench, name, folder, key))
    missing = [entry for entry in bench.tasks if entry.name not in found]
    if missing:
        lm = bench.arm_model(name)
        passes = lm.mixture.passes(len(bench.bank)) + 1 if lm.mixture else 1
        bench.observer.stage(name, bench.items(missing) * passes)
        for entry in missing:
            found[entry.name] = run_task(lm, entry, bench.settings.limit)
            if bench.team.is_first:
                folder.put(name, found[entry.name], key)
        del lm
    return arm_result(name, bench.tasks, [found[entry.name] for entry in bench.tasks])


def _kept(bench: Bench, name: str, folder: RunFolder, key: str) -> dict[str, TaskResult]:
    """What an earlier run left, where that may be taken."""
    if not bench.settings.resume:
        return {}
    kept = [folder.get(name, entry.name, key) for entry in bench.tasks]
    return {result.task: result for result in kept if result is not None}


def _model(bench: Bench) -> dict[str, object]:
    spec, lm = bench.spec, bench.lm
    return {
        "name": spec.name,
        "source": public_name(spec.source) if spec.package is None else spec.package.source,
        "compression": spec.compression,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "fingerprint": lm.fingerprint.to_dict(),
    }


def _bank(bench: Bench) -> dict[str, object]:
    if not bench.uses_bank:
        return {"name": "none", "prompts": [], "tokens": [], "digest": "", "provenance": {}}
    store = PrefixStore(bench.lm, bench.bank)
    return {
        "name": bench.bank_name,
        "prompts": list(bench.bank.names),
        "tokens": [store.length(index) for index in range(len(bench.bank))],
        "digest": bench.bank.digest,
        "provenance": dict(bench.bank.provenance),
    }
