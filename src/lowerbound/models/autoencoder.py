"""The plain autoencoder: two networks and a squared error.

    z = encoder(x),   x̂ = decoder(z),   minimise ‖x − x̂‖² / s²

with s one number for all dimensions, the root mean square of their standard deviations on the
training set: it keeps the loss of order D and moves no optimum. The error is the squared one, for
every kind of data, because that is what PCA minimises: with linear networks this is PCA of the
data as given (an s of its own for each column would make it PCA of their correlations), so that
what is gained beside it is the gain of bent networks, and beside a VAE the price of probability.
It is summed over dimensions, as the reconstruction term of a VAE is. The networks themselves see
columns, or channels, of variance 1.

It has no prior and no p(x|z): not a likelihood.

References:
    Bourlard and Kamp, Auto-Association by Multilayer Perceptrons and Singular Value
    Decomposition, 1988.
    Hinton and Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lowerbound.data import Source, measured
from lowerbound.distributions import GaussianLikelihood, Real, Support
from lowerbound.errors import refuse
from lowerbound.models.coder import Coder, Point
from lowerbound.models.networks import Network, make_networks

__all__ = ["Autoencoder", "AutoencoderOptions"]


@dataclass(frozen=True)
class AutoencoderOptions:
    """Options of the autoencoder; its networks are those of the VAE."""

    latent_dim: int = 40
    """Number of latent dimensions d."""
    network: Network = "auto"
    """Encoder and decoder: mlp; hybrid, where the decoder ends in a brush shared by all places;
    or conv. auto is hybrid for images of 16 to 32 pixels a side, conv for larger ones and for
    sequences (C, L) and volumes (C, D, H, W) of more than 1,024 numbers, else mlp."""
    width: int | None = None
    """Hidden units of an mlp (512 unless said), or channels of a conv at full size (32)."""
    depth: int = 1
    """Residual blocks, per stage of a conv; an mlp of depth 0 has one hidden layer."""

    def __post_init__(self) -> None:
        for name in ("latent_dim", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise refuse(name, "at least 1", value)
        if self.depth < 0:
            raise refuse("depth", "0 or more", self.depth)


class Autoencoder(Coder):
    """An autoencoder from its parts; `Autoencoder.build` makes them from `AutoencoderOptions`.

    Args:
        encoder: network (B, *event) -> (B, d). It sees x in the unit of the training data.
        decoder: network (N, d) -> (N, event in any arrangement), in the same unit.
        event_shape: shape of one example.
        support: what values an element can take; decoded values are real and may leave it.
        latent_dim: d.
    """

    name: ClassVar[str] = "autoencoder"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        event_shape: Sequence[int],
        support: Support,
        latent_dim: int,
    ) -> None:
        super().__init__(event_shape, support)
        self.encoder, self.decoder, self.latent_dim = encoder, decoder, latent_dim
        # Knows the unit of real data, and takes raw outputs back to it: only its mean is used.
        self.head = GaussianLikelihood(event_shape, Real(), 1.0)

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: AutoencoderOptions = AutoencoderOptions(),
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> Autoencoder:
        """The model that ``options`` describe; a network that is given takes the place of theirs.

        Raises:
            InputError: options that do not fit the data.
        """
        if encoder is None or decoder is None:
            sizes = asdict(options)
            d = sizes.pop("latent_dim")
            made = make_networks(event_shape, d, 1, d, **sizes)
            encoder, decoder = encoder or made[0], decoder or made[1]
        model = cls(encoder, decoder, event_shape, support, options.latent_dim)
        model.options = options
        return model

    def unit(self) -> Tensor:
        """The unit of the squared error: s, one number."""
        return self.head.typical

    def encode(self, x: Tensor, context: Tensor | None = None) -> Point:
        """The code of x, (B, d)."""
        self.check_shape(x)
        z = self.encoder(self.head.standardized(x))
        return Point(z if z.dtype == torch.float64 else z.float())

    def decode(self, z: Tensor, context: Tensor | None = None) -> Point:
        """What codes (N, d) stand for, (N, *event), in the units of the data."""
        self.check_latents(z, self.latent_dim)
        return Point(self.head(self.decoder(z)).mean, len(self.event_shape))

    def _calibrate(self, source: Source) -> None:
        self.head.calibrate(measured(source.train))
        # No column varies by more than √D units; one that does not vary at all must not either,
        # or a code in a far smaller unit would be learned after it.
        most = self.head.typical * math.sqrt(self.head.scale.numel())
        self.head.scale.clamp_max_(float(most))
