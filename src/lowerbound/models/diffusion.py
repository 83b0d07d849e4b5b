"""Diffusion: the deepest VAE, whose encoder adds noise and learns nothing.

    q(z_t|x) = N(α_t y, σ_t²),   γ_t = −log α_t²/σ_t² rising from t = 0 (clean) to t = 1 (noise)

    log p(x) ≥ E log p(x|z_0) − KL(q(z_1|x) ‖ N(0, I)) − diffusion

    continuous time  diffusion = ½ ∫ γ'(t) E‖ε − ε̂(z_t, γ_t)‖² dt
    T levels         diffusion = Σ_{t=2}^T E KL(q(z_{t−1}|z_t, x) ‖ p(z_{t−1}|z_t))

The clean level is z_0, which is the first of a chain's x_1 … x_T; the sum begins at t = 2, because
q(x_0|x_1, x_0) is a point, and its term is the reconstruction.

Given a context c, the denoiser sees an embedding of it, and every line is of log p(x|c). A part of
x that is given is seen without noise, and costs nothing.

y is x in the unit of the end that p(x|z_0) belongs to. The sum or the integral over t is estimated
at one random t per draw, times the number of terms: no draw knows all of the bound, the mean of
many does. The times of one call of `noise` are spread evenly, u + k/n for k < n: each is uniform,
together they hardly vary.

Whatever training weighs the noise levels by stands in `Bound.surrogate` alone. Learned end-points
follow the bound; for the interior see `lowerbound.models.variance`.

References:
    Sohl-Dickstein et al., Deep Unsupervised Learning using Nonequilibrium Thermodynamics, 2015.
    Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020.
    Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements, repeated_rows, sum_event
from lowerbound.data import Context, Mask, Source
from lowerbound.distributions import Distribution, Real, Support
from lowerbound.errors import refuse
from lowerbound.models.chain import log_ratio, step_rate
from lowerbound.models.context import make_embedding
from lowerbound.models.denoising import USUAL, DenoisingModel
from lowerbound.models.diffusion_options import (
    DiffusionOptions,
    chosen,
    clean_end,
    fourier_of,
    network_of,
    refuse_learned,
)
from lowerbound.models.ends import End, make_end, mean_square_of
from lowerbound.models.sampling import Sampling
from lowerbound.models.variance import VarianceFactor
from lowerbound.models.weightings import Weighting, weight
from lowerbound.nn import Embedding, make_denoiser
from lowerbound.noising import Prediction, alpha, sigma
from lowerbound.objectives import Bound, Noise
from lowerbound.schedules import Schedule, make_schedule

__all__ = ["Diffusion", "DiffusionOptions"]

DEFAULTS = DiffusionOptions()
NOTABLE_PRIOR, NOTABLE_BLUR = 0.01, 0.05  # bits per dimension
LEVELS_TOGETHER = 2**24  # logits at a time: 64 MB in float32


class Diffusion(DenoisingModel):
    """A diffusion model from its parts; `Diffusion.build` makes them from `DiffusionOptions`.

    Args:
        network: z (N, C, …), levels (N,) of 0 … 1000 and an embedding (N, E) or None -> (N, C, …),
            or twice as many channels where ``learn_variance``.
        schedule: γ of t.
        end: the unit of the diffusion, and p(x|z_0).
        prediction: what the network says.
        weighting: of the loss.
        timesteps: T, levels of a chain; None for continuous time.
        learn_variance: whether the network gives that of a chain's steps.
        sampling: how draws are made.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E).
    """

    name: ClassVar[str] = "diffusion"
    has_encoder: ClassVar[bool] = False
    has_weights: ClassVar[bool] = False
    stratified: ClassVar[bool] = True

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        end: End,
        *,
        prediction: Prediction = "v",
        weighting: Weighting = "bound",
        timesteps: int | None = None,
        learn_variance: bool = False,
        sampling: Sampling = USUAL,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        if weighting != "bound":
            refuse_learned(schedule.learns_interior, schedule.learns_ends)
        super().__init__(
            end.event_shape,
            end.support,
            network,
            schedule,
            prediction=prediction,
            timesteps=timesteps,
            learn_variance=learn_variance,
            sampling=sampling,
            context=context,
            embedding=embedding,
        )
        self.end, self.weighting = end, weighting

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: DiffusionOptions = DEFAULTS,
        *,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> Self:
        """The model that ``options`` describe; an embedding (B, …) -> (B, E) may be given.

        Raises:
            InputError: options that do not fit the data.
        """
        if options.learn_ends and isinstance(support, Real):
            remedy = "a density has no upper limit, and neither would the ends"
            raise refuse("learn_ends", "left out for real data", True, remedy)
        first = clean_end(options, support)
        ends: Any = {"learn_ends": options.learn_ends}
        schedule = make_schedule(options.schedule, first, options.gamma_max, **ends)
        fixed = None if options.learn_ends else float(schedule.gamma_0)
        end, fourier = make_end(event_shape, support, fixed), fourier_of(options, support)
        learned, sizes = options.variance == "learned", network_of(options)
        if embedding is not None:
            sizes["embedding"] = embedding.size
        outputs = 1 + learned
        network = make_denoiser(
            event_shape=event_shape, num_outputs=outputs, fourier=fourier, **sizes
        )
        if embedding is None:
            fitting = dataclasses.replace(options, context_dim=network.embedding)
            told = options if context is None else fitting
            embedding = make_embedding(context, event_shape, support, told)
        rest = chosen(options, "prediction", "weighting", "timesteps", "sampling")
        given: Any = {"context": context, "embedding": embedding}
        model = cls(network, schedule, end, learn_variance=learned, **rest, **given)
        model.options = options
        return model

    # --- randomness -------------------------------------------------------------------------

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """``eps`` of z_t and ``eps_0`` of z_0, (M, B, *event), and ``time`` (M, B) in [0, 1)."""
        shape, device = (num_samples, batch_size), self.calibrated.device
        eps, eps_0 = (
            torch.randn(*shape, *self.event_shape, generator=generator, device=device)
            for _ in range(2)
        )
        start = torch.rand((), generator=generator, device=device)
        count = num_samples * batch_size
        time = (start + torch.arange(count, device=device) / count).reshape(shape) % 1
        noise = {"eps": eps, "eps_0": eps_0, "time": time}
        return self._with_drop(noise, batch_size, num_samples, generator)

    # --- the bound --------------------------------------------------------------------------

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """See `Model.bound`; the rates are ``"prior"`` and ``"diffusion"``."""
        noise = self._given(x, num_samples, noise, generator)
        y, context = self.end.scaled(x), self._given_context(context, len(x))
        # Reconstruction: log p(x|z_0), where a little noise is left.
        reconstruction = self.reconstruction(x, y, noise["eps_0"], context).mean(0)
        # Prior: KL(q(z_1|x) ‖ N(0, I)), in closed form.
        prior = self.prior_rate(y, context)
        # Diffusion: all denoising steps, by one of them per draw.
        rate, weighed = self._diffusion(y, noise["eps"], noise["time"], context)
        surrogate = None
        if weighed is not None:
            surrogate = reconstruction - prior - weighed.mean(0)
        rates = {"prior": prior, "diffusion": rate.mean(0)}
        return Bound(reconstruction, rates, surrogate=surrogate)

    def reconstruction(
        self, x: Tensor, y: Tensor, eps_0: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Log p(x|z_0) of examples (B, *event) at noises (M, B, *event): (M, B), nats."""
        gamma_0 = self.schedule.gamma_0.to(y.dtype)
        u = y + torch.exp(0.5 * gamma_0) * eps_0.to(y.dtype)  # z_0/α_0
        log_prob: Tensor = self._completed(self.end(u, gamma_0), context).log_prob(x.to(y.dtype))
        return log_prob

    def prior_rate(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """KL(q(z_1|x) ‖ N(0, I)) of y (B, *event): (B,), nats."""
        gamma_1 = self.schedule.gamma_1.to(y.dtype)
        # σ² − 1 is −α², and −log σ² is softplus(−γ).
        kl = 0.5 * (torch.sigmoid(-gamma_1) * (y.square() - 1) + F.softplus(-gamma_1))
        return self._summed(kl, context)

    def _diffusion(
        self, y: Tensor, eps: Tensor, time: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The diffusion term at random times, (M, B), nats, and weighed for training, or None."""
        if self.timesteps is None:
            rate, gamma, per_time = self.rates_at(y, eps, time, context)
        else:
            rate, gamma, per_time = self._of_chain(y, eps, time, self.timesteps, context)
        if self.weighting == "bound":
            return rate, None
        width = self.schedule.gamma_1 - self.schedule.gamma_0
        return rate, weight(self.weighting, gamma, per_time, width) * rate

    def rates_at(
        self, y: Tensor, eps: Tensor, time: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """½ γ'(t)‖ε − ε̂‖² at times (M, B), with γ and γ' there."""
        s, slope = self.schedule.interior(time.to(y.dtype))
        # Nobody else measures: all processes must take part, and only those that train surely do.
        learns = self.training and self.schedule.learns_interior and s.requires_grad
        factor = VarianceFactor(s, slope) if learns else None
        gamma, gamma_rate, _ = self.schedule.at(s, slope)
        error = self._error(y, eps, gamma, context)[0]
        rate = 0.5 * gamma_rate * self._summed(error.square(), context)
        if factor is not None:
            factor.measure(rate)
        return rate, gamma, gamma_rate

    def _of_chain(
        self,
        y: Tensor,
        eps: Tensor,
        time: Tensor,
        timesteps: int,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """T − 1 times the rate of a random step t = 2 … T, (M, B), with γ_t and its slope."""
        num = timesteps - 1
        index = (time * num).long().clamp(0, num - 1)
        gammas = self.schedule.levels(timesteps).to(y.dtype)
        gamma_s, gamma_t = gammas[index], gammas[index + 1]
        rate = num * self.step_rates(y, eps, gamma_s, gamma_t, context)
        return rate, gamma_t, num * torch.expm1(gamma_t - gamma_s)

    def step_rates(
        self,
        y: Tensor,
        eps: Tensor,
        gamma_s: Tensor,
        gamma_t: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        """KL(q(z_s|z_t, x) ‖ p(z_s|z_t)) at z_t = α y + σ ε: (M, B), nats.

        Args:
            y: examples in the unit of the diffusion (B, *event).
            eps: (M, B, *event).
            gamma_s: of the cleaner level (M, B).
            gamma_t: of the noisier level (M, B).
            context: of each example (B, …), or None.
        """
        error, v = self._error(y, eps, gamma_t, context)
        s, t = (self._as_event(g.flatten()).unflatten(0, g.shape) for g in (gamma_s, gamma_t))
        u = None if v is None else log_ratio(v, s, t)
        return self._summed(step_rate(error, s, t, u), context)

    def _error(
        self, y: Tensor, eps: Tensor, gamma: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """ε − ε̂ at z = α y + σ ε, (M, B, *event), for γ (M, B); and v, or None."""
        eps = eps.to(y.dtype)
        level = self._as_event(gamma.flatten()).unflatten(0, gamma.shape)
        z = alpha(level) * y + sigma(level) * eps
        num = len(eps)
        beside = [repeated_rows(e, num) for e in self._embedded(context)]
        told = None if context is None else repeated_rows(context, num)
        said, v = self._denoise(z.flatten(0, 1), gamma.flatten(), told, *beside)
        error = eps - said.eps.unflatten(0, gamma.shape)
        return error, None if v is None else v.unflatten(0, gamma.shape)

    def _summed(self, rate: Tensor, context: Tensor | None) -> Tensor:
        """Rates (…, B, *event) summed over what is not given of x: (…, B), nats."""
        if context is not None and isinstance(self.context, Mask):
            rate = torch.where(context[:, 1] != 0, 0.0, rate)
        return sum_event(rate, len(self.event_shape))

    # --- the clean end -----------------------------------------------------------------------

    def scaled(self, x: Tensor) -> Tensor:
        """See `DenoisingModel.scaled`."""
        return self.end.scaled(x)

    def clean(self, z_0: Tensor, context: Tensor | None = None) -> Distribution:
        """See `DenoisingModel.clean`."""
        gamma_0 = self.schedule.gamma_0
        return self._completed(self.end(z_0 / alpha(gamma_0), gamma_0), context)

    # --- what is measured and said ----------------------------------------------------------

    @torch.no_grad()
    def _calibrate(self, source: Source) -> None:
        super()._calibrate(source)
        self.end.calibrate(source)
        self.mean_square.fill_(mean_square_of(self.end, source, self.calibrated.device))

    @property
    def prior_bits(self) -> float:
        """The prior term in bits per dimension, of the training set's mean square."""
        with torch.no_grad():
            kl = self.prior_rate(self.mean_square.sqrt().expand(1, *self.event_shape))
        return float(kl) / (num_elements(self.event_shape) * math.log(2))

    def rows_together(self, most: int) -> int:
        """See `Model.rows_together`; p(x|z_0) may have to look at all levels of each element."""
        rows, looked_at = super().rows_together(most), self.end.levels_looked_at
        return max(1, min(rows, LEVELS_TOGETHER // (num_elements(self.event_shape) * looked_at)))

    @torch.no_grad()
    def warnings(self) -> list[str]:
        """A noisy end that is not noise, and a clean one that is noisy."""
        said = []
        if self.prior_bits > NOTABLE_PRIOR:
            said.append(
                f"The noisy end, gamma_max = {float(self.schedule.gamma_1):g}, leaves signal: the "
                f"prior term costs {self.prior_bits:.3f} bits per dimension; raise --gamma-max."
            )
        blur = self.end.blur(self.schedule.gamma_0) / math.log(2)
        if blur > NOTABLE_BLUR:
            said.append(
                f"The clean end, gamma_min = {float(self.schedule.gamma_0):g}, blurs levels: the "
                f"reconstruction costs up to {blur:.2f} bits per dimension, which nothing that is "
                "learned can save; lower --gamma-min."
            )
        return said

    @torch.no_grad()
    def notes(self) -> list[str]:
        """What the bound is, and what its end-points cost."""
        time = "in continuous time"
        if self.timesteps is not None:
            time = f"of a chain of {self.timesteps:,} levels, {self.timesteps - 1:,} steps"
        said = [f"The bound is that {time}, estimated at random times; it has no tighter L_K."]
        return [*said, *self.end.notes(self.schedule.gamma_0), *super().notes(), *self.warnings()]
