"""The variational autoencoder.

    z ~ p(z),  x | z ~ p(x | decoder(z)),   q(z|x) by the encoder

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)).

The prior p(z) is N(0, I) and the posterior N(μ(x), diag σ²(x)), z = μ + σ ε, unless other parts
are chosen: see `lowerbound.models.priors` and `lowerbound.models.posteriors`.

Given a context c, networks and prior see it, and every line is of log p(x|c).

The reconstruction term is summed over the dimensions of x, always: a mean over pixels would be a
beta-VAE in disguise, with beta the number of pixels.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014.
    Rezende, Mohamed and Wierstra, Stochastic Backpropagation, 2014.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements, repeated_rows
from lowerbound.data import Context, Source
from lowerbound.distributions import (
    Distribution,
    Likelihood,
    Support,
)
from lowerbound.errors import refuse
from lowerbound.models.base import Draw
from lowerbound.models.heads import make_head
from lowerbound.models.latent import LatentModel
from lowerbound.models.networks import check_network, make_networks
from lowerbound.models.options import VAEOptions, prior_of
from lowerbound.models.penalties import PENALTIES
from lowerbound.models.posteriors import Encoded, Posterior, PosteriorName, make_posterior
from lowerbound.models.priors import Prior
from lowerbound.nn import Embedding
from lowerbound.objectives import Bound, Noise

__all__ = ["VAE", "VAEOptions"]

DEFAULTS = VAEOptions()
PATH_OBJECTIVES = ("stl", "dreg")
"""Those that ask `VAE.draw` for the gradient along the path of the draws alone."""


class VAE(LatentModel):
    """A VAE from its parts; `VAE.build` makes the parts from `VAEOptions`.

    Args:
        encoder: network (B, *event) -> (B, posterior.num_parameters): 2d for a diagonal one. It
            sees x standardised by the likelihood.
        decoder: network (N, d) -> (N, likelihood.num_outputs · event), in any arrangement.
        likelihood: the head of the decoder.
        prior: p(z).
        latent_dim: d.
        posterior: what the encoder's numbers mean, a `Posterior` or the name of one.
        kl: ``"analytic"`` or ``"sampled"``.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E). Both networks see it as a second argument.
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
        posterior: Posterior | PosteriorName = "diagonal",
        kl: Literal["analytic", "sampled"] = "analytic",
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        super().__init__(likelihood.event_shape, likelihood.support, context, embedding)
        self.encoder, self.decoder = encoder, decoder
        self.likelihood, self.prior = likelihood, prior
        self.latent_dim, self.kl = latent_dim, kl
        if isinstance(posterior, str):
            posterior = make_posterior(posterior, latent_dim)
        self.posterior = posterior
        prior.attach(self)
        self.num_examples: Tensor | None = None  # of the training set; penalties ask for it

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: VAEOptions = DEFAULTS,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: Prior | None = None,
        posterior: Posterior | None = None,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> Self:
        """The model that ``options`` describe; a part that is given takes the place of theirs."""
        d = options.latent_dim
        sizes: Any = {k: getattr(options, k) for k in ("network", "width", "depth")}
        likelihood = make_head(event_shape, support, options)
        if posterior is None:
            wanted: Any = {"num_steps": options.posterior_steps, "width": options.flow_width}
            posterior = make_posterior(options.posterior, d, **wanted)
        if encoder is None or decoder is None:
            sizes["num_context"] = 0 if embedding is None else embedding.size
            numbers = posterior.num_parameters, likelihood.num_outputs
            made = make_networks(event_shape, *numbers, d, **sizes)
            encoder, decoder = encoder or made[0], decoder or made[1]
        kinds: Any = {"posterior": posterior, "kl": options.kl}
        given: Any = {"context": context, "embedding": embedding}
        prior = prior or prior_of(options, event_shape)
        model = cls(encoder, decoder, likelihood, prior, d, **kinds, **given)
        model.options = options
        if options.penalty != "none":
            del model.num_examples
            model.register_buffer("num_examples", torch.ones(()))
        model.check_networks()
        return model

    def check_networks(self) -> None:
        """Refuse networks whose outputs have the wrong size, before the first step."""
        training = self.training
        self.eval()
        beside = () if self.embedding is None else (torch.zeros(2, self.embedding.size),)
        x, z = torch.zeros(2, *self.event_shape), torch.zeros(2, self.latent_dim)
        num_outputs = self.likelihood.num_outputs * num_elements(self.event_shape)
        check_network("encoder", self.encoder, (x, *beside), self.posterior.num_parameters)
        check_network("decoder", self.decoder, (z, *beside), num_outputs)
        self.train(training)

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Standard normal ``z`` (num_samples, batch_size, d); see `ContextModel` for ``drop``."""
        z = torch.empty(
            num_samples,
            batch_size,
            self.latent_dim,
            device=self.calibrated.device,
            dtype=self.likelihood.shift.dtype,
        )
        noise = {"z": z.normal_(generator=generator)}
        return self._with_drop(noise, batch_size, num_samples, generator)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Encoded:
        """q(z|x): a distribution over latents, (B, d)."""
        self.check_shape(x)
        beside = self._embedded(self._given_context(context, len(x)))
        return self.posterior_given(self.likelihood.standardized(x), *beside)

    def posterior_given(self, standardized: Tensor, *beside: Tensor) -> Encoded:
        """As `encode`, of examples (B, *event) as the encoder sees them."""
        parameters = self.encoder(standardized, *beside)
        if parameters.dtype != torch.float64:
            parameters = parameters.float()
        q: Encoded = self.posterior(parameters)
        return q

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for latents (N, d): a distribution over (N, *event)."""
        self.check_latents(z, self.latent_dim)
        context = self._given_context(context, len(z))
        p: Distribution = self.likelihood(self.decoder(z, *self._embedded(context)))
        return self._completed(p, context)

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
        x, context = self.likelihood.floating(x), self._given_context(context, len(x))
        # Inference: z = μ + σ ε, or another draw from q.
        q = self.encode(x, context)
        z = q.rsample(noise["z"])
        # Rate: KL(q(z|x) ‖ p(z)).
        rates, details = self.prior.rates(q, z, context, self.kl)
        # Reconstruction: the mean over samples of log p(x|z), summed over dimensions.
        log_likelihood = self._log_likelihood(x, z, context)
        mean = log_likelihood.squeeze(0) if len(z) == 1 else log_likelihood.mean(0)
        return Bound(mean, rates, details, self._penalties(q, z))

    def _penalties(self, q: Any, z: Tensor) -> dict[str, Tensor]:
        """The penalty that the options name, (B,), of draws (M, B, d); none when judging."""
        name = getattr(self.options, "penalty", "none")
        if name == "none" or not self.training:
            return {}
        assert self.num_examples is not None
        penalty = torch.stack([PENALTIES[name](q, one, self.num_examples) for one in z]).mean(0)
        return {name: self.options.penalty_weight * penalty}

    def check_objective(self, name: str, reweighing: str | None = None) -> None:
        """See `Model.check_objective`; only the elbo adds penalties to its loss."""
        super().check_objective(name, reweighing)
        penalty = getattr(self.options, "penalty", "none")
        if name != "elbo" and penalty != "none":
            raise refuse("objective", f"elbo with the penalty '{penalty}'", name)

    def advice(self, objective: str) -> list[str]:
        """See `Model.advice`; refusing would take away a gradient that is right, only slow."""
        if objective not in PATH_OBJECTIVES or self.posterior.has_density:
            return []
        return [
            f"{objective} holds the parameters of q fixed in log q(z|x), which takes "
            f"{self.latent_dim} passes through the steps of an {self.posterior.name} posterior at "
            "every training step; elbo and iwae take one, and so do other posteriors"
        ]

    def _log_likelihood(self, x: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """Log p(x|z) of examples (B, *event) at latents (M, B, d): (M, B), nats."""
        num_samples = len(z)
        repeated, *beside = (repeated_rows(t, num_samples) for t in (x, *self._embedded(context)))
        p = self.likelihood(self.decoder(z.flatten(0, 1), *beside), repeated)
        given = None if context is None else repeated_rows(context, num_samples)
        log_prob: Tensor = self._completed(p, given).log_prob(repeated)
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
        x, context = self.likelihood.floating(x), self._given_context(context, len(x))
        q = self.encode(x, context)
        z = q.rsample(noise["z"])
        log_q = (q.detach() if path else q).log_prob(z)
        log_likelihood = self._log_likelihood(x, z, context)
        log_weight = log_likelihood + self.prior.log_prob(z, context) - log_q
        return Draw(log_weight, {"z": z}, log_likelihood)

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `Model.log_joint`; the latents are ``z`` (K, B, d)."""
        z, context = latents["z"], self._given_context(context, len(x))
        log_likelihood = self._log_likelihood(self.likelihood.floating(x), z, context)
        return log_likelihood + self.prior.log_prob(z, context)

    def _calibrate(self, source: Source) -> None:
        super()._calibrate(source)
        self.prior.calibrate(source)
        if self.num_examples is not None:
            self.num_examples.fill_(len(source.train))

    def decoded(self, x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        """The mean of p(x|z) at one draw of each example, (B, *event)."""
        return self.decode(self.encode(x, context).rsample(noise["z"])[0], context).mean
