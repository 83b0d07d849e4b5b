"""One number and what stands beside it: evaluation.json."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import permutation
from lowerbound._shapes import num_elements
from lowerbound.data import InMemorySplit, Source
from lowerbound.errors import DivergedError, InputError
from lowerbound.evaluation.latents import latent_means, num_active_units
from lowerbound.evaluation.likelihood import log_likelihood
from lowerbound.files import FORMAT_VERSION
from lowerbound.models import Model, ProbabilisticPCA

__all__ = ["Judge", "evaluate", "scores"]

BATCH = 500
BOUND_SAMPLES = 16
LARGEST_FOR_PPCA = 4096


def _subset(split: InMemorySplit, max_rows: int | None) -> InMemorySplit:
    """At most ``max_rows`` rows, seeded, in order."""
    if max_rows is None or len(split) <= max_rows:
        return split
    rows = permutation(len(split), "judged rows", 0)[:max_rows].sort().values
    x, labels = split[rows]
    return InMemorySplit(x, labels)


class Judge:
    """The unweighted bound on a split, one sample per example, with noise that never changes.

    Args:
        split: what is judged, usually the validation set.
        device: where.
        max_rows: at most so many seeded rows.
    """

    def __init__(self, split: InMemorySplit, device: torch.device, max_rows: int) -> None:
        self.split = _subset(split, max_rows).to(device)
        self.noise: dict[str, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, model: Model) -> dict[str, float]:
        """Means over the split: bound and terms in nats, and bits_per_dim."""
        if self.noise is None:
            self.noise = model.judging_noise(range(len(self.split)))
        sums: dict[str, Tensor] = {}
        for first in range(0, len(self.split), BATCH):
            rows = slice(first, first + BATCH)
            noise = {name: tensor[:, rows] for name, tensor in self.noise.items()}
            bound = model.bound(self.split[rows][0], noise=noise)
            for name, term in {"bound": bound.value, **bound.terms()}.items():
                sums[name] = sums.get(name, 0) + term.double().sum()
        means = {name: float(total) / len(self.split) for name, total in sums.items()}
        scale = num_elements(model.event_shape) * math.log(2)
        return means | {"bits_per_dim": -means["bound"] / scale}


@torch.no_grad()
def evaluate(
    model: Model,
    source: Source,
    *,
    split: str = "test",
    num_samples: int = 1000,
    max_rows: int | None = None,
    baselines: bool = True,
) -> dict[str, Any]:
    """Judge a model on a split of a source.

    Args:
        model: in its units: the source must have the model's shape and support.
        source: the data; baselines are fitted on its training split.
        split: train, validation or test.
        num_samples: K importance samples per example for the log-likelihood.
        max_rows: judge at most so many seeded rows; None for all.
        baselines: put probabilistic PCA with as many latents beside it.

    Returns:
        What evaluation.json holds: nats per example, averaged over examples, with standard
        errors over examples; None where a thing does not exist for the model.

    Raises:
        InputError: data of another shape or support.
    """
    started = time.perf_counter()
    data = _subset(source.split(split), max_rows)
    model.check(data.x, source.name)
    model.eval()
    num_dims = num_elements(model.event_shape)
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": model.name,
        "data": source.name,
        "support": str(model.support),
        "fingerprint": source.fingerprint,
        "split": split,
        "num_examples": len(data),
        "unit": "nats/example",
        "parameters": model.num_parameters,
        "bound": None,
        "log_likelihood": None,
        "gap": None,
        "bits_per_dim": None,
    }
    if model.is_likelihood:
        result["bound"] = _bound(model, data, min(num_samples, BOUND_SAMPLES))
        bound = result["bound"]["value"]
        if not math.isfinite(bound):
            raise DivergedError(
                f"the bound of this model on {split} examples is not finite: its training "
                "diverged; train again with a lower --learning-rate"
            )
        result["log_likelihood"] = _log_likelihood(model, data, num_samples)
        if num_samples > 1:  # of one sample each, the difference is noise around zero
            result["gap"] = result["log_likelihood"]["value"] - bound
        result["bits_per_dim"] = -bound / (num_dims * math.log(2))
    else:
        result["reason"] = "not a likelihood"
    result |= _latents(model, data)
    result["baselines"] = _baselines(model, source, data) if baselines else {}
    result["notes"] = [*model.notes(), *source.warnings]
    result["seconds"] = time.perf_counter() - started
    return result


def _bound(model: Model, data: InMemorySplit, num_samples: int) -> dict[str, Any]:
    """The bound by ``num_samples`` single-sample estimates per example, with both errors."""
    device = model.calibrated.device
    values, terms = [], []
    for first in range(0, len(data), BATCH):
        x = data[slice(first, first + BATCH)][0].to(device)
        noise = model.judging_noise(range(first, first + len(x)), num_samples)
        bounds = [
            model.bound(x, noise={name: t[k : k + 1] for name, t in noise.items()})
            for k in range(num_samples)
        ]
        values.append(torch.stack([b.value.double() for b in bounds]).cpu())
        names = list(bounds[0].terms())
        terms.append(
            torch.stack(
                [torch.stack([b.terms()[n].double() for b in bounds]) for n in names]
            ).cpu()
        )
    value, term = torch.cat(values, 1), torch.cat(terms, 2)  # (M, N), (terms, M, N)
    n = value.shape[1]
    monte_carlo = float((value.var(0).sum() / num_samples).sqrt() / n) if num_samples > 1 else None
    per_example = value.mean(0)
    return {
        "value": float(per_example.mean()),
        "standard_error": _standard_error(per_example),
        "monte_carlo_error": monte_carlo,
        "terms": {name: float(t) for name, t in zip(names, term.mean((1, 2)), strict=True)},
    }


def _log_likelihood(model: Model, data: InMemorySplit, num_samples: int) -> dict[str, Any]:
    estimate = log_likelihood(model, data.x, num_samples=num_samples)
    size = float(estimate.effective_sample_size.mean())
    return {
        "value": float(estimate.value.mean()),
        "standard_error": _standard_error(estimate.value),
        "num_samples": None if model.closed_form else num_samples,
        "effective_sample_size": None if model.closed_form else size,
        "kind": model.evidence_kind,
    }


def _standard_error(values: Tensor) -> float | None:
    """Of the mean over examples; None where there is one example."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None


