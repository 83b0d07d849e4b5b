"""What a model makes: draws, reconstructions, paths and planes, as tensors.

Two things can be shown of p(x|z): its mean, which is blurry, and a draw from it, which is noisy.
Both are offered, and a picture says which it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.errors import refuse
from lowerbound.models import Model

__all__ = ["decode_plane", "draw", "interpolate", "reconstruct"]

BATCH = 500


def draw(model: Model, num: int, *, seed: int = 0, mean: bool = False) -> Tensor:
    """Draws from p(x), or means of p(x|z) at the same latents: (num, *event), on the CPU.

    Raises:
        InputError: ``num`` below 1.
    """
    if num < 1:
        raise refuse("num", "at least 1", num)
    device = model.calibrated.device
    parts = []
    for first in range(0, num, BATCH):
        generator = generator_for("sample", seed, first, device=device)
        size = min(BATCH, num - first)
        parts.append(model.sample(size, generator=generator, mean=mean).cpu())
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(model: Model, x: Tensor) -> Tensor:
    """Means of p(x|z) at the posterior mean of z: (B, *event), on the CPU."""
    device = model.calibrated.device
    parts = [model.decode(model.encode(b.to(device)).mean).mean.cpu() for b in x.split(BATCH)]
    return torch.cat(parts)


@torch.no_grad()
def interpolate(model: Model, start: Tensor, end: Tensor, num_steps: int = 10) -> Tensor:
    """Means of p(x|z) along straight lines between posterior means.

    Args:
        model: a model with an encoder.
        start: examples (R, *event) where the lines begin.
        end: examples (R, *event) where they end.
        num_steps: points per line, both ends included.

    Returns:
        (R, num_steps, *event), on the CPU.
    """
    device = model.calibrated.device
    a, b = model.encode(start.to(device)).mean, model.encode(end.to(device)).mean
    shares = torch.linspace(0, 1, num_steps, device=device, dtype=a.dtype).reshape(1, -1, 1)
    z = torch.lerp(a.unsqueeze(1), b.unsqueeze(1), shares)
    decoded = model.decode(z.flatten(0, 1)).mean
    return decoded.unflatten(0, (len(a), num_steps)).cpu()


@torch.no_grad()
def decode_plane(model: Model, num_steps: int = 15) -> tuple[Tensor, Tensor]:
    """Means of p(x|z) over a grid of quantiles of N(0, 1) in two latent dimensions.

    Returns:
        (num_steps, num_steps, *event), rows z₂ from high to low, columns z₁ from low to high,
        and the quantiles (num_steps,), rising; both on the CPU.
    """
    shares = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
    quantiles = torch.special.ndtri(shares).float()
    z_2, z_1 = torch.meshgrid(quantiles, quantiles, indexing="ij")
    z = torch.stack([z_1, z_2], -1).flatten(0, 1).to(model.calibrated.device)
    decoded = model.decode(z).mean.cpu()
    return decoded.unflatten(0, (num_steps, num_steps)).flip(0), quantiles
