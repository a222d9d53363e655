"""Benchmark data from a folder instead of the hub, under lm-eval's own tasks: same prompts, metrics and filters."""

from idp.evaluate.local.tasks import with_local_data

__all__ = ["with_local_data"]
