"""Schedules as pure functions of progress in [0, 1]: there is nothing to save or restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lowerbound.config import DEFAULT_EPOCHS, DEFAULT_STEPS, TrainingConfig

__all__ = ["Length", "learning_rate"]


def learning_rate(progress: float, peak: float, warmup: float) -> float:
    """Linear rise to ``peak`` over ``warmup``, then half a cosine to zero.

    >>> learning_rate(0.02, 1.0, 0.02), round(learning_rate(1.0, 1.0, 0.02), 9)
    (1.0, 0.0)
    """
    if progress < warmup:
        return peak * (progress + 1e-3) / (warmup + 1e-3)
    rest = (progress - warmup) / max(1.0 - warmup, 1e-12)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


@dataclass(frozen=True)
class Length:
    """How long a run is: a number of steps, or a number of seconds."""

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, config: TrainingConfig, batches_per_epoch: int) -> Length:
        """The length that the configuration asks for."""
        if config.minutes is not None:
            return cls(None, 60.0 * config.minutes)
        if config.epochs is not None:
            return cls(max(1, round(config.epochs * batches_per_epoch)), None)
        return cls(config.steps or min(DEFAULT_STEPS, DEFAULT_EPOCHS * batches_per_epoch), None)

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.seconds is not None
        return min(1.0, seconds / self.seconds)
