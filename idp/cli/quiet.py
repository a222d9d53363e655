"""Keep the libraries' chatter off the screen. Has to run before they are imported."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_QUIET = {
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "LLM_COMPRESSOR_LOG_LEVEL": "CRITICAL",
    "LMEVAL_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
_LOUD_LIBRARIES = ("datasets", "huggingface_hub", "lm_eval", "transformers", "httpx", "accelerate")


class _FirstOfAKind(logging.Filter):
    """Lets each message through once, whatever numbers are filled into it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = f"{record.name} {record.msg}"
        new = kind not in self._seen
        self._seen.add(kind)
        return new


class _Teller(logging.Handler):
    """Hands messages to a function."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self.addFilter(_FirstOfAKind())

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


def hush(debug: bool) -> None:
    """Ask other libraries for silence; with `debug` let everything speak.

    Variables that the user set are left as they are.
    """
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # lm-eval's bootstrap forks us for a second's work
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data sets may fork too, and each would warn
    if debug:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in _LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


@contextmanager
def undisturbed(tell: Callable[[str], None], debug: bool) -> Iterator[None]:
    """Keep what libraries print, bars included, off the screen, and hand our own warnings to `tell`.

    Some bars listen to no setting. With `debug` all is shown, on stderr, since stdout is for results.
    """
    if debug:
        with redirect_stdout(sys.stderr):
            yield
        return
    ours, teller = logging.getLogger("idp"), _Teller(tell)
    ours.addHandler(teller)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        ours.removeHandler(teller)
