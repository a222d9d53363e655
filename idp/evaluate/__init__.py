"""Evaluation through lm-eval: importing this package registers lm-eval's model type `idp`."""

from idp.evaluate.evaluation import Evaluation
from idp.evaluate.lm import IdpLM
from idp.evaluate.report import write_report
from idp.evaluate.run import evaluate
from idp.evaluate.settings import Settings

__all__ = ["Evaluation", "IdpLM", "Settings", "evaluate", "write_report"]
