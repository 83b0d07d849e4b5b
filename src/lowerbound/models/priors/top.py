"""The prior of a hierarchy's joint latents: N(0, I) below, and at the top what is learned.

    log p(u) = log N(u_<L; 0, I) + log p(u_L)

u are latents in units of the Gaussian priors of their levels, of which N(0, I) holds exactly. A
learned p(u_L) takes the place of that at the top, where nothing above says more: what it adds,
log p(u_L) − log N(u_L; 0, I), is taken off the rate that is had in closed form.

References:
    Tomczak and Welling, VAE with a VampPrior, 2018 (a hierarchy with a learned prior at the top).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.models.priors.base import Prior
from lowerbound.models.priors.normal import StandardNormal

__all__ = ["TopPrior"]


class TopPrior(Prior):
    """A prior over joint latents (…, d), the top level last.

    Args:
        top: prior of the top level in units of its Gaussian, over (…, top_dim).
        latent_dim: d, of all levels together.
        top_dim: how many of them are the top's.
    """

    def __init__(self, top: Prior, latent_dim: int, top_dim: int) -> None:
        super().__init__()
        self.top, self.below = top, StandardNormal(latent_dim - top_dim)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of joint latents (…, d): (…), nats."""
        below, top = z.tensor_split([self.below.latent_dim], -1)
        return self.below.log_prob(below) + self.top.log_prob(top)

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d)."""
        drawn = [part.sample(num, None, generator) for part in (self.below, self.top)]
        return torch.cat(drawn, -1)

    def gain(self, top: Tensor) -> Tensor:
        """Log p(u_L) − log N(u_L; 0, I) of latents (…, top_dim) of the top level: (…), nats."""
        return self.top.log_prob(top) - self.below.log_prob(top)
