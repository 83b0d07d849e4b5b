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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lowerbound._shapes import sum_event
from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.support import Real, Support
from lowerbound.errors import refuse

__all__ = ["DiagonalGaussian", "GaussianLikelihood", "Sigma", "kl_gaussian"]

LOG_2PI = math.log(2 * math.pi)
Sigma = Literal["scalar", "dimension", "decoder", "optimal"] | float


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


class GaussianLikelihood(Likelihood):
    """p(x|z) = N(μ(z), σ²) on real data, in the data's own units.

    Args:
        event_shape: shape of one example.
        support: `Real`.
        sigma: ``"scalar"`` one learned σ for all dimensions; ``"dimension"`` one per dimension;
            ``"decoder"`` one per dimension and example, from the decoder; ``"optimal"`` the σ that
            maximises the bound in closed form (σ² = mean squared error: of the batch while
            training, of the training set, stored, when judging); or a number, fixed.

    Learned scales stay above `FLOOR` standard deviations of the training data (of each column, or
    root mean square over the columns that vary), so that a constant column cannot make the
    likelihood infinite.
    """

    name: ClassVar[str] = "gaussian"
    supports: ClassVar[tuple[type[Support], ...]] = (Real,)
    num_outputs: ClassVar[int] = 1
    FLOOR: ClassVar[float] = 1e-3
    CEILING: ClassVar[float] = 1e3

    log_sigma: Tensor

    def __init__(
        self, event_shape: Sequence[int], support: Support, sigma: Sigma = "scalar"
    ) -> None:
        super().__init__(event_shape, support)
        if not isinstance(sigma, str) and not (math.isfinite(sigma) and sigma > 0):
            raise refuse("sigma", "a positive number", sigma)
        if isinstance(sigma, str) and sigma not in ("scalar", "dimension", "decoder", "optimal"):
            raise refuse("sigma", "scalar, dimension, decoder, optimal or a number", sigma)
        self.sigma = sigma
        if sigma == "decoder":
            self.num_outputs = 2  # type: ignore[misc]
        shape = self.event_shape if sigma == "dimension" else ()
        if sigma in ("scalar", "dimension"):
            self.log_sigma = nn.Parameter(torch.zeros(shape))
        else:
            fixed = 0.0 if isinstance(sigma, str) else math.log(sigma)
            self.register_buffer("log_sigma", torch.tensor(fixed))

    def unit(self) -> Tensor:
        """The unit in which learned scales are measured: of each dimension, or of all."""
        return self.typical if self.sigma in ("scalar", "optimal") else self.scale

    def forward(self, raw: Tensor, x: Tensor | None = None) -> DiagonalGaussian:
        """N(x; μ, σ²) from raw outputs; see `Likelihood.forward`."""
        outputs = self.outputs(raw)
        loc = self.shift + self.scale * outputs[0]
        if isinstance(self.sigma, float | int):
            log_scale = self.log_sigma
        elif self.sigma == "optimal" and self.training and x is not None:
            log_scale = self.optimal_log_sigma((x - loc.detach()).square().mean())
        else:
            raw_log = outputs[1] if self.sigma == "decoder" else self.log_sigma
            low, high = math.log(self.FLOOR), math.log(self.CEILING)
            log_scale = raw_log.clamp(low, high) + self.unit().log()
        return DiagonalGaussian(loc, log_scale, len(self.event_shape))

    def optimal_log_sigma(self, mean_squared_error: Tensor) -> Tensor:
        """Log of the σ that maximises the likelihood, not below the floor."""
        floor = self.FLOOR * self.unit()
        return 0.5 * torch.log(mean_squared_error.clamp_min(floor.square()))

    @torch.no_grad()
    def store_optimal(self, mean_squared_error: Tensor) -> None:
        """Keep the training set's optimal σ as the buffer that judging uses."""
        self.log_sigma.copy_(self.optimal_log_sigma(mean_squared_error) - self.unit().log())

    def notes(self) -> list[str]:
        """The floor of learned scales."""
        if isinstance(self.sigma, float | int):
            sigma = f"The Gaussian likelihood has a fixed sigma of {self.sigma:g}."
        else:
            of = "each column (of 1 where it is constant)"
            if self.sigma in ("scalar", "optimal"):
                of = "the training data (root mean square over what varies)"
            sigma = (
                f"The learned sigma ({self.sigma}) of the Gaussian likelihood has a floor of "
                f"{self.FLOOR:g} standard deviations of {of}."
            )
        return [f"{sigma} Nats are nats of a density in the data's own units."]
