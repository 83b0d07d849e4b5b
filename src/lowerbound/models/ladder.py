"""The ladder: a residual hierarchy whose posterior and prior descend the same path.

    h_L learned,   p(z_l|z_{>l}) = N(μ_p(h_l), σ_p²(h_l)),   h_{l−1} = h_l + W z_l + …,   p(x|h_0)

    q(z_l|z_{>l}, x) = N(μ_p + Δμ, σ_p² e^{2Δ}),   Δμ and Δ from h_l and from features f_l(x)

    kl_l = KL(q ‖ p) = Σ ½[(Δμ/σ_p)² + e^{2Δ} − 1 − 2Δ], given the draws of the levels above

The rate is in closed form: z_l is drawn after the levels on which both q and p depend. It is
computed from the offsets, so that nothing cancels where q is next to p; at the start it is zero.
Given a context, h_l and the features hear its embedding, and with them all that is read off them.

References:
    Sønderby et al., Ladder Variational Autoencoders, 2016.
    Vahdat and Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, 2020: the offsets.
    Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import num_elements, repeated_rows, shown_shape
from lowerbound.data import Context
from lowerbound.distributions import (
    DiagonalGaussian,
    Likelihood,
    Support,
    kl_gaussian,
)
from lowerbound.errors import refuse
from lowerbound.models.context import ContextOptions, make_embedding
from lowerbound.models.heads import HeadOptions, make_head
from lowerbound.models.hierarchy import Hierarchy, TopOptions
from lowerbound.models.levels import Level, Take, gaussian, limited, parameters
from lowerbound.models.networks import Network, fitting_network
from lowerbound.models.priors import Prior
from lowerbound.nn import ConvLadder, Embedding, Ladder, MlpLadder

__all__ = ["LadderOptions", "LadderVAE"]

LATENT_DIM, LATENT_CHANNELS = 16, 8
WIDTH, CHANNELS = 512, 64
# Of dense layers: or as many as places along the longest side, where those are more.
MOST_LEVELS = 8


@dataclass(frozen=True)
class LadderOptions(HeadOptions, ContextOptions, TopOptions):
    """Options of the ladder; the last ones are those of its likelihood and of its context."""

    levels: int = 5
    """L, levels of latents."""
    latent_dim: int | None = None
    """Latent dimensions of each level (16 unless said), or channels of a conv's at each place
    (8)."""
    network: Network = "auto"
    """mlp; hybrid, an mlp that ends in a brush shared by all places; or conv, whose levels are
    spread over the sizes of the halved image. auto is hybrid for images of 16 to 32 pixels a side,
    conv for larger ones, and mlp for all else, sequences and volumes too."""
    width: int | None = None
    """Size of the path (512 unless said), or its channels in a conv (64; twice as many where the
    image is halved)."""
    depth: int = 1
    """Residual blocks of each level, on the way up and again on the way down."""
    scales: int | None = None
    """Sizes of a conv's latents, each half the one before; unless said down to about seven
    pixels."""
    patch: int | None = None
    """Pixels a side for each place of a conv's largest latents: 2 unless said, and 1 for images of
    up to 14 pixels. A larger patch is faster and knows less of fine detail."""

    def __post_init__(self) -> None:
        ContextOptions.__post_init__(self)
        TopOptions.__post_init__(self)
        for name in ("levels", "latent_dim", "width", "scales", "patch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise refuse(name, "at least 1", value)
        if self.depth < 0:
            raise refuse("depth", "0 or more", self.depth)


class LadderVAE(Hierarchy):
    """A ladder from its parts; `LadderVAE.build` makes the parts from `LadderOptions`.

    Args:
        network: both paths; it sees x standardised by the likelihood.
        likelihood: the head of the decoder.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, which the network hears.
        top: a learned prior of the top level; None for the Gaussian.
    """

    name: ClassVar[str] = "ladder"

    def __init__(
        self,
        network: Ladder,
        likelihood: Likelihood,
        context: Context | None = None,
        embedding: Embedding | None = None,
        top: Prior | None = None,
    ) -> None:
        super().__init__(likelihood, network.shapes, context, embedding, top)
        self.network = network

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: LadderOptions = LadderOptions(),
        *,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> LadderVAE:
        """The model that ``options`` describe, with an embedding of your own where it is given.

        Raises:
            InputError: a network for images and data that are none, or a ladder too deep for them.
        """
        likelihood = make_head(event_shape, support, options)
        if embedding is None:
            embedding = make_embedding(context, event_shape, support, options)
        num_context = 0 if embedding is None else embedding.size
        network = _network(event_shape, likelihood.num_outputs, options, num_context)
        top = options.top(num_elements(network.shapes[-1]))
        model = cls(network, likelihood, context, embedding, top)
        model.options = options
        return model

    def _infer(
        self, x: Tensor, num: int, take: Take, *beside: Tensor
    ) -> tuple[list[Level], Tensor]:
        """See `Hierarchy._infer`; x climbs once, whatever the number of ways down."""
        network, features = self.network, self.network.features(x, *beside)
        h, levels = network.start(num * len(x)), list[Level]()
        repeated = [repeated_rows(e, num) for e in beside]
        for i in range(self.num_levels, 0, -1):
            h = network.heard(i, h, *repeated)
            p = self._prior_at(i, h)
            shift, log_ratio = parameters(network.offset(i, h, features[i - 1]))
            log_ratio = limited(log_ratio)
            q = DiagonalGaussian(p.loc + shift, p.log_scale + log_ratio, p.event_ndim)
            z = take(i, q)
            # In units of p the prior is N(0, I), and the offset is all there is of q.
            offset = DiagonalGaussian(shift * torch.exp(-p.log_scale), log_ratio, p.event_ndim)
            levels.insert(0, Level(q, p, z, _per_channel(kl_gaussian(offset))))
            h = network.descend(i, h, z)
        return levels, network.output(h)

    def _prior_at(self, level: int, h: Tensor) -> DiagonalGaussian:
        """p(z_l|z_{>l}) by the path (N, …) above level l."""
        loc, log_scale = parameters(self.network.prior(level, h))
        return gaussian(loc, limited(log_scale))

    def _generate(
        self, num: int, take: Take, *beside: Tensor
    ) -> tuple[list[DiagonalGaussian], Tensor]:
        """See `Hierarchy._generate`."""
        h, priors = self.network.start(num), list[DiagonalGaussian]()
        for i in range(self.num_levels, 0, -1):
            h = self.network.heard(i, h, *beside)
            p = self._prior_at(i, h)
            priors.insert(0, p)
            h = self.network.descend(i, h, take(i, p))
        return priors, self.network.output(h)


def _per_channel(rate: Tensor) -> Tensor:
    """KL of every latent (N, channels, …), summed over places: (N, channels)."""
    return rate if rate.ndim == 2 else rate.flatten(2).sum(-1)


def _network(
    event_shape: Sequence[int], num_outputs: int, options: LadderOptions, num_context: int
) -> Ladder:
    """The network that ``options`` name, or the one that fits the shape."""
    is_image = len(event_shape) == 3
    kind = options.network
    if kind == "auto":
        kind = fitting_network(event_shape) if is_image else "mlp"
    if kind != "mlp" and not is_image:
        raise refuse("network", f"mlp for data of shape {shown_shape(event_shape)}", kind)
    if kind == "conv":
        sizes: Any = {"depth": options.depth, "num_context": num_context}
        sizes |= {"scales": options.scales, "patch": options.patch}
        channels, width = options.latent_dim or LATENT_CHANNELS, options.width or CHANNELS
        return ConvLadder(event_shape, num_outputs, options.levels, channels, width=width, **sizes)
    most = max(MOST_LEVELS, *event_shape)
    if options.levels > most:
        shown = f"at most {most} for data of shape {shown_shape(event_shape)}"
        raise refuse("levels", shown, options.levels, "use fewer")
    for name in ("scales", "patch"):
        if getattr(options, name) is not None:
            raise refuse(name, f"left out for a network of kind {kind}", getattr(options, name))
    dims = [options.latent_dim or LATENT_DIM] * options.levels
    width = options.width or WIDTH
    sizes = {"width": width, "depth": options.depth, "num_context": num_context}
    return MlpLadder(event_shape, num_outputs, dims, has_brush=kind == "hybrid", **sizes)
