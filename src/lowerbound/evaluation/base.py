"""What all judging shares: its conditions, its blocks, and means of weights in the log domain.

A judged number is computed in eval mode, without gradients, in float32 or float64 whatever
autocast the caller is in, and in blocks that bound the memory.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements
from lowerbound.data import InMemorySplit, Mask, Split
from lowerbound.engine import Engine
from lowerbound.errors import refuse
from lowerbound.models import Model

__all__ = [
    "LogLikelihood",
    "RunningMean",
    "as_split",
    "blocks",
    "check_split",
    "context_of",
    "decoded_at_once",
    "judging",
    "mean_dims",
    "num_dims",
    "paired_difference",
    "shared",
    "standard_error",
    "widest",
]

NUMBERS_AT_ONCE = {"cpu": 2**20}  # 4 MB in float32: large products, still near the cache
NUMBERS_ON_ACCELERATOR = 2**24
SMALLEST_FOOTPRINT = 512  # numbers per sample that the hidden layers hold at least
# Feature maps hold several times the numbers of the image: at 28×28 a ladder of convolutions
# judges 1.5 times as many samples per second in blocks of 170 to 330 as in blocks of 1,300.
CONVOLUTIONS_HOLD = 5
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ROWS_AT_ONCE = 500
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class LogLikelihood:
    """Estimates of log p(x), per example.

    Args:
        value: log of the mean weight, (B,), nats; its expectation is a lower bound.
        standard_error: of ``value`` over the samples, by the delta method, (B,), nats; NaN for one
            sample. It cannot exceed 1, and says little where the effective sample size is near 1.
        effective_sample_size: (Σ w)² / Σ w², (B,), between 1 and K.
        groups: where the examples share their draws, the mean weight of each of G groups of draws
            over that of all draws, (B, G).
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    groups: Tensor | None = None

    def monte_carlo_error(self) -> float | None:
        """Of the mean of ``value`` over these examples: how far other draws move it.

        Draws of each example's own average out over N examples. Shared draws do not: by the delta
        method the mean moves with the mean over examples of each group's weight, and G such
        numbers show by how much. None where one draw says nothing of it.
        """
        if self.groups is not None:
            num = self.groups.shape[1]
            return float(self.groups.mean(0).std() / math.sqrt(num)) if num > 1 else None
        error = float(self.standard_error.square().mean().sqrt() / math.sqrt(len(self.value)))
        return error if math.isfinite(error) else None


def widest(device: torch.device) -> torch.dtype:
    """The dtype of sums over many: float64, or float32 on Apple's GPUs, which have no wider."""
    return torch.float32 if device.type == "mps" else torch.float64


