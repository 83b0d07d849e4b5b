"""One number and what stands beside it: evaluation.json.

Three estimators of log p(x), side by side, so that a reader sees why the encoder is there: prior
Monte Carlo, the ELBO, and L_K; their decomposition log p = ELBO + gap; and what the latents do.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.data import Source, Split, replaced_examples
from lowerbound.engine import Engine
from lowerbound.errors import InputError, printable, refuse
from lowerbound.evaluation.ais import annealed_importance_sampling
from lowerbound.evaluation.base import (
    blocks,
    check_split,
    context_of,
    judging,
    mean_dims,
    num_dims,
    standard_error,
)
from lowerbound.evaluation.diagnosis import diagnosis, weighty
from lowerbound.evaluation.judge import BATCH, subset
from lowerbound.evaluation.latents import (
    are_active,
    has_posterior,
    in_units_of_prior,
    latent_means,
    mutual_information,
)
from lowerbound.evaluation.likelihood import log_likelihood
from lowerbound.evaluation.nats import nats
from lowerbound.files import FORMAT_VERSION, MAX_FILE_BYTES, atomic_output
from lowerbound.models import Model, ProbabilisticPCA

__all__ = ["evaluate", "load_scores", "scores"]

LARGEST_FOR_PPCA = 4096
AIS_ROWS = 100
GIVEN = (
    "All nats are of log p(x | context), where every example comes with its own for free: they do "
    "not compare with those of a model of p(x)."
)


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
    engine: Engine | None = None,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Judge a model on a split of a source.

    A model with a context is given what the split holds beside x: its nats are of
    log p(x|context), and those of the baselines of log p(x).

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
        engine: the devices that share the work; this process's own without one.
        keep: file for the values of each example, to be read by `load_scores`; none by default.

    Returns:
        What evaluation.json holds: nats per example, averaged over examples, with standard
        errors over examples; None where a thing does not exist for the model.

    Raises:
        InputError: data of another shape or support, or annealing a model without such a latent.
        DivergedError: the bound is not finite.
    """
    started = time.perf_counter()
    engine = engine or Engine(model.calibrated.device)
    data = subset(source.split(split), max_rows)
    each: dict[str, Tensor] = {}
    check_split(model, data, source.name)
    model.check_context(source.context)
    with judging(model):
        result = _identity(model, source, split, data) | nats(
            model, data, num_samples, each, engine
        )
        result |= _latents(model, data)
        active = result.pop("active")
        result["diagnosis"] = diagnosis(result, active)
        if ais:
            result["ais"] = _annealed(model, data, ais, ais_chains, num_samples)
        result["baselines"] = (
            _baselines(model, source, data) if baselines and model.context is None else {}
        )
    given = [GIVEN] if model.context is not None and model.is_likelihood else []
    result["facts"] = model.facts()
    given += _other_context(model, source)
    if "bound" in each:
        given += weighty(each["bound"])
    result["notes"] = [*given, *model.notes(), *source.warnings, *replaced_examples(source)]
    result["seconds"] = time.perf_counter() - started
    if keep is not None and each:
        with atomic_output(keep) as temporary:
            temporary.write_bytes(save({k: t.cpu().contiguous() for k, t in each.items()}))
    return result


def load_scores(path: Path) -> dict[str, Tensor]:
    """The values of each example that `evaluate` kept, (N,), nats.

    They are the bound and, where the model has one that is more than that, the log_likelihood.

    Raises:
        InputError: no such file, or not one of these.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise refuse(path, f"a file of at most {MAX_FILE_BYTES} bytes", path.stat().st_size)
        each = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"'{printable(path)}' cannot be read: {printable(error)}") from error
    if set(each) - {"log_likelihood"} != {"bound"} or each["bound"].ndim != 1:
        raise refuse(path, "scores of a run, bound and log_likelihood", ", ".join(each) or "none")
    return each


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
        "context": None if model.context is None else str(source.context),
        "dequantised": model.dequantizes,
        "unit": "nats/example",
        "parameters": model.num_parameters,
    }


def _other_context(model: Model, source: Source) -> list[str]:
    """A sentence where the data give the model another context than it was trained with."""
    if model.context is None or str(source.context) == str(model.context):
        return []
    return [
        f"The model was trained with {model.context} and is judged with {source.context}: its "
        "nats do not compare with those of the same model on the other."
    ]


def _annealed(
    model: Model, data: Split, num_steps: int, num_chains: int, num_samples: int
) -> dict[str, Any]:
    """Annealed importance sampling on some rows, beside L_K on the same ones."""
    some = subset(data, AIS_ROWS)
    x, context = some[slice(None)][0], context_of(model, some)
    estimate = annealed_importance_sampling(
        model, x, num_steps=num_steps, num_chains=num_chains, context=context
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
    """Reconstruction error, where there is an encoder; what the latents carry, beside a prior."""
    names = ("reconstruction_mse", "active_units", "latent_dim", "mutual_information", "active")
    if not model.has_encoder:
        return dict.fromkeys(names)
    device = model.calibrated.device
    means = latent_means(model, data)
    total = 0.0
    for rows in blocks(len(data), model.rows_together(BATCH)):
        decoded = model.decode(means[rows].to(device), context_of(model, data, rows)).mean
        total += float((decoded - data[rows][0].to(device)).cpu().double().square().sum())
    active = None
    if has_posterior(model, data):
        active = are_active(in_units_of_prior(model, data, means))
    return {
        "reconstruction_mse": total / max(1.0, len(data) * mean_dims(model, data)),
        "active_units": None if active is None else int(active.sum()),
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


def scores(
    model: Model, x: Tensor, num_samples: int, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The bound of each example, given its context (N, …): nats (N,) and bits/dim (N,), float64.

    Bits are per dimension that the nats are of: where a part of x is given, of its rest.

    Raises:
        InputError: the model has no likelihood, or examples that do not fit it.
    """
    if not model.is_likelihood:
        raise InputError(f"a model of kind '{model.name}' is not a likelihood and scores nothing")
    model.check(x)
    device, parts, dims = model.calibrated.device, [], []
    with judging(model):
        for rows in blocks(len(x), max(1, model.rows_together(BATCH) // num_samples)):
            noise = model.judging_noise(range(rows.start, rows.stop), num_samples)
            some, given = x[rows].to(device), None if context is None else context[rows].to(device)
            bound = model.bound(some, given, num_samples=num_samples, noise=noise)
            parts.append(bound.value.cpu().double())
            dims.append(num_dims(model, given, len(some)))
    nats = torch.cat(parts)
    return nats, -nats / (torch.cat(dims) * math.log(2))
