"""The diagonal Gaussian, its closed-form KL divergences, and the Gaussian likelihood.

log N(x; μ, σ²) = −½ Σ (x − μ)²/σ² − Σ log σ − (D/2) log 2π, with every constant: without them
nats are not comparable.

KL(N(μ₀, σ₀²) ‖ N(μ₁, σ₁²)) = Σ ½[(μ₁ − μ₀)²/σ₁² + eᵘ − 1 − u],   u = 2 (log σ₀ − log σ₁),
where eᵘ − 1 − u is computed as expm1(u) − u, and by its series where that cancels.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014, appendix B.
    Rybkin, Daniilidis and Levine, Simple and Effective VAE Training with Calibrated
    Decoders, 2021 (optimal sigma).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lowerbound._parallel import global_mean
from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution
from lowerbound.distributions.location_scale import LocationScaleLikelihood

__all__ = ["DiagonalGaussian", "GaussianLikelihood", "kl_gaussian"]

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class DiagonalGaussian(Distribution):
    """N(mean, diag exp(2 log_scale)) over events of ``event_ndim`` axes.

    Args:
        loc: means (…, *event).
        log_scale: log standard deviations, broadcastable to ``loc``.
        event_ndim: how many trailing axes are the event.
    """

    loc: Tensor
    log_scale: Tensor
    event_ndim: int = 1

    @property
    def mean(self) -> Tensor:
        """Expectation (…, *event)."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of each entry, (…, *event)."""
        return self.log_scale.exp().expand_as(self.loc)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, (…)."""
        standardized = (x - self.loc) * torch.exp(-self.log_scale)
        return sum_event(
            -0.5 * (standardized.square() + LOG_2PI) - self.log_scale, self.event_ndim
        )

    def rsample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw z = μ + σ ε for standard normal ``noise`` (K, …, *event)."""
        return torch.addcmul(self.loc, torch.exp(self.log_scale), noise)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, *event)."""
        noise = torch.empty_like(self.loc).normal_(generator=generator)
        return self.rsample(noise).detach()

    def entropy(self) -> Tensor:
        """Differential entropy Σ log σ + (D/2) log 2πe in nats, (…)."""
        log_scale = self.log_scale.expand_as(self.loc)
        return sum_event(log_scale + 0.5 * (1 + LOG_2PI), self.event_ndim)

    def detach(self) -> DiagonalGaussian:
        """The same distribution with parameters that carry no gradient."""
        return DiagonalGaussian(self.loc.detach(), self.log_scale.detach(), self.event_ndim)


def kl_gaussian(q: DiagonalGaussian, p: DiagonalGaussian | None = None) -> Tensor:
    """KL(q ‖ p) per element of the event, (…, *event), nats; ``p`` is N(0, I) when left out.

    Non-negative to rounding, and accurate in float32 also where q is next to p.

    >>> q = DiagonalGaussian(torch.ones(1, 2), torch.zeros(1, 2))
    >>> kl_gaussian(q).sum()
    tensor(1.)
    """
    loc, log_scale = q.loc, q.log_scale
    if p is not None:  # in the units of p, p is standard normal
        loc, log_scale = (loc - p.loc) * torch.exp(-p.log_scale), log_scale - p.log_scale
    kl: Tensor = _StandardKL.apply(loc, log_scale.expand_as(loc))  # type: ignore[no-untyped-call]
    return kl


class _StandardKL(torch.autograd.Function):
    """KL(N(μ, σ²) ‖ N(0, 1)) = ½(μ² + eᵘ − 1 − u) with u = 2 log σ, and its exact gradient.

    Autograd would differentiate both branches of the scale term in some thirty small operations;
    the derivatives are μ and expm1(u).
    """

    @staticmethod
    def forward(ctx: Any, loc: Tensor, log_scale: Tensor) -> Tensor:
        """The scale term as expm1(u) − u, and as its series u²/2 · (1 + u/3 + u²/12) near 0."""
        ctx.save_for_backward(loc, log_scale)
        u = 2 * log_scale
        squared = u * u
        series = torch.add(squared, u, alpha=4).add_(12).mul_(squared).div_(24)
        scale_term = torch.where(squared < 1e-4, series, torch.expm1(u).sub_(u))
        return torch.addcmul(scale_term, loc, loc).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Made of tensors' own operations, so that it can be differentiated again."""
        loc, log_scale = ctx.saved_tensors
        return grads[0] * loc, grads[0] * torch.expm1(2 * log_scale)


class GaussianLikelihood(LocationScaleLikelihood):
    """p(x|z) = N(μ(z), σ²) on real data, in the data's own units.

    Args:
        event_shape: shape of one example.
        support: `Real`.
        sigma: as in `LocationScaleLikelihood`, or ``"optimal"``: the σ that maximises the bound in
            closed form (σ² = mean squared error: of the batch while training, of the training
            set, stored, when judging).

    Learned scales stay above `FLOOR` standard deviations of the training data (of each column, or
    root mean square over the columns that vary), so that a constant column cannot make the
    likelihood infinite.
    """

    name: ClassVar[str] = "gaussian"
    title: ClassVar[str] = "Gaussian"
    sigmas: ClassVar[tuple[str, ...]] = ("scalar", "dimension", "decoder", "optimal")

    def forward(self, raw: Tensor, x: Tensor | None = None) -> DiagonalGaussian:
        """N(x; μ, σ²) from raw outputs; see `Likelihood.forward`."""
        outputs = self.outputs(raw)
        loc = self._location(outputs)
        if self.sigma == "optimal" and self.training and x is not None:
            error = (x - loc.detach()).square().mean()
            log_scale = self.optimal_log_sigma(global_mean(error.unsqueeze(0)))
        else:
            log_scale = self._log_scale(outputs)
        return DiagonalGaussian(loc, log_scale, len(self.event_shape))

    def optimal_log_sigma(self, mean_squared_error: Tensor) -> Tensor:
        """Log of the σ that maximises the likelihood, not below the floor."""
        floor = self.FLOOR * self.unit()
        return 0.5 * torch.log(mean_squared_error.clamp_min(floor.square()))

    @torch.no_grad()
    def store_optimal(self, mean_squared_error: Tensor) -> None:
        """Keep the training set's optimal σ as the buffer that judging uses."""
        self.log_sigma.copy_(self.optimal_log_sigma(mean_squared_error) - self.unit().log())