class RunningMean:
    """The log of a mean of weights per example, streamed: only log Σ w and log Σ w² are kept.

    Args:
        size: number of examples B.
        device: where the weights are.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        wide = widest(device)
        self.log_sums = torch.full((2, size), -math.inf, dtype=wide, device=device)

    def add(self, log_weight: Tensor, rows: slice | Tensor = slice(None)) -> None:
        """Take in log-weights (K, B) of all examples, or (K, rows) of some."""
        log_weight = log_weight.to(self.log_sums.dtype)
        new = torch.stack([log_weight.logsumexp(0), (2 * log_weight).logsumexp(0)])
        self.log_sums[:, rows] = torch.logaddexp(self.log_sums[:, rows], new)

    def result(self, num_samples: int) -> LogLikelihood:
        """The estimate from ``num_samples`` weights of each example, on the CPU."""
        log_sum, log_sum_of_squares = self.log_sums.cpu().double()
        size = (2 * log_sum - log_sum_of_squares).exp().clamp(1.0, num_samples)
        error = (1 / size - 1 / num_samples).clamp_min(0.0).sqrt()
        if num_samples == 1:
            error = torch.full_like(error, math.nan)
        return LogLikelihood(log_sum - math.log(num_samples), error, size)


@contextlib.contextmanager
def judging(model: Model) -> Iterator[None]:
    """Within it the model is in eval mode, and nothing is differentiated or rounded to halves.

    Raises:
        InputError: the model itself is in half precision.
    """
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.dtype in HALF:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise refuse("model", "in float32 or float64", kind, "call model.float() to judge it")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.calibrated.device.type, enabled=False):
            yield
    finally:
        model.train(was_training)


def check_split(model: Model, split: Split, name: str = "x") -> None:
    """Refuse examples that do not fit a model: all in memory, else the first (see `Model.check`).

    The values of examples on a disk are checked against their own support when they are read.
    """
    model.check(split.x if split.in_memory else split[slice(0, 1)][0], name)


def as_split(x: Tensor | Split, context: Tensor | None = None) -> Split:
    """Examples (B, *event) and their context as a split; a split, which has its own, as it is."""
    return InMemorySplit(x, context) if isinstance(x, Tensor) else x


def blocks(total: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``range(total)``, each of at most ``size``.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def shared(
    engine: Engine, data: Split, estimate: Callable[[Split, int], LogLikelihood]
) -> LogLikelihood:
    """An estimate of every example, each process judging its share of them.

    Args:
        engine: the processes.
        data: all examples.
        estimate: of some consecutive ones, the first of which has the number that it is given.
    """
    if engine.world == 1:
        return estimate(data, 0)
    mine = engine.rows(len(data))
    own = estimate(data.take(torch.arange(mine.start, mine.stop)), mine.start)
    value, error, size = (
        engine.gather(t) for t in (own.value, own.standard_error, own.effective_sample_size)
    )
    groups = None if own.groups is None else engine.gather(own.groups)
    return LogLikelihood(value, error, size, groups)


def context_of(model: Model, split: Split, rows: Tensor | slice = slice(None)) -> Tensor | None:
    """What the model is given beside the examples of ``rows``: (B, …) on its device, or None.

    Raises:
        InputError: it must be given something, and the data do not hold it.
    """
    if model.context is None:
        return None
    context = split[rows][1]
    if context is None:
        remedy = "name their column or array with --labels"
        required = f"in the data of a '{model.name}' that was trained with them"
        raise refuse("labels", required, "none", remedy)
    return context.to(model.calibrated.device)


def num_dims(model: Model, context: Tensor | None, size: int) -> Tensor:
    """How many dimensions of each of ``size`` examples the nats are of: (size,), float64.

    All of them, or of a model that is given a part of x those that are not observed; never none.
    """
    if isinstance(model.context, Mask) and context is not None:
        return (context[:, 1] == 0).flatten(1).sum(1).double().clamp_min(1.0).cpu()
    return torch.full((size,), float(num_elements(model.event_shape)), dtype=torch.float64)


def mean_dims(model: Model, split: Split) -> float:
    """The mean over a split of `num_dims`: what a mean in nats is divided by for bits/dim."""
    if not isinstance(model.context, Mask):
        return float(num_elements(model.event_shape))
    parts = [
        num_dims(model, context_of(model, split, rows), rows.stop - rows.start)
        for rows in blocks(len(split), ROWS_AT_ONCE)
    ]
    return float(torch.cat(parts).mean())


def decoded_at_once(model: Model, footprint: int = SMALLEST_FOOTPRINT) -> int:
    """How many latents to decode together: few enough for the cache, enough to keep it busy.

    Args:
        model: the shape of its events and its device decide.
        footprint: numbers that one of them holds at least; 1 where nothing is decoded.
    """
    numbers = NUMBERS_AT_ONCE.get(model.calibrated.device.type, NUMBERS_ON_ACCELERATOR)
    size = num_elements(model.event_shape)
    if footprint > 1 and any(isinstance(part, CONVOLUTIONS) for part in model.modules()):
        size *= CONVOLUTIONS_HOLD
    return max(1, numbers // max(size, footprint))


def standard_error(values: Tensor) -> float | None:
    """Of the mean over examples (N,); None where there is one example."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None


def paired_difference(a: Tensor, b: Tensor) -> tuple[float, float | None]:
    """Mean of a − b over the same examples, and its standard error, in nats.

    Two models find the same examples hard, so that the difference is known far better than either
    mean: the error is that of the differences, example by example.

    Args:
        a: per-example values of one model (N,), nats.
        b: those of another on the same examples in the same order, (N,).

    Raises:
        InputError: not the same number of examples, or none.
    """
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise refuse("b", f"values of the same {len(a)} examples", tuple(b.shape))
    difference = a.double() - b.double()
    return float(difference.mean()), standard_error(difference)
