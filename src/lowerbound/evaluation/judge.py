"""The judge of a training: one number on the validation set, with noise that never changes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import permutation
from lowerbound._shapes import num_elements
from lowerbound.data import InMemorySplit, Split
from lowerbound.engine import Engine
from lowerbound.errors import refuse
from lowerbound.evaluation.base import blocks, context_of, judging, mean_dims, shared, widest
from lowerbound.evaluation.likelihood import log_likelihood
from lowerbound.models import Model

__all__ = ["BATCH", "Judge", "subset"]

BATCH = 500
STRATIFIED_SAMPLES = 4
"""Draws of each example, at least, of a model whose draws are shares of one whole."""
NUMBERS_IN_MEMORY = 2**25


def subset(split: Split, max_rows: int | None) -> Split:
    """At most ``max_rows`` rows, seeded, in order, in memory or on the disk as ``split`` is."""
    if max_rows is None or len(split) <= max_rows:
        return split
    return split.take(permutation(len(split), "judged rows", 0)[:max_rows].sort().values)


def small_in_memory(split: Split) -> Split:
    """A split that is read again and again: in memory, unless it is large for that too."""
    size = max(1, num_elements(split[slice(0, 1)][0].shape[1:]))
    if split.in_memory or len(split) * size > NUMBERS_IN_MEMORY:
        return split
    return InMemorySplit(*split[slice(None)])


class Judge:
    """The unweighted bound on a split, by example with the same noise at every call.

    A model with a context is given what the split holds beside x, and judged by log p(x|context).

    Args:
        split: what is judged, usually the validation set.
        engine: where, and with whom.
        max_rows: at most so many seeded rows.
        num_samples: draws per example; at least four of a model whose draws share out the noise
            levels: one alone says little of all of them.
        importance: judge L_K, K = ``num_samples``, in place of the ELBO: what an
            importance-weighted objective maximises, or a tighter bound on the same log p(x) than
            it does (miwae, ciwae). Its memory does not grow with K.
    """

    def __init__(
        self,
        split: Split,
        engine: Engine,
        max_rows: int,
        *,
        num_samples: int = 1,
        importance: bool = False,
    ) -> None:
        if num_samples < 1:
            raise refuse("num_samples", "at least 1", num_samples)
        self.split = small_in_memory(subset(split, max_rows)).to(engine.device)
        self.engine, self.num_samples, self.importance = engine, num_samples, importance
        self.rows = engine.rows(len(self.split))  # those that this process judges
        self.noise: dict[str, Tensor] | None = None
        self.num_dims: float | None = None

    def __call__(self, model: Model) -> dict[str, Any]:
        """Means over the split: the bound in nats, what it is made of, and bits_per_dim.

        A model that is not a likelihood has neither, but the loss that its training minimises.
        An ELBO comes with its terms. L_K is a logarithm of a mean and has none; it comes with the
        effective sample size.
        """
        importance = self.importance and model.is_likelihood
        means = self._importance(model) if importance else self._elbo(model)
        if not model.is_likelihood:  # no nats: what training minimises, in its own unit
            return {"bound": None, "loss": -means["bound"], "bits_per_dim": None}
        if self.num_dims is None:
            self.num_dims = mean_dims(model, self.split)
        scale = self.num_dims * math.log(2)
        return {**means, "bits_per_dim": -means["bound"] / scale}

    def _elbo(self, model: Model) -> dict[str, float]:
        first, size = self.rows.start, self.rows.stop - self.rows.start
        num = max(self.num_samples, STRATIFIED_SAMPLES) if model.stratified else self.num_samples
        is_kept = size * num * num_elements(model.event_shape) <= NUMBERS_IN_MEMORY
        if is_kept and self.noise is None:
            self.noise = model.judging_noise(range(first, first + size), num)
        sums: dict[str, Tensor] = {}
        with judging(model):
            for block in blocks(size, max(1, model.rows_together(BATCH) // num)):
                rows = slice(first + block.start, first + block.stop)
                if self.noise is None:
                    noise = model.judging_noise(range(rows.start, rows.stop), num)
                else:
                    noise = {name: tensor[:, block] for name, tensor in self.noise.items()}
                x, context = self.split[rows][0], context_of(model, self.split, rows)
                bound = model.bound(x, context, num_samples=num, noise=noise)
                for name, term in {"bound": bound.value, **bound.terms()}.items():
                    sums[name] = sums.get(name, 0) + term.sum(dtype=widest(term.device))
        totals = self.engine.sum(torch.stack(list(sums.values()))).tolist()
        return {n: total / len(self.split) for n, total in zip(sums, totals, strict=True)}

    def _importance(self, model: Model) -> dict[str, float]:
        estimate = shared(
            self.engine,
            self.split,
            lambda part, first: log_likelihood(
                model, part, num_samples=self.num_samples, first=first
            ),
        )
        return {
            "bound": float(estimate.value.mean()),
            "effective_sample_size": float(estimate.effective_sample_size.mean()),
        }
