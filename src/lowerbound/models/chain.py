"""One step of the chain: q(z_s|z_t, x) for s < t, the model's p(z_s|z_t), and KL(q ‖ p).

    q(z_s|z_t, x) = N(a z_t + b x, Q),   p(z_s|z_t) = N(a z_t + b x̂, P),

    c = −expm1(γ_s − γ_t) ∈ (0, 1],   a = (1 − c) α_s/α_t,   b = c α_s,   Q = c σ_s²

    KL per element = ½ (e^u − 1 − u) + ½ e^u expm1(γ_t − γ_s) (ε − ε̂)²,   u = log Q − log P ≤ 0

P is Q (u = 0), or learned between Q and the variance c σ_t² of a step back from pure noise:
u = −v log(σ_t²/σ_s²), v in [0, 1]. The first is best for an example that is known, the second for
one of which nothing is known.

References:
    Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020.
    Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021: v.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound.noising import alpha, sigma

__all__ = ["Step", "log_ratio", "step", "step_rate"]


class Step(NamedTuple):
    """N(mean, variance) of z_s given z_t and an x, known or guessed.

    Args:
        mean: (N, *event).
        variance: broadcasts with it.
    """

    mean: Tensor
    variance: Tensor


def step(z: Tensor, x: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Step:
    """q(z_s|z_t, x); of a denoiser's x̂, p(z_s|z_t).

    Args:
        z: z_t (N, *event).
        x: (N, *event).
        gamma_s: of the cleaner level; broadcasts with z.
        gamma_t: of the noisier level.
    """
    share = -torch.expm1(gamma_s - gamma_t)
    kept = (1 - share) * alpha(gamma_s) / alpha(gamma_t)
    return Step(kept * z + share * alpha(gamma_s) * x, share * sigma(gamma_s).square())


def log_ratio(v: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """The u = log Q − log P ≤ 0 of a learned variance, v in [0, 1] (N, *event)."""
    return -v * (F.logsigmoid(gamma_t) - F.logsigmoid(gamma_s))


def step_rate(error: Tensor, gamma_s: Tensor, gamma_t: Tensor, u: Tensor | None = None) -> Tensor:
    """KL(q(z_s|z_t, x) ‖ p(z_s|z_t)) per element, nats.

    Args:
        error: ε − ε̂, (N, *event).
        gamma_s: of the cleaner level; broadcasts with the error.
        gamma_t: of the noisier level.
        u: log Q − log P; 0 unless given.
    """
    mean_part = 0.5 * torch.expm1(gamma_t - gamma_s) * error.square()
    if u is None:
        return mean_part
    return 0.5 * (torch.expm1(u) - u) + u.exp() * mean_part
