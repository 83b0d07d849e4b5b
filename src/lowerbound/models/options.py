"""The options of a variational autoencoder: which parts it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lowerbound.errors import refuse
from lowerbound.models.heads import HeadOptions
from lowerbound.models.networks import Network
from lowerbound.models.penalties import PENALTIES
from lowerbound.models.posteriors import PosteriorName
from lowerbound.models.priors import Prior, PriorName, make_prior

__all__ = ["VAEOptions", "prior_of"]


@dataclass(frozen=True)
class VAEOptions(HeadOptions):
    """Options of the variational autoencoder; the others are those of its likelihood."""

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
    posterior: PosteriorName = "diagonal"
    """q(z|x): a Gaussian with one sigma per latent dimension, one per example (isotropic), or a
    whole covariance (full, up to 64 dimensions); or one moved by autoregressive steps (iaf)."""
    posterior_steps: int = 4
    """Steps of an iaf posterior."""
    prior: PriorName = "normal"
    """p(z): N(0, I), or learned: a mixture of Gaussians, a mixture of posteriors at
    pseudo-inputs (vamp), or a flow of couplings (flow) or of autoregressive layers."""
    prior_components: int = 500
    """Components of a mixture or vamp prior."""
    prior_layers: int = 6
    """Layers of a flow or autoregressive prior."""
    flow_width: int = 256
    """Hidden units of the networks inside an iaf posterior and a flow or autoregressive prior."""
    kl: Literal["analytic", "sampled"] = "analytic"
    """KL(q ‖ p) in closed form, or estimated from the same samples, as it is for iaf and for every
    prior but normal and conditional."""
    penalty: Literal["none", "total-correlation", "mmd", "dip-i", "dip-ii"] = "none"
    """What training adds to its loss about the codes of a batch, beside the bound: that their
    dimensions are independent, or that all of them together look like N(0, I)."""
    penalty_weight: float = 1.0
    """Factor of the penalty."""

    def __post_init__(self) -> None:
        counts = "latent_dim width posterior_steps prior_components prior_layers flow_width"
        for name in counts.split():
            value = getattr(self, name)
            if value is not None and value < 1:
                raise refuse(name, "at least 1", value)
        if self.depth < 0:
            raise refuse("depth", "0 or more", self.depth)
        _check_penalty(self)


def _check_penalty(options: VAEOptions) -> None:
    """A weight that weighs something, and a penalty whose formula fits the other parts."""
    name, weight = options.penalty, options.penalty_weight
    if not 0 <= weight < math.inf:
        raise refuse("penalty_weight", "0 or more", weight)
    if name == "none":
        if weight != 1:
            remedy = f"name one: --penalty {' or '.join(PENALTIES)}"
            raise refuse("penalty_weight", "1 without a penalty", weight, remedy)
        return
    if options.posterior not in ("diagonal", "isotropic"):
        raise refuse("posterior", "diagonal or isotropic with a penalty", options.posterior)
    if name != "total-correlation" and options.prior != "normal":
        raise refuse("prior", f"normal with the penalty '{name}'", options.prior)


def prior_of(options: VAEOptions, event_shape: Sequence[int]) -> Prior:
    """The prior that ``options`` describe."""
    return make_prior(
        options.prior,
        options.latent_dim,
        event_shape,
        num_components=options.prior_components,
        num_layers=options.prior_layers,
        width=options.flow_width,
    )
