"""Prior Monte Carlo: why there is an encoder.

    log p(x) ≥ E log 1/K Σ_k p(x|z_k),   z_k ~ p(z)

is the importance-weighted bound with the prior in the place of q: without bias as an estimate of
p(x), and useless beyond a few latents. The relative second moment of its weights p(x|z_k) grows
exponentially with the number of latents that matter: of all draws one counts, and none is near.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, section 2.1: the intractable case.
    Wu et al., On the Quantitative Analysis of Decoder-Based Generative Models, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.errors import InputError
from lowerbound.objectives.base import UNWEIGHTED, Bound, Noise, WeightModel, Weights
from lowerbound.objectives.importance import log_mean_weight, weighted_bound

__all__ = ["prior_log_weight", "prior_monte_carlo"]


def prior_log_weight(
    model: WeightModel,
    x: Tensor,
    num_samples: int,
    context: Tensor | None = None,
    *,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Log p(x|z_k) for draws z_k ~ p(z): (K, B), nats; the log of its mean estimates log p(x).

    Args:
        model: one with a prior over a latent ``z``.
        x: examples (B, *event) in the units of the source.
        num_samples: K, draws per example.
        context: (B, …) or None.
        generators: one per example, so that how examples are batched changes nothing.

    Raises:
        InputError: the model has no such prior.
    """
    prior: Any = getattr(model, "prior", None)
    if prior is None:
        raise InputError("prior Monte Carlo needs a model with a prior over its latents")
    draws = []
    for row, generator in enumerate(generators):
        given = (
            None
            if context is None
            else context[row : row + 1].expand(num_samples, *context.shape[1:])
        )
        draws.append(prior.sample(num_samples, given, generator))
    z = torch.stack(draws, dim=1)
    # The density of the draw is in the joint one too: what is left is log p(x|z).
    return model.log_joint(x, {"z": z}, context) - prior.log_prob(z, context)


def prior_monte_carlo(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −log 1/K Σ_k p(x|z_k), (B,) nats: for teaching, it trains the decoder alone.

    The draws follow from ``noise``, which seeds them by example.

    Raises:
        InputError: the model has no prior over its latents, or no noise.
    """
    if not noise:
        raise InputError("prior Monte Carlo needs a model with noise in its encoder")
    first = next(iter(noise.values()))[0]
    seeds = first.reshape(len(x), -1)[:, 0].tolist()
    generators = [generator_for("prior", repr(seed), device=first.device) for seed in seeds]
    log_likelihood = prior_log_weight(model, x, num_samples, context, generators=generators)
    value = log_mean_weight(log_likelihood)
    shares = log_likelihood.detach().softmax(0)
    return -value, weighted_bound(log_likelihood, value, shares)
