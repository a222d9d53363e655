"""Arms run on their own, without a bench."""

from collections.abc import Sequence

from idp.evaluate.arms import ArmResult, arm_result, run_task
from idp.evaluate.lm import IdpLM
from idp.evaluate.tasks import EvalTask


def run_arm(name: str, lm: IdpLM, tasks: Sequence[EvalTask], limit: int | None) -> ArmResult:
    """Evaluate one arm on all tasks."""
    return arm_result(name, tasks, [run_task(lm, entry, limit) for entry in tasks])
