"""Starting from something: an image made noisy in part, or one of which a part is known.

q(z_t|z_s) = N(α_{t|s} z_s, σ²_{t|s} I) makes noisier what is at some level already:
α_{t|s} = α_t/α_s, σ²_{t|s} = σ_t² (1 − exp(γ_s − γ_t)).

**Image to image.** x is taken to a level between noise and data, and solved from there: what is
finer than that level is drawn anew, what is coarser stays.

**Inpainting.** After every step the known part is replaced by its own noising to that level. The
denoiser hears of it only through z, where it is as noisy as the rest: the first, coarse decisions
are made knowing little, and are not those of the conditional distribution. Going back and forth
mends that: some steps down, the same steps up by q(z_t|z_s), and down again, several times at
each level. It is exact in the limit of many repeats and short steps only.

References:
    Meng et al., SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
    Equations, 2022.
    Lugmayr et al., RePaint: Inpainting Using Denoising Diffusion Probabilistic Models, 2022.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.noising import alpha, sigma
from lowerbound.solvers.leaps import plan
from lowerbound.solvers.solve import Denoise, Walk, falling, noise_like, wide

__all__ = ["inpaint", "noised", "part_way", "renoise"]


def noised(x: Tensor, gamma: Tensor, eps: Tensor) -> Tensor:
    """A draw α x + σ ε of q(z|x), the shape of x, at a level γ that broadcasts with it."""
    return alpha(gamma) * x + sigma(gamma) * eps


def renoise(z: Tensor, gamma_s: Tensor, gamma_t: Tensor, eps: Tensor) -> Tensor:
    """A draw of q(z_t|z_s), the shape of z: from a level to a noisier one.

    Args:
        z: z_s, (N, *event).
        gamma_s: the level of z.
        gamma_t: the level to reach, not below the other.
        eps: standard normal noise, the shape of z.
    """
    spread = sigma(gamma_t) * (-(gamma_s - gamma_t).expm1()).sqrt()
    return z * (alpha(gamma_t) / alpha(gamma_s)) + spread * eps


@torch.no_grad()
def part_way(
    x: Tensor, gammas: Tensor, strength: float, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Where to start from an image: its z, and the levels that are left.

    Args:
        x: clean examples (N, *event).
        gammas: levels as `solve` takes them, falling: (steps + 1,).
        strength: the share of the steps that will be done, rounded to whole ones: 1 starts at the
            noisiest level, 0 leaves nothing but the noise of the last level.
        generator: draws the noise; a private one of seed 0 where none is given.

    Returns:
        z (N, *event) at the first of the levels that are left, and those levels.
    """
    if not 0 <= strength <= 1:
        raise refuse("strength", "between 0 and 1", strength)
    gammas = falling(gammas)
    steps = len(gammas) - 1
    left = gammas[steps - round(strength * steps) :]
    eps = noise_like(x, generator)()
    return noised(wide(x), left[0].to(eps), eps), left


@torch.no_grad()
def inpaint(
    denoise: Denoise,
    z: Tensor,
    gammas: Tensor,
    known: Tensor,
    mask: Tensor,
    *,
    method: str = "ancestral",
    eta: float = 0.0,
    variance: float | None = None,
    asks_at_last: bool = True,
    repeats: int = 1,
    jump: int = 1,
    clean: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw what is not known of x.

    Args:
        denoise: what sees x and ε in z.
        z: noisy examples (N, *event) at ``gammas[0]``; standard normal ones to sample.
        gammas: levels as `solve` takes them, falling: (steps + 1,).
        known: x, (N, *event) or what broadcasts to it; read where the mask is true only.
        mask: True where x is known, of a shape that broadcasts with x.
        method: a name in `METHODS`; those with fresh noise mix better.
        eta: as for `solve`.
        variance: as for `solve`.
        asks_at_last: as for `solve`.
        repeats: how often each stretch is walked: 1 is replacement alone.
        jump: steps in a stretch.
        clean: makes x of z (N, *event) at the last level; x̂ where it is None.
        generator: draws all noise; a private one of seed 0 where none is given.

    Returns:
        x (N, *event): as given where known, made of the last level elsewhere.

    Raises:
        InputError: as `solve`, or fewer than one repeat or step of a stretch.
    """
    for name, value in (("repeats", repeats), ("jump", jump)):
        if value < 1:
            raise refuse(name, "at least 1", value)
    leaps = plan(falling(gammas), method, eta, variance, asks_at_last=asks_at_last)
    walk = Walk(denoise, z, gammas, leaps)
    levels, steps = gammas.double(), len(gammas) - 1
    a, s = alpha(levels).tolist(), sigma(levels).tolist()
    z, mask = wide(z), mask.to(z.device, torch.bool)
    known, draw = known.to(z), noise_like(z, generator)

    def replaced(z: Tensor, i: int) -> Tensor:
        return torch.where(mask, known * a[i] + draw() * s[i], z)

    z = replaced(z, 0)
    for first in range(0, steps, jump):
        last = min(first + jump, steps)
        for turn in range(repeats):
            for i in range(first, last):
                z = replaced(walk.step(i, z, draw), i + 1)
            if turn < repeats - 1:
                z = renoise(z, walk.levels[last], walk.levels[first], draw())
                walk.forget()
    return torch.where(mask, known, walk.seen(z, steps).x if clean is None else clean(z))
