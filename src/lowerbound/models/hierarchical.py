"""The hierarchical VAE: stochastic layers that are encoded upwards and generated downwards.

    q(z|x) = q(z_1|x) q(z_2|z_1) … q(z_L|z_{L−1}),   each a diagonal Gaussian by a network
    p(x, z) = p(z_L) p(z_{L−1}|z_L) … p(z_1|z_2) p(x|z_1),   p(z_L) = N(0, I)

    kl_l = E_q[log q(z_l|z_{l−1}) − log p(z_l|z_{l+1})],   kl_L = E_q KL(q(z_L|z_{L−1}) ‖ N(0, I))

Only the rate of the top has a closed form. Below it p(z_l|z_{l+1}) depends on a z_{l+1} that was
itself drawn given z_l, and what is left is the estimate at the draw: a single one may be negative.

References:
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements
from lowerbound.distributions import DiagonalGaussian, Likelihood, Support, kl_gaussian
from lowerbound.errors import refuse
from lowerbound.models.heads import HeadOptions, make_head
from lowerbound.models.hierarchy import Hierarchy
from lowerbound.models.levels import Level, Take, gaussian, parameters
from lowerbound.models.networks import Network, check_network, make_networks
from lowerbound.nn import Mlp

__all__ = ["HierarchicalVAE", "HierarchicalVAEOptions"]


@dataclass(frozen=True)
class HierarchicalVAEOptions(HeadOptions):
    """Options of the hierarchical VAE; the last ones are those of its likelihood."""

    latent_dims: tuple[int, ...] = (100, 50)
    """Latent dimensions of each layer, the one next to the data first."""
    network: Network = "auto"
    """Networks between x and z_1, as of the vae: mlp, hybrid or conv; all others are mlps."""
    width: int | None = None
    """Hidden units of an mlp (512 unless said), or channels of a conv at full size (32)."""
    depth: int = 1
    """Residual blocks of each network; 0 is one hidden layer."""

    def __post_init__(self) -> None:
        if not self.latent_dims or min(self.latent_dims) < 1:
            shown = ", ".join(str(d) for d in self.latent_dims) or "none"
            raise refuse("latent_dims", "one or more sizes of at least 1", shown)
        if self.width is not None and self.width < 1:
            raise refuse("width", "at least 1", self.width)
        if self.depth < 0:
            raise refuse("depth", "0 or more", self.depth)


class HierarchicalVAE(Hierarchy):
    """A hierarchy from its parts; `HierarchicalVAE.build` makes them from its options.

    Args:
        encoders: L networks: (B, *event) -> (B, 2 d_1), then (N, d_l) -> (N, 2 d_{l+1}). The
            first sees x standardised by the likelihood.
        priors: L − 1 networks (N, d_{l+1}) -> (N, 2 d_l), for l = 1 … L − 1.
        decoder: network (N, d_1) -> (N, likelihood.num_outputs · event).
        likelihood: the head of the decoder.
        latent_dims: d_1 … d_L.
    """

    name: ClassVar[str] = "hvae"

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        priors: Sequence[nn.Module],
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dims: Sequence[int],
    ) -> None:
        super().__init__(likelihood, [(d,) for d in latent_dims])
        self.encoders, self.priors = nn.ModuleList(encoders), nn.ModuleList(priors)
        self.decoder = decoder

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: HierarchicalVAEOptions = HierarchicalVAEOptions(),
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> HierarchicalVAE:
        """The model that ``options`` describe; a network that is given stands next to the data."""
        dims, likelihood = options.latent_dims, make_head(event_shape, support, options)
        sizes: Any = {k: getattr(options, k) for k in ("network", "width", "depth")}
        ends = (2 * dims[0], likelihood.num_outputs, dims[0])
        made = make_networks(event_shape, *ends, **sizes)
        inner: Any = {"width": 512, "depth": options.depth}
        if options.network != "conv" and options.width:
            inner["width"] = options.width
        pairs = list(pairwise(dims))
        encoders = [Mlp((low,), 2 * high, **inner) for low, high in pairs]
        priors = [Mlp((high,), 2 * low, **inner) for low, high in pairs]
        for network in priors:  # training begins with N(0, I) at every layer
            nn.init.zeros_(network.last.weight)
            nn.init.zeros_(network.last.bias)
        first, last = encoder or made[0], decoder or made[1]
        model = cls([first, *encoders], priors, last, likelihood, dims)
        model.options = options
        check_network("encoder", first, (torch.zeros(2, *event_shape),), 2 * dims[0])
        required = likelihood.num_outputs * num_elements(event_shape)
        check_network("decoder", last, (torch.zeros(2, dims[0]),), required)
        return model

    def _infer(self, x: Tensor, num: int, take: Take) -> tuple[list[Level], Tensor]:
        """See `Hierarchy._infer`; x is encoded once, whatever the number of ways."""
        # Upwards: z_l ~ q(z_l|z_{l−1}).
        posteriors, latents = list[DiagonalGaussian](), list[Tensor]()
        for i, encoder in enumerate(self.encoders, 1):
            raw = encoder(latents[-1]) if latents else encoder(x).repeat(num, 1)
            posteriors.append(gaussian(*parameters(raw)))
            latents.append(take(i, posteriors[-1]))
        # Downwards: what each of them costs given the one above.
        priors, decoded = self._generate(len(latents[0]), lambda i, _: latents[i - 1])
        rates = [_at_draw(q, p, z) for q, p, z in zip(posteriors, priors, latents, strict=True)]
        rates[-1] = kl_gaussian(posteriors[-1])
        found = zip(posteriors, priors, latents, rates, strict=True)
        return [Level(*parts) for parts in found], decoded

    def _generate(self, num: int, take: Take) -> tuple[list[DiagonalGaussian], Tensor]:
        """See `Hierarchy._generate`."""
        top = self.prior.anchor.expand(num, self.sizes[-1])
        found = [DiagonalGaussian(top, top)]
        z = take(self.num_levels, found[0])
        for i in range(self.num_levels - 1, 0, -1):
            found.insert(0, gaussian(*parameters(self.priors[i - 1](z))))
            z = take(i, found[0])
        return found, self.decoder(z)


def _at_draw(q: DiagonalGaussian, p: DiagonalGaussian, z: Tensor) -> Tensor:
    """Log q(z) − log p(z) of each latent dimension, (N, d), nats."""
    in_q, in_p = ((z - d.loc) * torch.exp(-d.log_scale) for d in (q, p))
    return 0.5 * (in_p.square() - in_q.square()) + p.log_scale - q.log_scale
