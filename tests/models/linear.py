"""VAEs with linear networks of one's choice, in float64: what closed forms are known for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.distributions import GaussianLikelihood, Real
from lowerbound.models import VAE, StandardNormal


def linear_vae(
    v: Tensor, b: Tensor, log_t: Tensor, w: Tensor, mu: Tensor, s: float, **options
) -> VAE:
    """q = N(Vx + b, diag t²), p(x|z) = N(Wz + μ, s²I), in float64, s among the parameters."""
    size, k = w.shape
    encoder, decoder = nn.Linear(size, 2 * k), nn.Linear(k, size)
    likelihood = GaussianLikelihood((size,), Real(), "scalar")
    model = VAE(encoder, decoder, likelihood, StandardNormal(k), k, **options).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([v, torch.zeros_like(v)]))
        encoder.bias.copy_(torch.cat([b, log_t]))
        decoder.weight.copy_(w)
        decoder.bias.copy_(mu)
        scale = next(likelihood.parameters())
        scale.fill_(math.log(s))
    return model.eval()


def affine_vae(*, a: float, b: float, c: float, v: float, t: float, s: float, **options) -> VAE:
    """The same in one dimension: q = N(ax + b, t²), p(x|z) = N(cz + v, s²)."""
    values = ([[a]], [b], [math.log(t)], [[c]], [v])
    return linear_vae(
        *(torch.tensor(value, dtype=torch.float64) for value in values), s, **options
    )
