"""The noising of diffusion, q(z|x) = N(α x, σ² I), by γ = −log SNR, and what a network predicts.

    α² = sigmoid(−γ),   σ² = sigmoid(γ),   z = α x + σ ε        (variance preserving)

A network may predict ε, x, v = α ε − σ x, the velocity ε − x of a straight path, or F, which is
of unit variance where x has standard deviation s. All are linear maps of one another at a given z:
x̂ and ε̂ are computed from each without a difference of large numbers where one can be avoided.
All sums over dimensions, and all in the precision of γ (float32 or float64).

References:
    Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021.
    Salimans and Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022: v.
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022: F.
    Lipman et al., Flow Matching for Generative Modeling, 2023: the velocity.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lowerbound.errors import refuse

__all__ = ["PREDICTIONS", "Denoised", "Prediction", "alpha", "denoised", "sigma", "target"]

Prediction = Literal["eps", "x", "v", "velocity", "f"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


class Denoised(NamedTuple):
    """What a denoiser says of z: z = α x + σ eps holds for its x and eps.

    Args:
        x: x̂, (N, *event).
        eps: ε̂, (N, *event).
    """

    x: Tensor
    eps: Tensor


def alpha(gamma: Tensor) -> Tensor:
    """α of γ, any shape."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """σ of γ, any shape."""
    return torch.sigmoid(gamma).sqrt()


def target(kind: Prediction, x: Tensor, eps: Tensor, gamma: Tensor, scale: float = 1.0) -> Tensor:
    """What a network of a kind should predict: the inverse of `denoised`.

    Args:
        kind: what is predicted.
        x: clean examples (N, *event).
        eps: their noise, the same shape.
        gamma: −log SNR, of a shape that broadcasts with x.
        scale: s, the standard deviation of x; for ``"f"`` only.
    """
    a, s = alpha(gamma), sigma(gamma)
    if kind == "eps":
        return eps
    if kind == "x":
        return x
    if kind == "v":
        return a * eps - s * x
    if kind == "velocity":
        return eps - x
    if kind == "f":
        return (s * x - a * scale**2 * eps) / (scale * (a**2 * scale**2 + s**2).sqrt())
    raise _unknown(kind)


def denoised(
    kind: Prediction, z: Tensor, output: Tensor, gamma: Tensor, scale: float = 1.0
) -> Denoised:
    """x̂ and ε̂ of what a network says of z.

    Args:
        kind: what is predicted.
        z: noisy examples (N, *event).
        output: of the network, the same shape.
        gamma: −log SNR of z, of a shape that broadcasts with it.
        scale: s, the standard deviation of x; for ``"f"`` only.
    """
    a, s = alpha(gamma), sigma(gamma)
    if kind == "eps":
        return Denoised((z - s * output) / a, output)
    if kind == "x":
        return Denoised(output, (z - a * output) / s)
    if kind == "v":
        return Denoised(a * z - s * output, s * z + a * output)
    if kind == "velocity":
        return Denoised((z - s * output) / (a + s), (z + a * output) / (a + s))
    if kind == "f":
        total = a**2 * scale**2 + s**2
        root = scale * output / total.sqrt()
        return Denoised(a * scale**2 * z / total + s * root, s * z / total - a * root)
    raise _unknown(kind)


def _unknown(kind: str) -> Exception:
    return refuse("prediction", f"one of {', '.join(PREDICTIONS)}", kind)
