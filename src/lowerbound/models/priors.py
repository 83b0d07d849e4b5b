"""Priors over latents: how much a code costs, and where new ones come from."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lowerbound.distributions import DiagonalGaussian, kl_gaussian

__all__ = ["Prior", "Rates", "StandardNormal"]

Rates = tuple[dict[str, Tensor], dict[str, Tensor]]


class Prior(nn.Module):
    """The promise of a prior p(z): a log-density, draws, and the rate of a posterior."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, d): (…), nats."""
        raise NotImplementedError

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d)."""
        raise NotImplementedError

    def rates(
        self,
        q: DiagonalGaussian,
        z: Tensor,
        context: Tensor | None = None,
        kl: Literal["analytic", "sampled"] = "sampled",
    ) -> Rates:
        """KL(q ‖ p) by name (B,) and its parts by name (B, groups), nats.

        The sampled form is the mean over the draws ``z`` (M, B, d) of log q(z|x) − log p(z).
        """
        return {"kl": (q.log_prob(z) - self.log_prob(z, context)).mean(0)}, {}


class StandardNormal(Prior):
    """p(z) = N(0, I) in ``latent_dim`` dimensions."""

    name: ClassVar[str] = "normal"
    anchor: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        # Knows the device and the precision of the model that it is a part of.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, d): (…), nats."""
        return DiagonalGaussian(self.anchor, self.anchor).log_prob(z)

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d)."""
        z = torch.empty(num, self.latent_dim, device=self.anchor.device, dtype=self.anchor.dtype)
        return z.normal_(generator=generator)

    def rates(
        self,
        q: DiagonalGaussian,
        z: Tensor,
        context: Tensor | None = None,
        kl: Literal["analytic", "sampled"] = "analytic",
    ) -> Rates:
        """The closed form per latent dimension, or its sampled estimate; see `Prior.rates`."""
        if kl == "sampled":
            return super().rates(q, z, context, kl)
        per_dimension = kl_gaussian(q)
        return {"kl": per_dimension.sum(-1)}, {"kl": per_dimension}
