"""Denoisers made of denoisers: guided ones, and ones that keep x̂ where the data are.

Both x̂ and ε̂ are mended together, so that z = α x̂ + σ ε̂ goes on holding. None of these is the
denoiser of a model's distribution any more: what is sampled with them has no bound.

References:
    Ho and Salimans, Classifier-Free Diffusion Guidance, 2022. Its w is s − 1 here.
    Saharia et al., Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding, 2022: dynamic thresholds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.noising import Denoised
from lowerbound.solvers.solve import Denoise

__all__ = ["clipped", "guided", "guided_pair", "thresholded"]


def guided(denoise_with: Denoise, denoise_without: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance: ε̂ = ε̂_without + s (ε̂_with − ε̂_without), and x̂ likewise.

    Args:
        denoise_with: sees z and the context.
        denoise_without: sees z alone.
        scale: s; 1 is no guidance and 0 no context, either in one evaluation.
    """
    _check(scale)
    if scale == 1:
        return denoise_with
    if scale == 0:
        return denoise_without
    return lambda z, gamma: _between(denoise_without(z, gamma), denoise_with(z, gamma), scale)


def guided_pair(denoise_both: Denoise, scale: float) -> Denoise:
    """`guided` in one call of twice the size.

    Args:
        denoise_both: sees (2N, *event), the first half with the context, the second without;
            both halves hold the same z.
        scale: s, as for `guided`.
    """
    _check(scale)

    def denoise(z: Tensor, gamma: Tensor) -> Denoised:
        x, eps = denoise_both(torch.cat([z, z]), gamma)
        n = len(z)
        return _between(Denoised(x[n:], eps[n:]), Denoised(x[:n], eps[:n]), scale)

    return denoise


def _check(scale: float) -> None:
    if not (math.isfinite(scale) and scale >= 0):
        raise refuse("guidance", "a number of at least 0", scale, "1 is no guidance")


def _between(without: Denoised, given: Denoised, scale: float) -> Denoised:
    return Denoised(*(torch.lerp(a, b, scale) for a, b in zip(without, given, strict=True)))


def clipped(denoise: Denoise, low: float, high: float) -> Denoise:
    """x̂ kept between the ends of the data, and ε̂ what is then left of z.

    Args:
        denoise: what sees x and ε in z.
        low: the least value of data.
        high: the largest.
    """
    if not low < high:
        raise refuse("low", f"below the other end, {high}", low)

    def inside(z: Tensor, gamma: Tensor) -> Denoised:
        found = denoise(z, gamma)
        return _moved(found, found.x.clamp(low, high), gamma)

    return inside


def thresholded(denoise: Denoise, share: float = 0.995, bound: float = 1.0) -> Denoise:
    """x̂ of each example shrunk until a share of its values lies in [−bound, bound]; then clipped.

    Strong guidance pushes x̂ out of the data's range. Clipping alone saturates it; this keeps its
    contrasts. An example that lies inside is left as it is.

    Args:
        denoise: what sees x and ε in z.
        share: of the values of an example that shall come to lie inside without clipping.
        bound: the largest absolute value of data.
    """
    if not (0 < share <= 1 and bound > 0):
        raise refuse("share", "above 0 and at most 1, beside a bound above 0", (share, bound))

    def inside(z: Tensor, gamma: Tensor) -> Denoised:
        found = denoise(z, gamma)
        size = found.x.abs().flatten(1)
        rank = max(1, math.ceil(share * size.shape[1]))
        largest = size.kthvalue(rank, dim=1).values.clamp(min=bound)
        limit = largest.reshape(-1, *[1] * (found.x.ndim - 1))
        return _moved(found, found.x.clamp(-limit, limit) / limit * bound, gamma)

    return inside


def _moved(found: Denoised, x: Tensor, gamma: Tensor) -> Denoised:
    """Another x̂ of the same z. What x̂ did not move, ε̂ does not either, to the last bit."""
    return Denoised(x, found.eps + (found.x - x) * (-gamma / 2).exp())
