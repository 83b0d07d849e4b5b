"""The variational autoencoder.

    z ~ N(0, I),  x | z ~ p(x | decoder(z)),   q(z|x) = N(μ(x), diag σ²(x)) by the encoder

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)),   z = μ + σ ε,  ε ~ N(0, I).

The reconstruction term is summed over the dimensions of x, always: a mean over pixels would be a
beta-VAE in disguise, with beta the number of pixels.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014.
    Rezende, Mohamed and Wierstra, Stochastic Backpropagation, 2014.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._random import permutation
from lowerbound._shapes import num_elements, shown_shape
from lowerbound.data import Source, measured
from lowerbound.distributions import (
    DiagonalGaussian,
    Distribution,
    GaussianLikelihood,
    Likelihood,
    Sigma,
    Support,
    make_likelihood,
)
from lowerbound.errors import refuse
from lowerbound.models.base import Draw, Model
from lowerbound.models.networks import Network, make_networks
from lowerbound.models.priors import Prior, StandardNormal
from lowerbound.objectives import Bound, Noise

__all__ = ["VAE", "VAEOptions"]

MIN_LOG_SCALE, MAX_LOG_SCALE = -15.0, 10.0


@dataclass(frozen=True)
class VAEOptions:
    """Options of the variational autoencoder."""

    latent_dim: int = 40
    """Number of latent dimensions d."""
    network: Network = "auto"
    """Encoder and decoder: mlp; hybrid, where the decoder ends in a brush shared by all places;
    or conv. auto is hybrid for images of 16 to 32 pixels a side, conv for larger, else mlp."""
    width: int | None = None
    """Hidden units of an mlp (512 unless said), or channels of a conv at full size (32)."""
    depth: int = 1
    """Residual blocks, per stage of a conv; an mlp of depth 0 has one hidden layer."""
    posterior: Literal["diagonal", "isotropic"] = "diagonal"
    """One sigma of q(z|x) per latent dimension, or one per example."""
    likelihood: Literal[
        "auto",
        "bernoulli",
        "logistic",
        "logistic-mixture",
        "categorical",
        "gaussian",
        "laplace",
        "student-t",
        "continuous-bernoulli",
        "poisson",
        "negative-binomial",
        "zero-inflated-poisson",
        "zero-inflated-negative-binomial",
        "product",
    ] = "auto"
    """p(x|z); auto follows the support of the data."""
    sigma: Sigma | Literal["auto"] = "auto"
    """Scale of a gaussian, laplace or student-t likelihood: scalar, dimension, decoder, optimal
    (gaussian only), or a fixed number; auto is one per dimension of a vector, one scalar for an
    array."""
    components: int | None = None
    """Components of a logistic-mixture likelihood (5 unless said)."""
    columns: tuple[str, ...] = ()
    """Likelihood of each column of a product, by name; auto, or none at all, follows the
    support."""
    kl: Literal["analytic", "sampled"] = "analytic"
    """KL(q ‖ p) in closed form, or estimated from the same samples."""

    def __post_init__(self) -> None:
        for name in ("latent_dim", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise refuse(name, "at least 1", value)
        if self.depth < 0:
            raise refuse("depth", "0 or more", self.depth)


class VAE(Model):
    """A VAE from its parts; `VAE.build` makes the parts from `VAEOptions`.

    Args:
        encoder: network (B, *event) -> (B, 2d), or (B, d + 1) for an isotropic posterior. It
            sees x standardised by the likelihood.
        decoder: network (N, d) -> (N, likelihood.num_outputs · event), in any arrangement.
        likelihood: the head of the decoder.
        prior: p(z).
        latent_dim: d.
        posterior: ``"diagonal"`` or ``"isotropic"``.
        kl: ``"analytic"`` or ``"sampled"``.
    """

    name: ClassVar[str] = "vae"

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior,
        latent_dim: int,
        *,
        posterior: Literal["diagonal", "isotropic"] = "diagonal",
        kl: Literal["analytic", "sampled"] = "analytic",
    ) -> None:
        super().__init__(likelihood.event_shape, likelihood.support)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood, self.prior = likelihood, prior
        self.latent_dim, self.posterior, self.kl = latent_dim, posterior, kl
        self.num_scales = latent_dim if posterior == "diagonal" else 1

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: VAEOptions = VAEOptions(),
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: Prior | None = None,
    ) -> VAE:
        """The model that ``options`` describe; a part that is given takes the place of theirs."""
        likelihood = _likelihood(event_shape, support, options)
        d = options.latent_dim
        num_parameters = 2 * d if options.posterior == "diagonal" else d + 1
        if encoder is None or decoder is None:
            made = make_networks(
                event_shape,
                num_parameters,
                likelihood.num_outputs,
                d,
                network=options.network,
                width=options.width,
                depth=options.depth,
            )
            encoder, decoder = encoder or made[0], decoder or made[1]
        model = cls(
            encoder,
            decoder,
            likelihood,
            prior or StandardNormal(d),
            d,
            posterior=options.posterior,
            kl=options.kl,
        )
        model.options = options
        model.check_networks()
        return model

    def check_networks(self) -> None:
        """Refuse networks whose outputs have the wrong size, before the first step."""
        with torch.no_grad():
            x = torch.zeros(2, *self.event_shape)
            training = self.training
            self.eval()
            for part, given, required in (
                ("encoder", x, self.latent_dim + self.num_scales),
                (
                    "decoder",
                    torch.zeros(2, self.latent_dim),
                    self.likelihood.num_outputs * num_elements(self.event_shape),
                ),
            ):
                try:
                    got = getattr(self, part)(given)[0].numel()
                except RuntimeError as error:
                    raise refuse(
                        part,
                        f"a network that takes {shown_shape(given.shape)} tensors",
                        f"one that fails: {error}",
                    ) from error
                if got != required:
                    raise refuse(part, f"a network with {required} outputs per example", got)
            self.train(training)

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Standard normal ``z`` (num_samples, batch_size, d)."""
        z = torch.empty(
            num_samples,
            batch_size,
            self.latent_dim,
            device=self.calibrated.device,
            dtype=self.likelihood.shift.dtype,
        )
        return {"z": z.normal_(generator=generator)}

    def encode(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """q(z|x): a diagonal Gaussian over latents, (B, d)."""
        parameters = self.encoder(self.likelihood.standardized(x))
        if parameters.dtype != torch.float64:
            parameters = parameters.float()
        loc, log_scale = parameters.split([self.latent_dim, self.num_scales], dim=-1)
        return DiagonalGaussian(loc, F.hardtanh(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE))

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for latents (N, d): a distribution over (N, *event)."""
        p: Distribution = self.likelihood(self.decoder(z))
        return p

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """See `Model.bound`; the rate is ``"kl"``, with its parts per latent dimension."""
        noise = self._given(x, num_samples, noise, generator)
        x = self.likelihood.floating(x)
        # Inference: z = μ + σ ε.
        q = self.encode(x)
        z = q.rsample(noise["z"])
        # Rate: KL(q(z|x) ‖ p(z)).
        rates, details = self.prior.rates(q, z, context, self.kl)
        # Reconstruction: the mean over samples of log p(x|z), summed over dimensions.
        log_likelihood = self._log_likelihood(x, z)
        mean = log_likelihood.squeeze(0) if len(z) == 1 else log_likelihood.mean(0)
        return Bound(mean, rates, details)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z) of examples (B, *event) at latents (M, B, d): (M, B), nats."""
        num_samples = len(z)
        repeated = x.expand(num_samples, *x.shape).flatten(0, 1) if num_samples > 1 else x
        p = self.likelihood(self.decoder(z.flatten(0, 1)), repeated)
        log_prob: Tensor = p.log_prob(repeated)
        return log_prob.unflatten(0, (num_samples, len(x)))

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """See `Model.draw`; the latents are ``z`` (K, B, d)."""
        noise = self._given(x, num_samples, noise, None)
        x = self.likelihood.floating(x)
        q = self.encode(x)
        z = q.rsample(noise["z"])
        log_q = (q.detach() if path else q).log_prob(z)
        log_likelihood = self._log_likelihood(x, z)
        log_weight = log_likelihood + self.prior.log_prob(z, context) - log_q
        return Draw(log_weight, {"z": z}, log_likelihood)

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `Model.log_joint`; the latents are ``z`` (K, B, d)."""
        z = latents["z"]
        return self._log_likelihood(self.likelihood.floating(x), z) + self.prior.log_prob(
            z, context
        )

    @torch.no_grad()
    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """See `Model.sample`."""
        p = self.decode(self.prior.sample(num, context, generator), context)
        return p.mean if mean else p.sample(generator)

    def _calibrate(self, source: Source) -> None:
        self.likelihood.calibrate(measured(source.train))

    @torch.no_grad()
    def settle(self, source: Source) -> None:
        """Store the optimal sigma of the training set (of 10,000 seeded rows of a larger one)."""
        if (
            not isinstance(self.likelihood, GaussianLikelihood)
            or self.likelihood.sigma != "optimal"
        ):
            return
        total, count = 0.0, 0
        for rows in permutation(len(source.train), "settle")[:10_000].split(500):
            x = source.train[rows][0].to(self.calibrated.device)
            noise = self.judging_noise(rows.tolist())
            loc = self.decode(self.encode(x).rsample(noise["z"])[0]).mean
            total += float((x - loc).square().double().sum())
            count += x.numel()
        self.likelihood.store_optimal(torch.tensor(total / count))

    def notes(self) -> list[str]:
        """What the likelihood has to say."""
        return self.likelihood.notes()


def _likelihood(event_shape: Sequence[int], support: Support, options: VAEOptions) -> Likelihood:
    """The likelihood that the options name, or that the support chooses."""
    return make_likelihood(
        event_shape,
        support,
        options.likelihood,
        sigma=options.sigma,
        components=options.components,
        columns=options.columns,
    )
