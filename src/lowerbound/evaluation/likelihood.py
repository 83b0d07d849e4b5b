"""The log-likelihood of each example, by importance sampling.

    log p(x) ≥ L_K = E log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)

L_1 is the ELBO and L_K rises to log p(x) with K. The sum is streamed in blocks, so that any K fits
in bounded memory; exactly K samples are drawn, by example, so that batch size changes nothing.

References:
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.data import Split
from lowerbound.errors import refuse
from lowerbound.evaluation.base import (
    LogLikelihood,
    RunningMean,
    as_split,
    blocks,
    check_split,
    context_of,
    decoded_at_once,
    judging,
)
from lowerbound.models import Model, concatenate_noise

__all__ = [
    "exact_log_likelihood",
    "is_deterministic",
    "join",
    "log_likelihood",
    "sampled_log_likelihood",
]

NAMES = ("value", "standard_error", "effective_sample_size")


def log_likelihood(
    model: Model,
    x: Tensor | Split,
    *,
    num_samples: int = 1000,
    context: Tensor | None = None,
    seed: int = 0,
    first: int = 0,
) -> LogLikelihood:
    """Importance-sampled log p(x) of each example.

    Args:
        model: a model with importance weights, or with a closed form.
        x: examples (B, *event) in the units of the source, or a split of them.
        num_samples: K, samples per example.
        context: (B, …) or None, beside examples; a split has its own.
        seed: example i sees the samples of (seed, first + i), whatever is judged with it.
        first: number of the first example.

    Returns:
        A `LogLikelihood` of (B,) tensors in nats on the CPU, float64.

    Raises:
        InputError: K below 1, examples that do not fit, a model in half precision or without
            weights.
    """
    if num_samples < 1:
        raise refuse("num_samples", "at least 1", num_samples)
    split = as_split(x, context)
    check_split(model, split)
    if model.closed_form:
        with judging(model):
            return exact_log_likelihood(model, split, num_samples)
    return sampled_log_likelihood(model, split, num_samples, seed, first)


def sampled_log_likelihood(
    model: Model, split: Split, num_samples: int, seed: int = 0, first: int = 0
) -> LogLikelihood:
    """L_K of each example by its draws, also of a model with a closed form; arguments as above.

    Of a model that asks for no noise all K draws are the same one, and L_K is the bound.
    """
    with judging(model):
        if is_deterministic(model):
            return exact_log_likelihood(model, split, num_samples)
        # Made beforehand: a small tensor kept per block would leave the large ones that are freed
        # around it in pieces that fit no other, and memory would grow with the examples.
        result = LogLikelihood(*torch.empty(3, len(split), dtype=torch.float64))
        device = model.calibrated.device
        for rows in blocks(len(split), max(1, decoded_at_once(model) // num_samples)):
            some, given = split[rows][0].to(device), context_of(model, split, rows)
            numbers = range(first + rows.start, first + rows.stop)
            judged = _judged(model, some, given, numbers, num_samples, seed)
            for name in NAMES:
                getattr(result, name)[rows] = getattr(judged, name)
        return result


def is_deterministic(model: Model) -> bool:
    """Whether nothing is drawn to judge it: its posterior is a point, or it has none."""
    return model.is_likelihood and not model.judging_noise([0])


def exact_log_likelihood(
    model: Model, x: Tensor | Split, num_samples: int = 1, context: Tensor | None = None
) -> LogLikelihood:
    """The bound of a model that has it in closed form: nothing is drawn, nothing is uncertain."""
    split, device, parts = as_split(x, context), model.calibrated.device, []
    for rows in blocks(len(split), 512):
        given = context_of(model, split, rows)
        value = model.bound(split[rows][0].to(device), given).value.cpu().double()
        full = torch.full_like(value, num_samples)
        parts.append(LogLikelihood(value, torch.zeros_like(value), full))
    return join(parts)


def join(parts: Sequence[LogLikelihood]) -> LogLikelihood:
    """Estimates of blocks of examples as one."""
    none = torch.empty(0, dtype=torch.float64)
    value, error, size = (torch.cat([none, *(getattr(p, n) for p in parts)]) for n in NAMES)
    groups = [part.groups for part in parts if part.groups is not None]
    return LogLikelihood(value, error, size, torch.cat(groups) if groups else None)


def _judged(
    model: Model, x: Tensor, context: Tensor | None, numbers: range, num_samples: int, seed: int
) -> LogLikelihood:
    """The estimate of a block of examples of these numbers."""
    device = model.calibrated.device
    generators = [generator_for("judge", seed, number, device=device) for number in numbers]
    mean = RunningMean(len(x), device)
    for block in blocks(num_samples, max(1, decoded_at_once(model) // len(x))):
        size = block.stop - block.start
        noise = concatenate_noise([model.noise(1, size, g) for g in generators])
        mean.add(model.log_weight(x, size, context, noise=noise))
    return mean.result(num_samples)
