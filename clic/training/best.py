"""Which evaluation of a run was the best, and whether to keep waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clic.errors import ConfigError, did_you_mean


@dataclass
class BestSoFar:
    """The best value of a score, the larger the better, over the evaluations of a run.

    Attributes:
        metric: The score's name in the records of evaluations, e.g. ``"coco-retrieval@val/mean"``;
            None watches no score.
        patience: Evaluations in a row without a better value after which the run ends; None never
            ends it.
        value: The best value so far, None before the first evaluation.
        step: The step at which it was reached.
        worse: Evaluations since.
    """

    metric: str | None
    patience: int | None = None
    value: float | None = None
    step: int = 0
    worse: int = 0

    def add(self, step: int, numbers: Mapping[str, float]) -> bool:
        """Add an evaluation; return whether it is the best so far. Equal values are not better.

        Raises:
            ConfigError: The evaluation has no such score.
        """
        if self.metric is None:
            return False
        if self.metric not in numbers:
            raise ConfigError(
                f"train.best_metric={self.metric} is no score of train.eval_bench"
                f"{did_you_mean(self.metric, numbers)} (scores: {', '.join(sorted(numbers))})"
            )
        value = numbers[self.metric]
        if math.isnan(value) or (self.value is not None and value <= self.value):
            self.worse += 1
            return False
        self.value, self.step, self.worse = value, step, 0
        return True

    @property
    def exhausted(self) -> bool:
        """Whether the run has waited long enough."""
        return self.patience is not None and self.worse >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        kept = asdict(self)
        return {name: kept[name] for name in ("metric", "value", "step", "worse")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; start afresh if it watched another score, or none."""
        if state.get("metric") == self.metric:
            for name, value in state.items():
                setattr(self, name, value)
