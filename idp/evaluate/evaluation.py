"""The outcome of an evaluation: every arm's results and what can be concluded from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from idp.evaluate.arms import ArmResult
from idp.evaluate.settings import Settings
from idp.evaluate.stats import Array, Interval, Items, Paired, bootstrap_means, compare, detectable, gap_recovered
from idp.evaluate.tasks import EvalTask

REFERENCES = ("compressed", "static")
"""Arms that every arm is compared with."""
DEFAULT_ARMS = ("router-state", "router")
"""The first of these that was run is compared with every other arm."""
BOUND = "oracle"


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation found.

    Attributes:
        settings: what was asked.
        model: the compressed model's name, source, compression and fingerprint.
        bank: the bank's name and prompts.
        tasks: the tasks.
        arms: one result an arm, in the order of the table.
        notes: what a reader should know.
    """

    settings: Settings
    model: dict[str, object]
    bank: dict[str, object]
    tasks: tuple[EvalTask, ...]
    arms: dict[str, ArmResult]
    notes: list[str] = field(default_factory=list)

    @property
    def main_arm(self) -> ArmResult:
        """The arm whose lm-eval results stand at the top level of the results file."""
        methods = [arm for name, arm in self.arms.items() if name != BOUND] or list(self.arms.values())
        return next((self.arms[name] for name in DEFAULT_ARMS if name in self.arms), methods[-1])

    @cached_property
    def gaps(self) -> dict[str, Interval]:
        """Gap recovered by every arm, with its paired interval; empty without a dense and a compressed arm."""
        if not {"dense", "compressed"} <= self._items.keys():
            return {}
        means = {name: arm.mean for name, arm in self.arms.items()}
        return {
            name: gap_recovered(name, {k: v for k, v in means.items() if v is not None}, self._boot) for name in means
        }

    @cached_property
    def paired(self) -> list[Paired]:
        """Every arm against the compressed model and the static prompt, and the best router against every other arm."""
        best = self._best
        pairs = [(a, b) for b in REFERENCES for a in self._items if b in self._items and a != b]
        others = [name for name in self._items if name not in (*REFERENCES, best, "dense", BOUND)]
        pairs += [(best, b) for b in others if best]
        kept = [pair for pair in pairs if pair != ("compressed", "static") or ("static", "compressed") not in pairs]
        return [compare(a, b, self._items, self._boot, self.settings.seed) for a, b in kept]

    @cached_property
    def detectable(self) -> float | None:
        """Smallest true difference between the best router and static that this many items find with 80 % power."""
        if not self._best or "static" not in self._items:
            return None
        return detectable(self._items[self._best], self._items["static"]) or None  # 0: they answer all alike

    @property
    def _best(self) -> str | None:
        return next((name for name in DEFAULT_ARMS if name in self._items), None)

    @cached_property
    def _items(self) -> dict[str, Items]:
        return {name: arm.items for name, arm in self.arms.items() if arm.items}

    @cached_property
    def _boot(self) -> dict[str, Array]:
        return bootstrap_means(self._items, self.settings.seed) if self._items else {}
