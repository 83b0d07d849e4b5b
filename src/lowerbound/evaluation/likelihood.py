"""The log-likelihood of each example, by importance sampling.

    log p(x) ≥ L_K = E log 1/K Σ_k w_k,   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)

L_1 is the ELBO and L_K rises to log p(x) with K. The sum is streamed in blocks, so that any K fits
in bounded memory; exactly K samples are drawn, by example, so that batch size changes nothing.

References:
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound._shapes import num_elements
from lowerbound.errors import refuse
from lowerbound.models import Model, concatenate_noise

__all__ = ["LogLikelihood", "log_likelihood"]

DECODED_NUMBERS_AT_ONCE = 2**21


@dataclass(frozen=True)
class LogLikelihood:
    """Estimates of log p(x), per example.

    Args:
        value: log of the mean weight, (B,), nats; its expectation is a lower bound.
        standard_error: of ``value`` over the samples, by the delta method, (B,), nats; NaN for one
            sample. It cannot exceed 1, and says little where the effective sample size is near 1.
        effective_sample_size: (Σ w)² / Σ w², (B,), between 1 and K.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor


@torch.no_grad()
def log_likelihood(
    model: Model,
    x: Tensor,
    *,
    num_samples: int = 1000,
    context: Tensor | None = None,
    seed: int = 0,
) -> LogLikelihood:
    """Importance-sampled log p(x) of each example.

    Args:
        model: a model with importance weights, or with a closed form.
        x: examples (B, *event) in the units of the source.
        num_samples: K, samples per example.
        context: (B, …) or None.
        seed: example i sees the samples of (seed, i), whatever else is judged with it.

    Returns:
        A `LogLikelihood` of (B,) tensors in nats on the CPU, float64.

    Raises:
        InputError: K below 1, examples that do not fit, or a model without weights.
    """
    if num_samples < 1:
        raise refuse("num_samples", "at least 1", num_samples)
    model.check(x)
    device, was_training = model.calibrated.device, model.training
    model.eval()
    parts = [torch.empty(3, 0, dtype=torch.float64)]
    if model.closed_form:
        for rows in _blocks(len(x), 512):
            given = None if context is None else context[rows].to(device)
            value = model.bound(x[rows].to(device), given).value.double().cpu()
            full = torch.full_like(value, num_samples)
            parts.append(torch.stack([value, torch.zeros_like(value), full]))  # nothing is drawn
    else:
        at_once = max(1, DECODED_NUMBERS_AT_ONCE // num_elements(model.event_shape))
        for rows in _blocks(len(x), max(1, at_once // num_samples)):
            given = None if context is None else context[rows].to(device)
            parts.append(
                _judged(model, x[rows].to(device), given, rows, num_samples, seed, at_once)
            )
    model.train(was_training)
    value, error, size = torch.cat(parts, dim=1)
    return LogLikelihood(value, error, size)


def _blocks(total: int, size: int) -> Iterator[slice]:
    for first in range(0, total, size):
        yield slice(first, min(first + size, total))


def _judged(
    model: Model,
    x: Tensor,
    context: Tensor | None,
    rows: slice,
    num_samples: int,
    seed: int,
    at_once: int,
) -> Tensor:
    """Value, standard error and effective sample size of a block of rows: (3, B), float64."""
    device = model.calibrated.device
    generators = [
        generator_for("judge", seed, row, device=device) for row in range(rows.start, rows.stop)
    ]
    # Running log Σ w and log Σ w²: the streamed form of a log-sum-exp.
    log_sum = torch.full((2, len(x)), -math.inf, dtype=torch.float64, device=device)
    for block in _blocks(num_samples, max(1, at_once // len(x))):
        size = block.stop - block.start
        noise = concatenate_noise([model.noise(1, size, g) for g in generators])
        log_weight = model.log_weight(x, size, context, noise=noise).double()
        both = torch.stack([log_weight.logsumexp(0), (2 * log_weight).logsumexp(0)])
        log_sum = torch.logaddexp(log_sum, both)
    log_ess = 2 * log_sum[0] - log_sum[1]
    ess = log_ess.exp().clamp(1.0, num_samples)
    error = (1 / ess - 1 / num_samples).clamp_min(0.0).sqrt()
    if num_samples == 1:
        error = torch.full_like(error, math.nan)
    return torch.stack([log_sum[0] - math.log(num_samples), error, ess]).cpu()
