"""The estimators of log p(x) of a data set: the bound and its terms, L_K, prior Monte Carlo."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lowerbound.data import Split
from lowerbound.engine import Engine
from lowerbound.errors import DivergedError
from lowerbound.evaluation.base import (
    LogLikelihood,
    blocks,
    context_of,
    mean_dims,
    shared,
    standard_error,
)
from lowerbound.evaluation.judge import BATCH
from lowerbound.evaluation.likelihood import (
    is_deterministic,
    log_likelihood,
    sampled_log_likelihood,
)
from lowerbound.evaluation.prior import has_prior, prior_monte_carlo
from lowerbound.models import Model

__all__ = ["monte_carlo_error", "nats"]

BOUND_SAMPLES = 16
"""Draws of each example; even, so that half of them can be compared with the other half."""
SHOWN_SAMPLES = 100  # of L_K beside an exact value, which needs none


def nats(
    model: Model, data: Split, num_samples: int, each: dict[str, Tensor], engine: Engine
) -> dict[str, Any]:
    """The estimators of log p(x) and their decomposition, or why there are none.

    Args:
        model: in eval mode.
        data: the examples, shared by the processes of ``engine``.
        num_samples: K.
        each: is given the values of each example, (N,), nats.
        engine: the processes.

    Raises:
        DivergedError: the bound is not finite.
    """
    names = (
        "prior_monte_carlo",
        "bound",
        "importance_sampled",
        "log_likelihood",
        "gap",
        "bits_per_dim",
    )
    result: dict[str, Any] = dict.fromkeys((*names, "rate_per_latent"))
    if not model.is_likelihood:
        return result | {"reason": "not a likelihood"}
    draws = 1 if model.closed_form else min(num_samples, BOUND_SAMPLES)
    part, each["bound"] = _bound(model, data, draws, engine)
    result |= part
    bound = result["bound"]["value"]
    if not math.isfinite(bound):
        raise DivergedError(
            "the bound of this model on these examples is not finite: its training diverged; "
            "train again with a lower --learning-rate"
        )
    result["bits_per_dim"] = -bound / (mean_dims(model, data) * math.log(2))
    if model.has_weights:  # without them the bound is all there is
        result |= _weighted(model, data, num_samples, each, engine)
        if num_samples > 1:  # of one sample each, the difference is noise around zero
            result["gap"] = result["log_likelihood"]["value"] - bound
    return result


def _weighted(
    model: Model, data: Split, num_samples: int, each: dict[str, Tensor], engine: Engine
) -> dict[str, Any]:
    """The estimators that weigh draws; arguments as of `nats`."""
    estimate = shared(
        engine,
        data,
        lambda some, first: log_likelihood(model, some, num_samples=num_samples, first=first),
    )
    each["log_likelihood"] = estimate.value
    summary = _summary(estimate, None if model.closed_form else num_samples)
    result: dict[str, Any] = {"log_likelihood": summary | {"kind": model.evidence_kind}}
    if model.closed_form:  # L_K beside what it estimates
        few = 1 if is_deterministic(model) else min(num_samples, SHOWN_SAMPLES)
        estimate = shared(
            engine, data, lambda some, first: sampled_log_likelihood(model, some, few, first=first)
        )
        result["importance_sampled"] = _summary(estimate, few)
    if has_prior(model):
        estimate = shared(
            engine,
            data,
            lambda some, first: prior_monte_carlo(model, some, num_samples=num_samples),
        )
        result["prior_monte_carlo"] = _summary(estimate, num_samples)
    return result


def _summary(estimate: LogLikelihood, num_samples: int | None) -> dict[str, Any]:
    """Means over examples; without a number of samples nothing was drawn.

    The standard error is over examples and draws; that of shared draws is not in the spread of
    the examples, and is added.
    """
    size = float(estimate.effective_sample_size.mean())
    error, noise = standard_error(estimate.value), estimate.monte_carlo_error()
    if error is not None and estimate.groups is not None:
        error = math.hypot(error, noise or 0.0)
    return {
        "value": float(estimate.value.mean()),
        "standard_error": error,
        "monte_carlo_error": noise,
        "num_samples": num_samples,
        "effective_sample_size": None if num_samples is None else size,
    }


def _bound(
    model: Model, data: Split, num_samples: int, engine: Engine
) -> tuple[dict[str, Any], Tensor]:
    """The bound by ``num_samples`` estimates of one sample each, and the rate per latent.

    Beside them the bound of each example (N,), nats.
    """
    device, mine = model.calibrated.device, engine.rows(len(data))
    values, terms, sums = [], dict[str, list[Tensor]](), dict[str, Tensor]()
    for block in blocks(mine.stop - mine.start, model.rows_together(BATCH)):
        rows = slice(mine.start + block.start, mine.start + block.stop)
        x, context = data[rows][0].to(device), context_of(model, data, rows)
        noise = model.judging_noise(range(rows.start, rows.stop), num_samples)
        total = torch.zeros(len(x), num_samples, dtype=torch.float64)
        own = dict[str, Tensor]()
        for k in range(num_samples):
            one = {name: t[k : k + 1] for name, t in noise.items()}
            bound = model.bound(x, context, noise=one)
            total[:, k] = bound.value.cpu().double()
            for name, term in bound.terms().items():
                own[name] = own.get(name, 0) + term.cpu().double() / num_samples
            for name, detail in bound.details.items():
                sums[name] = sums.get(name, 0) + detail.cpu().double().sum(0)
        values.append(total)
        for name, term in own.items():
            terms.setdefault(name, []).append(term)
    value, count = engine.gather(torch.cat(values)), num_samples * len(data)  # (N, M)
    each = {name: engine.gather(torch.cat(parts)) for name, parts in terms.items()}  # (N,)
    bound_of_all = {
        "value": float(value.mean()),
        "standard_error": standard_error(value.mean(1)),
        "monte_carlo_error": monte_carlo_error(value, model.stratified),
        "terms": {name: float(term.mean()) for name, term in each.items()},
        "term_errors": {name: standard_error(term) for name, term in each.items()},
    }
    details = [(engine.sum(total) / count).tolist() for total in sums.values()]
    per_latent = [rate for rates in details for rate in rates]
    return {"bound": bound_of_all, "rate_per_latent": per_latent or None}, value.mean(1)


def monte_carlo_error(value: Tensor, stratified: bool = False) -> float | None:
    """How far other draws move the mean of ``value`` over examples and draws.

    Independent draws say so by their spread. Draws that share out what they are drawn from, each
    having its own part of it, differ by much that is in every such set of draws and moves
    nothing. Their even ones and their odd ones are two such sets, from coarser parts: half their
    difference is how far the mean of both is off, or a little more.

    Args:
        value: of N examples by M draws, (N, M), nats.
        stratified: whether the draws of one example are shares of one whole, in turn.

    Returns:
        Nats; None where one draw says nothing of it.

    References:
        Wolter, Introduction to Variance Estimation, 2007 (systematic samples).
    """
    num = value.shape[1]
    if num < 2:
        return None
    if not stratified:
        return float((value.var(1).sum() / num).sqrt() / len(value))
    even, odd = value[:, ::2], value[:, 1::2]
    gap = (even.mean(1) - odd.mean(1)).square().sum()
    # Sets of sizes e and o differ by (1/e + 1/o)/(1/M) times the variance of the mean of both.
    share = 1 / (num * (1 / even.shape[1] + 1 / odd.shape[1]))
    return float((gap * share).sqrt() / len(value))
