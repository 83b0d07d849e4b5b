"""The hierarchical VAE: stochastic layers that are encoded upwards and generated downwards.

    q(z|x) = q(z_1|x) q(z_2|z_1) … q(z_L|z_{L−1}),   each a diagonal Gaussian by a network
    p(x, z) = p(z_L) p(z_{L−1}|z_L) … p(z_1|z_2) p(x|z_1),   p(z_L) = N(0, I)

    kl_l = E_q[log q(z_l|z_{l−1}) − log p(z_l|z_{l+1})],   kl_L = E_q KL(q(z_L|z_{L−1}) ‖ N(0, I))

Only the rate of the top has a closed form. Below it p(z_l|z_{l+1}) depends on a z_{l+1} that was
itself drawn given z_l, and what is left is the estimate at the draw: a single one may be negative.

Given a context, every network sees its embedding beside its input, and p(z_L|c) is a Gaussian by a
small network that sees it alone.

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

from lowerbound._shapes import num_elements, repeated_rows
from lowerbound.data import Context
from lowerbound.distributions import DiagonalGaussian, Likelihood, Support, kl_gaussian
from lowerbound.errors import refuse
from lowerbound.models.context import ContextOptions, make_embedding
from lowerbound.models.heads import HeadOptions, make_head
from lowerbound.models.hierarchy import Hierarchy, TopOptions
from lowerbound.models.levels import Level, Take, gaussian, limited, parameters
from lowerbound.models.networks import Network, check_network, make_networks
from lowerbound.models.priors import Prior
from lowerbound.nn import Embedding, Joined, Mlp

__all__ = ["HierarchicalVAE", "HierarchicalVAEOptions"]


@dataclass(frozen=True)
class HierarchicalVAEOptions(HeadOptions, ContextOptions, TopOptions):
    """Options of the hierarchical VAE; the last ones are those of its likelihood and context."""

    latent_dims: tuple[int, ...] = (100, 50)
    """Latent dimensions of each layer, the one next to the data first."""
    network: Network = "auto"
    """Networks between x and z_1, as of the vae: mlp, hybrid or conv; all others are mlps."""
    width: int | None = None
    """Hidden units of an mlp (512 unless said), or channels of a conv at full size (32)."""
    depth: int = 1
    """Residual blocks of each network; 0 is one hidden layer."""

    def __post_init__(self) -> None:
        ContextOptions.__post_init__(self)
        TopOptions.__post_init__(self)
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
        priors: L − 1 networks (N, d_{l+1}) -> (N, 2 d_l), for l = 1 … L − 1; with a context one
            more, (N, E) -> (N, 2 d_L).
        decoder: network (N, d_1) -> (N, likelihood.num_outputs · event).
        likelihood: the head of the decoder.
        latent_dims: d_1 … d_L.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E). All networks see it as a second argument.
        top: a learned prior of the top layer; None for the Gaussian.
    """

    name: ClassVar[str] = "hvae"

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        priors: Sequence[nn.Module],
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dims: Sequence[int],
        context: Context | None = None,
        embedding: Embedding | None = None,
        top: Prior | None = None,
    ) -> None:
        super().__init__(likelihood, [(d,) for d in latent_dims], context, embedding, top)
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
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> HierarchicalVAE:
        """The model that ``options`` describe; a network that is given stands next to the data."""
        dims, likelihood = options.latent_dims, make_head(event_shape, support, options)
        sizes: Any = {k: getattr(options, k) for k in ("network", "width", "depth")}
        if embedding is None:
            embedding = make_embedding(context, event_shape, support, options, **sizes)
        size = 0 if embedding is None else embedding.size
        ends = (2 * dims[0], likelihood.num_outputs, dims[0])
        made = make_networks(event_shape, *ends, **sizes, num_context=size)
        width = 512 if options.network == "conv" else options.width or 512
        encoders, priors = _between(dims, size, width=width, depth=options.depth)
        first, last = encoder or made[0], decoder or made[1]
        parts: Any = (context, embedding, options.top(dims[-1]))
        model = cls([first, *encoders], priors, last, likelihood, dims, *parts)
        model.options = options
        beside = (torch.zeros(2, size),) if size else ()
        check_network("encoder", first, (torch.zeros(2, *event_shape), *beside), 2 * dims[0])
        required = likelihood.num_outputs * num_elements(event_shape)
        check_network("decoder", last, (torch.zeros(2, dims[0]), *beside), required)
        return model

    def _infer(
        self, x: Tensor, num: int, take: Take, *beside: Tensor
    ) -> tuple[list[Level], Tensor]:
        """See `Hierarchy._infer`; x is encoded once, whatever the number of ways."""
        repeated = [repeated_rows(e, num) for e in beside]
        # Upwards: z_l ~ q(z_l|z_{l−1}).
        posteriors, latents = list[DiagonalGaussian](), list[Tensor]()
        for i, encoder in enumerate(self.encoders, 1):
            if latents:
                raw = encoder(latents[-1], *repeated)
            else:
                raw = repeated_rows(encoder(x, *beside), num)
            posteriors.append(gaussian(*parameters(raw)))
            latents.append(take(i, posteriors[-1]))
        # Downwards: what each of them costs given the one above.
        n, take = len(latents[0]), lambda i, _: latents[i - 1]
        priors, decoded = self._generate(n, take, *repeated)
        rates = [_at_draw(q, p, z) for q, p, z in zip(posteriors, priors, latents, strict=True)]
        rates[-1] = kl_gaussian(posteriors[-1], priors[-1] if beside else None)
        found = zip(posteriors, priors, latents, rates, strict=True)
        return [Level(*parts) for parts in found], decoded

    def _generate(
        self, num: int, take: Take, *beside: Tensor
    ) -> tuple[list[DiagonalGaussian], Tensor]:
        """See `Hierarchy._generate`."""
        top = self.likelihood.shift.new_zeros(()).expand(num, self.sizes[-1])
        found = [DiagonalGaussian(top, top)]
        if beside:
            found = [_prior(self.priors[-1](*beside))]
        z = take(self.num_levels, found[0])
        for i in range(self.num_levels - 1, 0, -1):
            found.insert(0, _prior(self.priors[i - 1](z, *beside)))
            z = take(i, found[0])
        return found, self.decoder(z, *beside)


