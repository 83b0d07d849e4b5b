"""KL(q ‖ p) in closed form, by the type of the two distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution
from lowerbound.distributions.bernoulli import Bernoulli, kl_bernoulli
from lowerbound.distributions.categorical import Categorical, kl_categorical
from lowerbound.distributions.continuous_bernoulli import (
    ContinuousBernoulli,
    kl_continuous_bernoulli,
)
from lowerbound.distributions.counts import Poisson, kl_poisson
from lowerbound.distributions.full_gaussian import FullGaussian, kl_full_gaussian
from lowerbound.distributions.gaussian import DiagonalGaussian, kl_gaussian
from lowerbound.distributions.laplace import Laplace, kl_laplace
from lowerbound.distributions.product import ProductDistribution
from lowerbound.errors import refuse

__all__ = ["KLS", "kl"]


def _kl_diagonal(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    return sum_event(kl_gaussian(q, p), q.event_ndim)


def _kl_product(q: ProductDistribution, p: ProductDistribution) -> Tensor:
    pairs = zip(q.parts, p.parts, strict=True)
    return torch.stack([kl(q_part, p_part) for q_part, p_part in pairs]).sum(0)


KLS: dict[type[Distribution], Callable[[Any, Any], Tensor]] = {
    DiagonalGaussian: _kl_diagonal,
    FullGaussian: kl_full_gaussian,
    Laplace: kl_laplace,
    Bernoulli: kl_bernoulli,
    ContinuousBernoulli: kl_continuous_bernoulli,
    Categorical: kl_categorical,
    Poisson: kl_poisson,
    ProductDistribution: _kl_product,
}
"""Closed forms by family; a family without one is estimated as E_q[log q − log p]."""


def kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q ‖ p) in nats, summed over the event, (…); both of one family.

    Raises:
        InputError: two families, or one without a closed form.

    >>> zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    >>> kl(DiagonalGaussian(one, zero), DiagonalGaussian(zero, zero))
    tensor([1.])
    """
    if type(q) is not type(p) or type(q) not in KLS:
        known = ", ".join(family.__name__ for family in KLS)
        raise refuse(
            "q and p",
            f"two distributions of one of the families {known}",
            f"{type(q).__name__} and {type(p).__name__}",
            "estimate it as the mean of q.log_prob(x) - p.log_prob(x) over draws x of q",
        )
    return KLS[type(q)](q, p)
