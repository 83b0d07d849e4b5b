"""What the steps since the last log came to, kept on the device as it is until it is read."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from lowerbound.engine import Engine
from lowerbound.objectives import Bound
from lowerbound.training.state import Position
from lowerbound.training.update import Update

__all__ = ["Meter"]


class Meter:
    """Loss, terms, penalties and usability of each step of an interval.

    Args:
        engine: over whose processes the means are taken.
        batch_size: examples of a global batch.
        num_dims: mean number of dimensions of an example that the bound is of.
        is_likelihood: whether the loss is a bound in nats.
    """

    def __init__(
        self, engine: Engine, batch_size: int, num_dims: float, is_likelihood: bool
    ) -> None:
        self.engine, self.batch_size, self.num_dims = engine, batch_size, num_dims
        self.is_likelihood = is_likelihood
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.started = time.perf_counter()
        self.steps: list[dict[str, Tensor]] = []
        self.updates: list[Update] = []

    def seconds(self) -> float:
        """Length of the interval so far."""
        return time.perf_counter() - self.started

    def add(self, loss: Tensor, bound: Bound, done: Update) -> None:
        """Take in a step; a skipped one counts as skipped and adds nothing else."""
        self.num_terms = 1 + len(bound.rates)
        named = {"loss": loss, **bound.terms(), **bound.penalties}
        kept = {name: term.detach() for name, term in named.items()}
        if loss.is_cuda:  # a graph of kernels writes the next step's to the same places
            kept = {name: term.clone() for name, term in kept.items()}
        self.steps.append(kept)
        self.updates.append(done)

    def read(self, position: Position) -> dict[str, Any]:
        """Means over the interval, in nats; updates the position's count of skipped steps."""
        usable, finite = (torch.stack(flags) for flags in zip(*self.updates, strict=True))
        names = [*self.steps[-1]]
        # Where the objective changed within the interval, its terms may have other names before.
        alike = [i for i, step in enumerate(self.steps) if [*step] == names]
        rows = torch.stack([torch.stack([*self.steps[i].values()]) for i in alike])
        means = rows[usable[alike]].mean((0, 2))  # nan where every step was skipped
        values = (self.engine.sum(means) / self.engine.world).tolist()
        first = position.step - len(usable) + 1
        flags = zip(usable.tolist(), finite.tolist(), strict=True)
        for step, (used, is_finite) in enumerate(flags, first):
            position.count(step, used, finite=is_finite)
        loss, terms = values[0], dict(zip(names[1:], values[1:], strict=True))
        rates = values[2 : 1 + self.num_terms]  # penalties are beside the bound
        bound = terms["reconstruction"] - sum(rates)
        row = {
            "step": position.step,
            "seconds": position.seconds,
            "images_per_second": self.batch_size * len(self.updates) / max(self.seconds(), 1e-9),
            "loss": loss,
            "bound": bound,
            **terms,
            "bits_per_dim": -bound / (self.num_dims * math.log(2)),
            "skipped": position.skipped,
        }
        if not self.is_likelihood:  # a loss, and no nats
            row |= {"bound": None, "bits_per_dim": None}
            row.pop("reconstruction")
        self.reset()
        return row
