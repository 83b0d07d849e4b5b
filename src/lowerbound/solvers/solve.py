"""From noise to data, one leap after another, and back.

A denoiser is a function of z (N, *event) and of γ, a tensor without axes, that gives a `Denoised`:
any model, guided or not. It may give a third (N, *event), v in [0, 1]: the variance that it has
learned for a step of the ancestral chain (see `plan`).

Whatever precision the network computes in, z stays in float32 or float64, and the numbers of all
steps are made in float64 before the first one: levels are read once, and nothing crosses between
host and device in between.

References:
    Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021: inversion.
    Pan et al., Effective Real Image Editing with Accelerated Iterative Diffusion Inversion, 2023:
    inversion of each step by iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.errors import refuse
from lowerbound.noising import alpha, sigma
from lowerbound.solvers.leaps import Leap, method_named, plan

__all__ = ["Denoise", "Keep", "Seen", "Walk", "finish", "invert", "solve"]

Denoise = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class Seen(NamedTuple):
    """What a denoiser sees in z, in the precision of z: x̂, ε̂ and, where it is learned, v."""

    x: Tensor
    eps: Tensor
    variance: Tensor | None = None


Keep = Callable[[int, Tensor, Seen], object]
Draw = Callable[[], Tensor]


@torch.no_grad()
def solve(
    denoise: Denoise,
    z: Tensor,
    gammas: Tensor,
    *,
    method: str = "ddim",
    eta: float = 0.0,
    variance: float | None = None,
    asks_at_last: bool = True,
    generator: torch.Generator | None = None,
    keep: Keep | None = None,
) -> Tensor:
    """Take z from the first, noisiest level to the last.

    Args:
        denoise: what sees x and ε in z.
        z: noisy examples (N, *event) at ``gammas[0]``; standard normal ones to sample.
        gammas: γ = −log SNR at each level, falling: (steps + 1,).
        method: a name in `METHODS`.
        eta: share of fresh noise, 0 … 1, for ``"ddim"`` and ``"dpm++"``.
        variance: 0 … 1, for ``"ancestral"``; what the denoiser has learned, or 0, where it is
            None. See `plan`.
        asks_at_last: for ``"heun"``, see `plan`.
        generator: draws the fresh noise, (N, *event) per step, on its own device, which should be
            that of z; a private one of seed 0 where none is given.
        keep: called in each step with its number, z before it, and what the denoiser sees there.

    Returns:
        z at ``gammas[-1]``, (N, *event), in float32 or float64; `finish` makes x of it.

    Raises:
        InputError: levels that do not fall, an unknown method, or numbers out of range.
    """
    leaps = plan(falling(gammas), method, eta, variance, asks_at_last=asks_at_last)
    walk = Walk(denoise, z, gammas, leaps)
    z, draw = wide(z), noise_like(z, generator)
    for i in range(len(gammas) - 1):
        z = walk.step(i, z, draw, keep)
    return z


@torch.no_grad()
def finish(denoise: Denoise, z: Tensor, gammas: Tensor) -> Tensor:
    """x̂ of z at the last of the levels, (N, *event): the last step of all, down to no noise."""
    z = wide(z)
    return seen(denoise, z, gammas[-1].to(z)).x


@torch.no_grad()
def invert(
    denoise: Denoise, z: Tensor, gammas: Tensor, *, method: str = "ddim", refinements: int = 0
) -> Tensor:
    """Take z from the last, cleanest level back to the first: the noise that `solve` made it of.

    The ODE is solved the other way: what comes back is as exact as the method. DDIM's step from t
    to s can be inverted itself: with ``refinements`` its inverse

        z_t = (α_t/α_s) z_s + σ_t (1 − exp(−h)) ε̂(z_t)

    is iterated that many times, and `solve` with ``"ddim"`` and the same levels returns the z that
    was given, up to what the iterations leave.

    Args:
        denoise: what sees x and ε in z.
        z: examples (N, *event) at ``gammas[-1]``: α x of a clean x.
        gammas: levels as `solve` takes them, falling: (steps + 1,).
        method: one that draws nothing.
        refinements: further evaluations per step, for ``"ddim"``.

    Returns:
        z at ``gammas[0]``, (N, *event), in float32 or float64.

    Raises:
        InputError: a method that always draws, or refinements of another than DDIM.
    """
    rising = falling(gammas).flip(0)
    if method_named(method).draws == "always":
        raise refuse("method", "one that draws no noise", method, "invert with ddim")
    if refinements and method != "ddim":
        raise refuse("refinements", f"0 for the method {method}", refinements, "or choose ddim")
    walk, z = Walk(denoise, z, rising, plan(rising, method)), wide(z)
    exact = rising.double().cpu()
    shrink = (alpha(exact[1:]) / alpha(exact[:-1])).tolist()
    add = (-sigma(exact[1:]) * (-exact.diff() / 2).expm1()).tolist()
    for i in range(len(rising) - 1):
        start, z = z, walk.step(i, z)
        for _ in range(refinements):
            z = (start * shrink[i]).add_(walk.seen(z, i + 1).eps, alpha=add[i])
    return z


class Walk:
    """A denoiser on its way through levels: does one step, and remembers what it saw.

    Args:
        denoise: what sees x and ε in z.
        z: an example of what will be walked with, for its device and precision.
        gammas: (n + 1,) levels, in the order in which they are met.
        leaps: the n numbers of `plan`.
    """

    def __init__(self, denoise: Denoise, z: Tensor, gammas: Tensor, leaps: Sequence[Leap]) -> None:
        self.denoise, self.leaps = denoise, leaps
        self.levels = gammas.to(z.device, wide(z).dtype).unbind()
        self.before: Tensor | None = None  # x̂ of the step before

    def seen(self, z: Tensor, level: int) -> Seen:
        """What the denoiser sees in z at a level, in the precision of z."""
        return seen(self.denoise, z, self.levels[level])

    def step(
        self, i: int, z: Tensor, draw: Draw | None = None, keep: Keep | None = None
    ) -> Tensor:
        """From level i to level i + 1."""
        leap, found = self.leaps[i], self.seen(z, i)
        if keep is not None:
            keep(i, z, found)
        moved = (found.x * leap.x).add_(found.eps, alpha=leap.eps)
        if leap.pull and self.before is not None:
            moved.add_(found.x, alpha=leap.pull).sub_(self.before, alpha=leap.pull)
        if leap.noise:
            assert draw is not None
            fresh = draw()
            if leap.widen and found.variance is not None:
                fresh = fresh * (found.variance * leap.widen).exp()
            moved.add_(fresh, alpha=leap.noise)
        self.before = found.x
        if leap.push:
            there = self.seen(moved, i + 1).eps
            # Not in place: the denoiser may have given back what it was given.
            moved = moved + (there - found.eps) * leap.push
        return moved

    def forget(self) -> None:
        """Start anew elsewhere: what was seen before does not lead here."""
        self.before = None


def seen(denoise: Denoise, z: Tensor, gamma: Tensor) -> Seen:
    """What a denoiser sees in z, in the precision of z."""
    return Seen(*(part.to(z.dtype) for part in denoise(z, gamma)))


def wide(z: Tensor) -> Tensor:
    """Z in float32, or in float64 if it is that already."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def falling(gammas: Tensor) -> Tensor:
    """The levels, refused unless they are finite and fall."""
    if gammas.ndim != 1 or len(gammas) < 2:
        raise refuse("gammas", "at least two levels (steps + 1,)", tuple(gammas.shape))
    if not bool(gammas.isfinite().all()) or not bool((gammas.diff() < 0).all()):
        given = ", ".join(f"{value:.4g}" for value in gammas.tolist())
        raise refuse("gammas", "finite and falling, from noise to data", given)
    return gammas


def noise_like(z: Tensor, generator: torch.Generator | None) -> Draw:
    """Draws of standard normal noise of the shape of z, by a generator of the caller's or ours."""
    own = generator_for("solve", 0, device=z.device) if generator is None else generator
    device, dtype = own.device, wide(z).dtype
    return lambda: torch.randn(z.shape, generator=own, dtype=dtype, device=device).to(z.device)
