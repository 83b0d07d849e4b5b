"""The evidence lower bound.

    log p(x) = ELBO(x) + KL(q(z|x) ‖ p(z|x)),   ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)).

Its two estimators in the paper differ in the KL alone: A draws it from the same samples
(equation 6; a VAE with ``kl="sampled"``), B has it in closed form (equation 7; ``kl="analytic"``).

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014: estimators A and B.
    Higgins et al., beta-VAE, 2017.
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016: free
    bits.
    Vahdat and Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, 2020: balanced rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from lowerbound._parallel import global_mean
from lowerbound.errors import refuse
from lowerbound.objectives.base import UNWEIGHTED, Bound, BoundModel, Noise, Weights

__all__ = ["elbo"]

SMALL_RATE = 1e-3  # nats: levels that all carry nothing are weighed alike


def elbo(
    model: BoundModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −(reconstruction − beta · rates) + penalties, (B,), and the unweighted bound.

    With ``free_bits`` = λ > 0 the rate becomes Σ_g max(λ, batch mean of KL_g): the maximum of the
    mean, so that a dimension is judged by the batch and not by each example.

    With ``kl_balancing`` the rate of a hierarchy becomes Σ γ_l KL_l, γ_l = L m_l / Σ m, where m_l
    is the batch mean of KL_l and γ carries no gradient: a level that carries little pays little,
    and gets the time to learn to carry more.
    """
    bound = model.bound(x, context, num_samples=num_samples, noise=noise)
    # Rates: balanced between levels, and free up to λ nats in each group.
    shares = _balanced(bound) if weights.kl_balancing else dict.fromkeys(bound.rates, 1.0)
    if weights.free_bits > 0:
        rate = _with_free_bits(bound, weights.free_bits, shares)
    elif weights.kl_balancing:
        rate = torch.stack([shares[name] * kl for name, kl in bound.rates.items()]).sum(0)
    else:
        rate = bound.rate
    # What is maximised: the surrogate where the model has one, else the weighted bound.
    maximised = bound.surrogate
    if maximised is None:
        maximised = bound.reconstruction - weights.beta * rate
    # Penalties: beside the bound, never inside.
    return reduce(torch.add, bound.penalties.values(), -maximised), bound


def _balanced(bound: Bound) -> dict[str, Tensor | float]:
    """The weight γ of each rate; their mean is 1."""
    if not bound.rates:
        return {}
    rates = torch.stack(list(bound.rates.values()), 1).detach()
    means = global_mean(rates).clamp_min(0) + SMALL_RATE
    return dict(zip(bound.rates, means / means.mean(), strict=True))


def _with_free_bits(
    bound: Bound, free_bits: float, shares: Mapping[str, Tensor | float]
) -> Tensor:
    total = torch.zeros_like(bound.reconstruction)
    for name, rate in bound.rates.items():
        if name not in bound.details:
            raise refuse("free_bits", "0 for a model without rates per group", free_bits)
        groups = global_mean(bound.details[name])
        paid = torch.where(groups > free_bits, groups, free_bits).sum()
        total = total + (shares[name] * paid).expand_as(rate)
    return total
