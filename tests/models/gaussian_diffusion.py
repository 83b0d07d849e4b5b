"""Diffusion of Gaussian data, x ~ N(m, λ) in each dimension, by the optimal linear denoiser.

Everything is known in closed form (ν = e^{−γ}, v = α_1² λ + σ_1²), averaged over the data:

    reconstruction  −½ log 2πeλ/(1 + ν_0 λ)      p(x|z_0) being the exact posterior
    prior           ½ (σ_1² + α_1² (λ + m²) − 1 − log σ_1²)
    a step          ½ (ν_s − ν_t) λ/(1 + ν_t λ)
    continuous      ½ log (1 + ν_0 λ)/(1 + ν_1 λ)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.distributions import DiagonalGaussian, Real
from lowerbound.models.diffusion import Diffusion
from lowerbound.models.ends import End
from lowerbound.noising import alpha, sigma
from lowerbound.schedules import LinearSchedule, Schedule

LAMBDA = 0.3
# Three points and weights with the moments of N(0, 1) up to the fifth.
NODES = torch.tensor([-math.sqrt(3), 0.0, math.sqrt(3)], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)


class Optimal(nn.Module):
    """x̂ = m + αλ/(α²λ + σ²) (z − αm), and, where ``gap`` is given, the v of the exact P."""

    def __init__(self, low: float, high: float, mean: float = 0.0, gap: float | None = None):
        super().__init__()
        self.low, self.high, self.mean, self.gap = low, high, mean, gap

    def forward(self, z: Tensor, level: Tensor, extra: Tensor | None = None) -> Tensor:
        gamma = (self.low + level / 1000 * (self.high - self.low)).unsqueeze(-1)
        a, s = alpha(gamma), sigma(gamma)
        x = self.mean + a * LAMBDA / (a**2 * LAMBDA + s**2) * (z - a * self.mean)
        if self.gap is None:
            return x
        return torch.cat([x, torch.logit(self.share(gamma)).expand_as(x)], dim=1)

    def share(self, gamma_t: Tensor) -> Tensor:
        """v: the variance of z_s given z_t alone lies so far between Q and c σ_t², in logs."""
        gamma_s = gamma_t - self.gap
        share = -torch.expm1(gamma_s - gamma_t)
        q = share * sigma(gamma_s) ** 2
        of_x = LAMBDA / (1 + torch.exp(-gamma_t) * LAMBDA)
        p = q + (share * alpha(gamma_s)) ** 2 * of_x
        return (p / q).log() / (sigma(gamma_t) ** 2 / sigma(gamma_s) ** 2).log()


class Exact(End):
    """x as it is, and the exact p(x|z_0)."""

    def __init__(self, dims: int, mean: float = 0.0):
        super().__init__()
        self.event_shape, self.support, self.mean = (dims,), Real(), mean

    def scaled(self, x: Tensor) -> Tensor:
        return x.double()

    def flow_start(self, x: Tensor, eps: Tensor, gamma_0: Tensor) -> tuple[Tensor, Tensor]:
        return self.scaled(x), torch.zeros(())

    def forward(self, u: Tensor, gamma_0: Tensor) -> DiagonalGaussian:
        share = LAMBDA / (LAMBDA + gamma_0.exp())
        variance = share * gamma_0.exp()
        return DiagonalGaussian(self.mean + share * (u - self.mean), 0.5 * variance.log())


def optimal_model(
    schedule: Schedule | None = None,
    dims: int = 1,
    mean: float = 0.0,
    timesteps: int | None = None,
    learn_variance: bool = False,
) -> Diffusion:
    """The diffusion model that is right about these data, in float64."""
    schedule = schedule or LinearSchedule(-13.0, 5.0)
    low, high = (float(g.detach()) for g in (schedule.gamma_0, schedule.gamma_1))
    gap = (high - low) / (timesteps - 1) if learn_variance else None
    return Diffusion(
        Optimal(low, high, mean, gap),
        schedule,
        Exact(dims, mean),
        prediction="x",
        timesteps=timesteps,
        learn_variance=learn_variance,
    ).double()


def prior_term(gamma_1: float, mean: float = 0.0) -> float:
    a2, s2 = 1 / (1 + math.exp(gamma_1)), 1 / (1 + math.exp(-gamma_1))
    return 0.5 * (s2 + a2 * (LAMBDA + mean**2) - 1 - math.log(s2))


def continuous_term(gamma_0: float, gamma_1: float) -> float:
    return 0.5 * math.log((1 + math.exp(-gamma_0) * LAMBDA) / (1 + math.exp(-gamma_1) * LAMBDA))


def reconstruction_term(gamma_0: float) -> float:
    return -0.5 * math.log(2 * math.pi * math.e * LAMBDA / (1 + math.exp(-gamma_0) * LAMBDA))


def step_term(gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    nu_s, nu_t = torch.exp(-gamma_s), torch.exp(-gamma_t)
    return 0.5 * (nu_s - nu_t) * LAMBDA / (1 + nu_t * LAMBDA)


def total(gamma_0: float, gamma_1: float, mean: float = 0.0) -> float:
    """−bound per dimension in continuous time: ½ log 2πeλ + ½ (v + α_1² m² − 1 − log v)."""
    a2, s2 = 1 / (1 + math.exp(gamma_1)), 1 / (1 + math.exp(-gamma_1))
    v = a2 * LAMBDA + s2
    entropy = 0.5 * math.log(2 * math.pi * math.e * LAMBDA)
    return entropy + 0.5 * (v + a2 * mean**2 - 1 - math.log(v))


def averaged(terms: Tensor) -> Tensor:
    """The mean over x and ε of terms (3, …, 3) at `NODES` of both, exact for squares of both."""
    return torch.einsum("i,i...j,j->...", WEIGHTS, terms, WEIGHTS)


def mean_step_rates(model: Diffusion, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """E KL of steps (S,) by the model's own formulas, exactly."""
    y, eps, shape = *_grid(model, len(gamma_t)), (3, 3 * len(gamma_t))
    s, t = (g.repeat_interleave(3).expand(shape) for g in (gamma_s, gamma_t))
    return averaged(model.step_rates(y, eps, s, t).unflatten(1, (-1, 3)))


def mean_rate_at(model: Diffusion, time: Tensor) -> Tensor:
    """E ½ γ'(t)‖ε − ε̂‖² at times (S,) by the model's own formulas, exactly."""
    y, eps = _grid(model, len(time))
    times = time.repeat_interleave(3).expand(3, -1)
    rate = model.rates_at(y, eps, times)[0]
    return averaged(rate.unflatten(1, (-1, 3)))


def _grid(model: Diffusion, num: int) -> tuple[Tensor, Tensor]:
    x = model.end.mean + math.sqrt(LAMBDA) * NODES
    y = x.repeat(num).unsqueeze(-1)
    return y, NODES.reshape(3, 1, 1).expand(3, len(y), 1)


def quadrature(num: int = 400) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre times in (0, 1) and their weights."""
    import numpy as np

    t, w = np.polynomial.legendre.leggauss(num)
    return torch.from_numpy((t + 1) / 2), torch.from_numpy(w / 2)
