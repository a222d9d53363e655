"""Benchmark data from a folder instead of the hub, under lm-eval's own tasks: same prompts, metrics and filters."""

from idp.evaluate.local.tasks import load_under, with_local_data

__all__ = ["load_under", "with_local_data"]
