"""A prior that is a normalising flow: an invertible network from z to N(0, I).

log p(z) = log N(f(z); 0, I) + log |det ∂f/∂z|,   z = f⁻¹(u) for u ~ N(0, I)

With couplings both ways take one pass; with autoregressive layers a density takes one and a draw
d of them per layer, and the fit is tighter. Given a context c, all layers may see its embedding:
p(z|c), another density for every context.

References:
    Dinh, Sohl-Dickstein and Bengio, Density Estimation using Real NVP, 2017.
    Papamakarios, Pavlakou and Murray, Masked Autoregressive Flow for Density Estimation, 2017.
    Chen et al., Variational Lossy Autoencoder, 2017 (a flow as the prior of a VAE).
    Bhattacharyya et al., Conditional Flow Variational Autoencoders for Structured Sequence
    Prediction, 2019 (a flow that sees the context).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.models.priors.base import Prior
from lowerbound.models.priors.normal import StandardNormal
from lowerbound.nn import Autoregressive, Chain, Coupling, Embedding, Flow, coupling_masks

__all__ = ["AutoregressivePrior", "CouplingPrior", "FlowPrior"]


class FlowPrior(Prior):
    """N(0, I) seen through a flow.

    Args:
        flow: from latents (…, d) to the standard normal.
        latent_dim: d.
        embedding: of contexts (B, …) -> (B, E), which the flow sees; None for one p(z).
    """

    def __init__(self, flow: Flow, latent_dim: int, embedding: Embedding | None = None) -> None:
        super().__init__()
        self.flow, self.base = flow, StandardNormal(latent_dim)
        self.embedding = embedding

    def _seen(self, context: Tensor | None) -> Tensor | None:
        """What the flow sees of contexts (B, …): (B, E), or nothing."""
        if self.embedding is None:
            return None
        if context is None:
            raise refuse("context", "given to a conditional prior", context)
        seen: Tensor = self.embedding(context)
        return seen

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, B, d), given contexts (B, …) where it sees them: nats."""
        u, log_det = self.flow(z, self._seen(context))
        return self.base.log_prob(u) + log_det

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d), one for each of ``num`` contexts where it sees them."""
        with torch.no_grad():
            u = self.base.sample(num, None, generator)
            z: Tensor = self.flow(u, self._seen(context), inverse=True)[0]
        return z


class CouplingPrior(FlowPrior):
    """Affine couplings with alternating masks; it starts as N(0, I).

    Args:
        latent_dim: d.
        num_layers: couplings.
        width: hidden units of each one's network.
        embedding: of contexts, where they are seen.
    """

    name: ClassVar[str] = "flow"

    def __init__(
        self,
        latent_dim: int,
        num_layers: int = 6,
        *,
        width: int = 256,
        embedding: Embedding | None = None,
    ) -> None:
        check_layers(num_layers, width)
        num_context = 0 if embedding is None else embedding.size
        masks = coupling_masks(latent_dim, num_layers)
        flow = Chain([Coupling(mask, num_context, width=width) for mask in masks])
        super().__init__(flow, latent_dim, embedding)


class AutoregressivePrior(FlowPrior):
    """Masked autoregressive layers, in turns from either end; it starts as N(0, I).

    Args:
        latent_dim: d.
        num_layers: how many.
        width: hidden units per layer of each one's network.
    """

    name: ClassVar[str] = "autoregressive"

    def __init__(self, latent_dim: int, num_layers: int = 6, *, width: int = 256) -> None:
        check_layers(num_layers, width)
        flows = [
            Autoregressive(latent_dim, width=width, reverse=layer > 0)
            for layer in range(num_layers)
        ]
        super().__init__(Chain(flows), latent_dim)


def check_layers(num_layers: int, width: int) -> None:
    """Refuse a flow without layers, or layers without units."""
    for name, value in (("prior_layers", num_layers), ("flow_width", width)):
        if value < 1:
            raise refuse(name, "at least 1", value)