def _between(
    dims: Sequence[int], num_context: int, **sizes: int
) -> tuple[Sequence[nn.Module], Sequence[nn.Module]]:
    """Encoders and priors between latents of ``dims``; with a context that of the top as well."""
    encoders, priors = list[nn.Module](), list[nn.Module]()
    for low, high in pairwise(dims):
        encoders.append(Mlp((low + num_context,), 2 * high, **sizes))
    for low, high in pairwise(dims):
        priors.append(Mlp((high + num_context,), 2 * low, **sizes))
    top = [Mlp((num_context,), 2 * dims[-1], **sizes)] if num_context else []
    for network in [*priors, *top]:  # training begins with N(0, I) at every layer
        assert isinstance(network, Mlp)
        nn.init.zeros_(network.last.weight)
        nn.init.zeros_(network.last.bias)
    if not num_context:
        return encoders, priors
    told, told_above = ([Joined(m, is_flat=True) for m in part] for part in (encoders, priors))
    return told, [*told_above, *top]


def _prior(raw: Tensor) -> DiagonalGaussian:
    """p(z_l|z_{l+1}) by the outputs (N, 2 d_l) of its network."""
    loc, log_scale = parameters(raw)
    return gaussian(loc, limited(log_scale))


def _at_draw(q: DiagonalGaussian, p: DiagonalGaussian, z: Tensor) -> Tensor:
    """Log q(z) − log p(z) of each latent dimension, (N, d), nats."""
    in_q, in_p = ((z - d.loc) * torch.exp(-d.log_scale) for d in (q, p))
    return 0.5 * (in_p.square() - in_q.square()) + p.log_scale - q.log_scale
