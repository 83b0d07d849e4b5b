"""Gaussian priors: N(0, I), and one that a context chooses."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.distributions import (
    DiagonalGaussian,
    Distribution,
    FullGaussian,
    chain_kl,
    kl_gaussian,
)
from lowerbound.errors import refuse
from lowerbound.models.priors.base import MAX_LOG_SCALE, MIN_LOG_SCALE, Prior, Rates
from lowerbound.nn import Embedding, Mlp

__all__ = ["ConditionalNormal", "StandardNormal"]


class StandardNormal(Prior):
    """p(z) = N(0, I) in ``latent_dim`` dimensions."""

    name: ClassVar[str] = "normal"
    has_unit_scale: ClassVar[bool] = True
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
        q: Distribution,
        z: Tensor,
        context: Tensor | None = None,
        kl: Literal["analytic", "sampled"] = "analytic",
    ) -> Rates:
        """The closed form per latent dimension, or its sampled estimate; see `Prior.rates`."""
        if kl == "analytic" and isinstance(q, DiagonalGaussian):
            per_dimension = kl_gaussian(q)
        elif kl == "analytic" and isinstance(q, FullGaussian):
            per_dimension = chain_kl(q)
        else:
            return super().rates(q, z, context, kl)
        return {"kl": per_dimension.sum(-1)}, {"kl": per_dimension}


class ConditionalNormal(Prior):
    """p(z|c) = N(μ(c), diag σ²(c)) by a small network on an embedding of its own.

    Its last layer starts at zero: training begins with N(0, I) for every context.

    References:
        Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional
        Generative Models, 2015.

    Args:
        embedding: of contexts (B, …) -> (B, embedding.size).
        latent_dim: d.
        width: hidden units.
    """

    name: ClassVar[str] = "conditional"
    has_unit_scale: ClassVar[bool] = True  # in its `units`

    def __init__(self, embedding: Embedding, latent_dim: int, *, width: int = 128) -> None:
        super().__init__()
        self.embedding = embedding
        self.network = Mlp((embedding.size,), 2 * latent_dim, width=width, depth=0)
        nn.init.zeros_(self.network.last.weight)
        nn.init.zeros_(self.network.last.bias)

    def given(self, context: Tensor | None) -> DiagonalGaussian:
        """p(z|c) of contexts (B, …): a diagonal Gaussian over (B, d).

        Raises:
            InputError: no context.
        """
        if context is None:
            raise refuse("context", "given to a conditional prior", context)
        parameters = self.network(self.embedding(context))
        parameters = parameters if parameters.dtype == torch.float64 else parameters.float()
        loc, log_scale = parameters.chunk(2, dim=-1)
        return DiagonalGaussian(loc, F.hardtanh(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, B, d) given contexts (B, …): (…, B), nats."""
        return self.given(context).log_prob(z)

    def units(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """(z − μ(c))/σ(c) of latents (B, d): (B, d)."""
        p = self.given(context)
        return (z - p.loc) * torch.exp(-p.log_scale)

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d), one for each of ``num`` contexts."""
        return self.given(context).sample(generator)

    def rates(
        self,
        q: Distribution,
        z: Tensor,
        context: Tensor | None = None,
        kl: Literal["analytic", "sampled"] = "analytic",
    ) -> Rates:
        """The closed form per latent dimension, or its sampled estimate; see `Prior.rates`."""
        if kl == "analytic" and isinstance(q, DiagonalGaussian):
            per_dimension = kl_gaussian(q, self.given(context))
        elif kl == "analytic" and isinstance(q, FullGaussian):
            per_dimension = chain_kl(q, self.given(context))
        else:
            return super().rates(q, z, context, kl)
        return {"kl": per_dimension.sum(-1)}, {"kl": per_dimension}
