"""What a denoising model makes of examples that are given: back to noise, and from noise again.

**To noise and back.** The ODE of the model leads from x to one noise and from that noise to x:
DDIM's steps, walked backwards, each undone by iteration (see `lowerbound.solvers`).

**Part of the way.** x is made as noisy as a level t and denoised from there: what is finer than
that level is drawn anew, what is coarser stays. At t = 1 next to nothing of x is left.

**In part.** Where a mask is true x stays, and the rest is drawn to fit.

References:
    Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021.
    Meng et al., SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
    Equations, 2022.
    Lugmayr et al., RePaint: Inpainting Using Denoising Diffusion Probabilistic Models, 2022.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lowerbound import solvers
from lowerbound._random import generator_for
from lowerbound.errors import refuse
from lowerbound.models import DenoisingModel
from lowerbound.noising import alpha
from lowerbound.solvers.solve import Seen

__all__ = ["denoising_path", "from_noise", "inpaint", "renoise", "to_noise"]

BATCH = 500
REFINEMENTS = 2
USUAL_LEVEL = 0.5


@torch.no_grad()
def to_noise(
    model: DenoisingModel,
    x: Tensor,
    context: Tensor | None = None,
    *,
    refinements: int = REFINEMENTS,
) -> Tensor:
    """The noise z_1 that `from_noise` makes x of: (B, *event), on the model's device.

    Args:
        model: a denoising model; as many steps are walked as it takes for a draw.
        x: examples (B, *event).
        context: of each example (B, …), or None.
        refinements: how often each step is corrected, one pass of the network each time.
    """
    model, parts = model.with_sampler("ddim", eta=0.0), [model.white(0)]
    model.check(x)
    gammas = model.levels()
    for some, given, _ in _blocks(model, x, context):
        z_0 = alpha(model.schedule.gamma_0) * model.scaled(some)
        denoise = model.denoiser(given)
        parts.append(solvers.invert(denoise, z_0, gammas, refinements=refinements))
    return torch.cat(parts)


@torch.no_grad()
def from_noise(model: DenoisingModel, z: Tensor, context: Tensor | None = None) -> Tensor:
    """Means of p(x|z_0) where DDIM's steps lead from noises z_1: (B, *event), on the CPU.

    Args:
        model: a denoising model.
        z: (B, *event), standard normal ones to sample.
        context: of each example (B, …), or None.
    """
    model, parts = model.with_sampler("ddim", eta=0.0), [torch.empty(0, *model.event_shape)]
    gammas = model.levels()
    for some, given, _ in _blocks(model, z, context):
        z_0 = solvers.solve(model.denoiser(given), some, gammas)
        parts.append(model.clean(z_0, given).mean.cpu())
    return torch.cat(parts[1:] or parts)


@torch.no_grad()
def renoise(
    model: DenoisingModel,
    x: Tensor,
    context: Tensor | None = None,
    *,
    noise_level: float = USUAL_LEVEL,
    seed: int = 0,
) -> Tensor:
    """Examples made noisy and denoised again: (B, *event), on the CPU, means of p(x|z_0).

    Args:
        model: a denoising model, by whose sampler the way back goes.
        x: examples (B, *event).
        context: of each example (B, …), or None; another class than its own gives what is drawn
            anew to that class.
        noise_level: t, above 0 and at most 1; of a chain the nearest of its levels.
        seed: of the noise.

    Raises:
        InputError: a noise level out of range, or examples that do not fit.
    """
    if not 0 < noise_level <= 1:
        raise refuse("noise_level", "above 0 and at most 1", noise_level, "0.5 is half the way")
    model.check(x)
    gammas, parts = _levels_below(model, noise_level), [torch.empty(0, *model.event_shape)]
    for some, given, first in _blocks(model, x, context):
        generator = generator_for("renoise", seed, first, device=some.device)
        y = model.scaled(some)
        eps = torch.empty_like(y).normal_(generator=generator)
        z = solvers.noised(y, gammas[0].to(y.dtype), eps)
        how = {**model.solver, "generator": generator}
        z_0 = solvers.solve(model.denoiser(given), z, gammas, **how)
        parts.append(model.clean(z_0, given).mean.cpu())
    return torch.cat(parts[1:] or parts)


@torch.no_grad()
def inpaint(
    model: DenoisingModel,
    x: Tensor,
    mask: Tensor,
    context: Tensor | None = None,
    *,
    num: int = 1,
    repeats: int = 5,
    jump: int = 1,
    seed: int = 0,
) -> Tensor:
    """Examples whose unknown part is drawn, several times each.

    Only in the limit of many repeats are these draws from p(x|known part); a model that was
    trained with ``--condition mask`` has that distribution itself.

    Args:
        model: a denoising model.
        x: examples (B, *event), read where the mask is true.
        mask: true where x is known, of a shape that broadcasts with x.
        context: of each example (B, …), or None.
        num: draws of each.
        repeats: how often each stretch of steps is walked.
        jump: steps in a stretch.
        seed: of all noise.

    Returns:
        (num, B, *event), on the CPU: x where it is known, elsewhere the mean of p(x|z_0).

    Raises:
        InputError: a number below 1, or a mask that is not of the shape of x.
    """
    if num < 1:
        raise refuse("num", "at least 1", num)
    try:
        mask = mask.to(torch.bool).expand(x.shape)
    except RuntimeError as error:
        required = f"of a shape that broadcasts with {tuple(x.shape)}"
        raise refuse("mask", required, tuple(mask.shape)) from error
    model.check(torch.where(mask, x, x.new_zeros(())))
    every, known = x.repeat(num, *(1,) * (x.ndim - 1)), mask.repeat(num, *(1,) * (x.ndim - 1))
    contexts = None if context is None else context.repeat(num, *(1,) * (context.ndim - 1))
    gammas, parts = model.levels(), [torch.empty(0, *model.event_shape)]
    walk = {**model.solver, "repeats": repeats, "jump": jump}
    shrink = alpha(model.schedule.gamma_0)
    for some, given, first in _blocks(model, every, contexts):
        rows = slice(first, first + len(some))
        generator = generator_for("inpaint", seed, first, device=some.device)
        y, kept = model.scaled(some), known[rows].to(some.device)
        z = model.white(len(some), generator)
        found = solvers.inpaint(
            model.denoiser(given),
            z,
            gammas,
            y,
            kept,
            clean=lambda z_0: z_0 / shrink.to(z_0),
            generator=generator,
            **walk,
        )
        made = _seen(model, found, given)
        parts.append(torch.where(kept, some.to(made.dtype), made).cpu())
    return torch.cat(parts[1:] or parts).unflatten(0, (num, len(x)))


@torch.no_grad()
def denoising_path(
    model: DenoisingModel,
    num: int,
    num_shown: int = 9,
    *,
    seed: int = 0,
    context: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What the denoiser takes for x along the way of a few draws.

    Args:
        model: a denoising model.
        num: draws.
        num_shown: of the steps of each, the first and the last among them.
        seed: of the draws.
        context: of each draw (num, …); without it a model of classes draws one.

    Returns:
        x̂ (num, num_shown + 1, *event), the draw itself behind them, and γ of each, falling,
        (num_shown + 1,); both on the CPU.
    """
    if context is None:
        context = model.draw_context(num, generator_for("path classes", seed))
    given = None if context is None else context.to(model.calibrated.device)
    gammas, frames = model.levels(), []
    steps = len(gammas) - 1
    shown = torch.linspace(0, steps - 1, min(num_shown, steps)).round().long().tolist()

    def keep(step: int, z: Tensor, found: Seen) -> None:
        if step in shown:
            frames.append(_seen(model, found.x, given).cpu())

    generator = generator_for("path", seed, device=model.calibrated.device)
    z = model.white(num, generator)
    method = model.solver
    z_0 = solvers.solve(model.denoiser(given), z, gammas, generator=generator, keep=keep, **method)
    frames.append(model.clean(z_0, given).mean.cpu())
    return torch.stack(frames, 1), gammas[[*shown, -1]].cpu()


def _seen(model: DenoisingModel, y: Tensor, context: Tensor | None) -> Tensor:
    """A clean y (N, *event) in the units of the data."""
    return model.clean(alpha(model.schedule.gamma_0) * y, context).mean


def _levels_below(model: DenoisingModel, noise_level: float) -> Tensor:
    """γ(t) and the levels of a draw that are cleaner, falling; of a chain all are its own."""
    if model.timesteps is not None:
        steps = model.timesteps - 1
        noise_level = max(1, round(noise_level * steps)) / steps
    levels = model.levels()
    time = torch.tensor(noise_level, dtype=levels.dtype, device=levels.device)
    first = model.schedule.gamma(time).to(levels)
    below = levels < first - 1e-6 * (levels[0] - levels[-1])
    return torch.cat([first.reshape(1), levels[below]])


def _blocks(
    model: DenoisingModel, x: Tensor, context: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None, int]]:
    """Rows of x with their contexts, on the model's device, and the number of the first row."""
    device, size = model.calibrated.device, model.rows_together(BATCH)
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        some = x[rows].to(device)
        given = None if context is None else context[rows]
        yield some, model.context_given(given, len(some)), first
