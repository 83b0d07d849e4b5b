"""One number and what stands beside it: evaluation.json.

Three estimators of log p(x), side by side, so that a reader sees why the encoder is there: prior
Monte Carlo, the ELBO, and L_K; their decomposition log p = ELBO + gap; and what the latents do.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.data import Source, Split, replaced_examples
from lowerbound.errors import DivergedError, InputError
from lowerbound.evaluation.ais import annealed_importance_sampling
from lowerbound.evaluation.base import (
    LogLikelihood,
    blocks,
    check_split,
    judging,
    standard_error,
)
from lowerbound.evaluation.diagnosis import diagnosis
from lowerbound.evaluation.judge import BATCH, subset
from lowerbound.evaluation.latents import are_active, latent_means, mutual_information
from lowerbound.evaluation.likelihood import log_likelihood
from lowerbound.evaluation.prior import has_prior, prior_monte_carlo
from lowerbound.files import FORMAT_VERSION
from lowerbound.models import Model, ProbabilisticPCA

__all__ = ["evaluate", "scores"]

BOUND_SAMPLES = 16
LARGEST_FOR_PPCA = 4096
AIS_ROWS = 100


def evaluate(
    model: Model,
    source: Source,
    *,
    split: str = "test",
    num_samples: int = 1000,
    max_rows: int | None = None,
    baselines: bool = True,
    ais: int = 0,
    ais_chains: int = 16,
) -> dict[str, Any]:
    """Judge a model on a split of a source.

    Args:
        model: in its units: the source must have the model's shape and support.
        source: the data; baselines are fitted on its training split.
        split: train, validation or test.
        num_samples: K importance samples per example for the log-likelihood, and as many draws
            from the prior for prior Monte Carlo.
        max_rows: judge at most so many seeded rows; None for all.
        baselines: put probabilistic PCA with as many latents beside it.
        ais: steps of annealed importance sampling on 100 seeded rows; 0 for none.
        ais_chains: its chains per example.

    Returns:
        What evaluation.json holds: nats per example, averaged over examples, with standard
        errors over examples; None where a thing does not exist for the model.

    Raises:
        InputError: data of another shape or support, or annealing a model without such a latent.
        DivergedError: the bound is not finite.
    """
    started = time.perf_counter()
    data = subset(source.split(split), max_rows)
    check_split(model, data, source.name)
    with judging(model):
        result = _identity(model, source, split, data) | _nats(model, data, num_samples)
        result |= _latents(model, data)
        active = result.pop("active")
        result["diagnosis"] = diagnosis(result, active)
        if ais:
            result["ais"] = _annealed(model, data, ais, ais_chains, num_samples)
        result["baselines"] = _baselines(model, source, data) if baselines else {}
    result["notes"] = [*model.notes(), *source.warnings, *replaced_examples(source)]
    result["seconds"] = time.perf_counter() - started
    return result


def _identity(model: Model, source: Source, split: str, data: Split) -> dict[str, Any]:
    """What was judged, on what."""
    return {
        "format_version": FORMAT_VERSION,
        "model": model.name,
        "data": source.name,
        "support": str(model.support),
        "fingerprint": source.fingerprint,
        "split": split,
        "num_examples": len(data),
        "unit": "nats/example",
        "parameters": model.num_parameters,
    }


def _nats(model: Model, data: Split, num_samples: int) -> dict[str, Any]:
    """The estimators of log p(x) and their decomposition, or why there are none."""
    names = ("prior_monte_carlo", "bound", "log_likelihood", "gap", "bits_per_dim")
    result: dict[str, Any] = dict.fromkeys((*names, "rate_per_latent"))
    if not model.is_likelihood:
        return result | {"reason": "not a likelihood"}
    result |= _bound(model, data, min(num_samples, BOUND_SAMPLES))
    bound = result["bound"]["value"]
    if not math.isfinite(bound):
        raise DivergedError(
            "the bound of this model on these examples is not finite: its training diverged; "
            "train again with a lower --learning-rate"
        )
    estimate = log_likelihood(model, data, num_samples=num_samples)
    result["log_likelihood"] = _summary(estimate, None if model.closed_form else num_samples)
    result["log_likelihood"]["kind"] = model.evidence_kind
    if has_prior(model):
        estimate = prior_monte_carlo(model, data, num_samples=num_samples)
        result["prior_monte_carlo"] = _summary(estimate, num_samples)
    if num_samples > 1:  # of one sample each, the difference is noise around zero
        result["gap"] = result["log_likelihood"]["value"] - bound
    result["bits_per_dim"] = -bound / (num_elements(model.event_shape) * math.log(2))
    return result


def _summary(estimate: LogLikelihood, num_samples: int | None) -> dict[str, Any]:
    """Means over examples; without a number of samples nothing was drawn."""
    size = float(estimate.effective_sample_size.mean())
    return {
        "value": float(estimate.value.mean()),
        "standard_error": standard_error(estimate.value),
        "num_samples": num_samples,
        "effective_sample_size": None if num_samples is None else size,
    }


def _bound(model: Model, data: Split, num_samples: int) -> dict[str, Any]:
    """The bound by ``num_samples`` estimates of one sample each, and the rate per latent."""
    device = model.calibrated.device
    values, sums, details = [], dict[str, float](), dict[str, Tensor]()
    for rows in blocks(len(data), BATCH):
        x = data[rows][0].to(device)
        noise = model.judging_noise(range(rows.start, rows.stop), num_samples)
        total = torch.zeros(num_samples, len(x), dtype=torch.float64)
        for k in range(num_samples):
            bound = model.bound(x, noise={name: t[k : k + 1] for name, t in noise.items()})
            total[k] = bound.value.double().cpu()
            for name, term in bound.terms().items():
                sums[name] = sums.get(name, 0.0) + float(term.double().sum())
            for name, part in bound.details.items():
                details[name] = details.get(name, 0) + part.double().sum(0).cpu()
        values.append(total)
    value, count = torch.cat(values, 1), num_samples * len(data)  # (M, N)
    spread = (value.var(0).sum() / num_samples).sqrt() / len(data) if num_samples > 1 else None
    bound_of_all = {
        "value": float(value.mean()),
        "standard_error": standard_error(value.mean(0)),
        "monte_carlo_error": None if spread is None else float(spread),
        "terms": {name: total / count for name, total in sums.items()},
    }
    per_latent = [float(rate) / count for part in details.values() for rate in part]
    return {"bound": bound_of_all, "rate_per_latent": per_latent or None}


def _annealed(
    model: Model, data: Split, num_steps: int, num_chains: int, num_samples: int
) -> dict[str, Any]:
    """Annealed importance sampling on some rows, beside L_K on the same ones."""
    some = subset(data, AIS_ROWS)[slice(None)][0]
    estimate = annealed_importance_sampling(
        model, some, num_steps=num_steps, num_chains=num_chains
    )
    same = log_likelihood(model, some, num_samples=num_samples).value
    return {
        "value": float(estimate.value.mean()),
        "standard_error": standard_error(estimate.value),
        "effective_sample_size": float(estimate.effective_sample_size.mean()),
        "num_steps": num_steps,
        "num_chains": num_chains,
        "num_examples": len(some),
        "log_likelihood": float(same.mean()),
    }


def _latents(model: Model, data: Split) -> dict[str, Any]:
    """Reconstruction error and what the latents carry, where there is an encoder."""
    names = ("reconstruction_mse", "active_units", "latent_dim", "mutual_information", "active")
    if not model.has_encoder:
        return dict.fromkeys(names)
    device = model.calibrated.device
    means = latent_means(model, data)
    total = 0.0
    for rows in blocks(len(data), BATCH):
        decoded = model.decode(means[rows].to(device)).mean
        total += float((decoded - data[rows][0].to(device)).double().square().sum())
    active = are_active(means)
    return {
        "reconstruction_mse": total / (len(data) * num_elements(model.event_shape)),
        "active_units": int(active.sum()),
        "latent_dim": means.shape[1],
        "mutual_information": mutual_information(model, data),
        "active": active,
    }


def _baselines(model: Model, source: Source, data: Split) -> dict[str, Any]:
    """Probabilistic PCA with as many latents, where the data give it a sigma of its own."""
    size, k = num_elements(model.event_shape), getattr(model, "latent_dim", None)
    if not model.is_likelihood or isinstance(model, ProbabilisticPCA):
        return {}
    if k is None or size < 2 or size > LARGEST_FOR_PPCA:
        return {}
    ppca = ProbabilisticPCA(model.event_shape, model.support, min(k, size - 1))
    ppca.fit_exactly(source)
    if ppca.floored or len(source.train) <= ppca.latent_dim + 1:
        return {}
    value = float(log_likelihood(ppca, data).value.mean())
    kind, k = ppca.evidence_kind, ppca.latent_dim
    return {"ppca": {"log_likelihood": value, "kind": kind, "latent_dim": k}}


def scores(model: Model, x: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """The bound of each example: nats (N,) and bits/dim (N,), float64.

    Raises:
        InputError: the model has no likelihood.
    """
    if not model.is_likelihood:
        raise InputError(f"a model of kind '{model.name}' is not a likelihood and scores nothing")
    parts = []
    with judging(model):
        for rows in blocks(len(x), max(1, BATCH // num_samples)):
            noise = model.judging_noise(range(rows.start, rows.stop), num_samples)
            some = x[rows].to(model.calibrated.device)
            bound = model.bound(some, num_samples=num_samples, noise=noise)
            parts.append(bound.value.double().cpu())
    nats = torch.cat(parts)
    return nats, -nats / (num_elements(model.event_shape) * math.log(2))
