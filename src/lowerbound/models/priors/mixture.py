"""A prior that is a mixture of K diagonal Gaussians, learned with the rest.

p(z) = Σ_k π_k N(z; μ_k, diag σ_k²)

The K·N quadratic forms of N latents are multiplied out to three matrix products, in double
precision where there is one: what cancels in them would cost float32 its nats.

References:
    Dilokthanakul et al., Deep Unsupervised Clustering with Gaussian Mixture Variational
    Autoencoders, 2016.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.distributions import DiagonalGaussian, FullGaussian
from lowerbound.errors import refuse
from lowerbound.models.priors.base import MAX_LOG_SCALE, MIN_LOG_SCALE, Prior

__all__ = ["MixturePrior", "component_log_prob"]

SPREAD = 0.5  # of the components' means at the start
LOG_2PI = math.log(2 * math.pi)


class MixturePrior(Prior):
    """A learned mixture of diagonal Gaussians; it starts with the variance of N(0, I).

    Args:
        latent_dim: d.
        num_components: K.
    """

    name: ClassVar[str] = "mixture"

    def __init__(self, latent_dim: int, num_components: int) -> None:
        super().__init__()
        check_components(num_components)
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(SPREAD * torch.randn(num_components, latent_dim))
        log_scale = 0.5 * math.log(1 - SPREAD**2)
        self.log_scale = nn.Parameter(torch.full((num_components, latent_dim), log_scale))

    def components(self) -> DiagonalGaussian:
        """The K Gaussians, over (K, d)."""
        return DiagonalGaussian(self.loc, F.hardtanh(self.log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, d): (…), nats."""
        each = component_log_prob(self.components(), z)
        return (each + self.logits.log_softmax(0)).logsumexp(-1)

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d)."""
        shares, p = self.logits.detach().softmax(0), self.components()
        chosen = torch.multinomial(shares, num, replacement=True, generator=generator)
        return DiagonalGaussian(p.loc[chosen], p.log_scale[chosen]).sample(generator)


def component_log_prob(p: DiagonalGaussian | FullGaussian, z: Tensor) -> Tensor:
    """Log-density of latents (…, d) under each of K Gaussians over (K, d): (…, K), nats."""
    wide = torch.float32 if z.device.type == "mps" else torch.float64
    flat, loc = z.reshape(-1, z.shape[-1]).to(wide), p.loc.to(wide)
    with torch.autocast(z.device.type, enabled=False):
        if isinstance(p, FullGaussian):
            factor = p.scale_tril.to(wide)
            one = torch.eye(factor.shape[-1], dtype=wide, device=z.device)
            inverse = torch.linalg.solve_triangular(factor, one.expand_as(factor), upper=False)
            white = torch.einsum("kij,nj->nki", inverse, flat)
            squares = (white - torch.einsum("kij,kj->ki", inverse, loc)).square().sum(-1)
        else:
            precision = torch.exp(-2 * p.log_scale.to(wide)).expand_as(loc)
            squares = flat.square() @ precision.mT - 2 * flat @ (loc * precision).mT
            squares = squares + (loc.square() * precision).sum(-1)
    log_volume = p.log_scale.expand_as(p.loc).to(wide).sum(-1) + 0.5 * loc.shape[-1] * LOG_2PI
    return (-0.5 * squares - log_volume).to(z.dtype).unflatten(0, z.shape[:-1])


def check_components(num: int) -> None:
    """Refuse a mixture of nothing."""
    if num < 1:
        raise refuse("prior_components", "at least 1", num)