def _latents(model: Model, data: InMemorySplit) -> dict[str, Any]:
    """Reconstruction error and active units, where there is an encoder."""
    if not model.has_encoder:
        return {"reconstruction_mse": None, "active_units": None, "latent_dim": None}
    device = model.calibrated.device
    means = latent_means(model, data)
    total = 0.0
    for first in range(0, len(data), BATCH):
        x = data[slice(first, first + BATCH)][0].to(device)
        decoded = model.decode(means[first : first + BATCH].to(device)).mean
        total += float((decoded - x).double().square().sum())
    return {
        "reconstruction_mse": total / (len(data) * num_elements(model.event_shape)),
        "active_units": num_active_units(means),
        "latent_dim": means.shape[1],
    }


def _baselines(model: Model, source: Source, data: InMemorySplit) -> dict[str, Any]:
    """Probabilistic PCA with as many latents, where the data give it a sigma of its own."""
    size, k = num_elements(model.event_shape), getattr(model, "latent_dim", None)
    if k is None or size < 2 or size > LARGEST_FOR_PPCA or isinstance(model, ProbabilisticPCA):
        return {}
    ppca = ProbabilisticPCA(model.event_shape, model.support, min(k, size - 1))
    ppca.fit_exactly(source)
    if ppca.floored or len(source.train) <= ppca.latent_dim + 1:
        return {}
    value = float(log_likelihood(ppca, data.x).value.mean())
    kind, k = ppca.evidence_kind, ppca.latent_dim
    return {"ppca": {"log_likelihood": value, "kind": kind, "latent_dim": k}}


@torch.no_grad()
def scores(model: Model, x: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    """The bound of each example: nats (N,) and bits/dim (N,), float64.

    Raises:
        InputError: the model has no likelihood.
    """
    if not model.is_likelihood:
        raise InputError(f"a model of kind '{model.name}' is not a likelihood and scores nothing")
    parts = []
    for first in range(0, len(x), BATCH):
        rows = x[first : first + BATCH].to(model.calibrated.device)
        noise = model.judging_noise(range(first, first + len(rows)), num_samples)
        bound = model.bound(rows, num_samples=num_samples, noise=noise)
        parts.append(bound.value.double().cpu())
    nats = torch.cat(parts)
    return nats, -nats / (num_elements(model.event_shape) * math.log(2))
