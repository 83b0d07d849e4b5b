"""What a model makes: draws, reconstructions, paths and planes, as tensors.

Two things can be shown of p(x|z): its mean, which is blurry, and a draw from it, which is noisy.
Both are offered, and a picture says which it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound._shapes import repeated_rows
from lowerbound.data import Classes, Split
from lowerbound.engine import Engine
from lowerbound.errors import refuse
from lowerbound.models import ContextModel, DenoisingModel, Hierarchy, Model
from lowerbound.renoising import USUAL_LEVEL, from_noise, renoise, to_noise

__all__ = [
    "class_context",
    "class_labels",
    "complete",
    "contexts_for",
    "decode_plane",
    "draw",
    "interpolate",
    "mixed",
    "reconstruct",
    "redraw_levels",
]

BATCH = 500


def draw(
    model: Model,
    num: int,
    *,
    seed: int = 0,
    mean: bool = False,
    context: Tensor | None = None,
    engine: Engine | None = None,
) -> Tensor:
    """Draws from p(x), or means of p(x|z) at the same latents: (num, *event), on the CPU.

    Args:
        model: a model with a prior.
        num: how many.
        seed: of the draws.
        mean: means of p(x|z) in place of draws from it.
        context: of each draw (num, …); without it a model that has one draws that too.
        engine: the devices that share the work; this process's own without one.

    Raises:
        InputError: ``num`` below 1, or another number of contexts.
    """
    if num < 1:
        raise refuse("num", "at least 1", num)
    if context is not None and len(context) != num:
        raise refuse("context", f"one for each of the {num} draws", f"{len(context)} of them")
    if context is not None and model.context is not None:
        model.context.check(context, model.event_shape)
    device = model.calibrated.device
    engine = engine or Engine(device)
    block = model.rows_together(BATCH)
    firsts = range(0, num, block)
    parts = [torch.empty(0, *model.event_shape)]
    for first in firsts[engine.rows(len(firsts))]:
        generator = generator_for("sample", seed, first, device=device)
        size = min(block, num - first)
        given = None if context is None else context[first : first + size].to(device)
        parts.append(model.sample(size, given, generator=generator, mean=mean).cpu())
    parts = parts[1:] or parts  # a process without a block has none of the draws
    return engine.gather(torch.cat(parts))


def contexts_for(
    model: Model, num: int, *, seed: int = 0, split: Split | None = None
) -> Tensor | None:
    """What ``num`` draws are given: (num, …) on the CPU, or None for a model of p(x).

    Args:
        model: of classes, which are drawn as often as in its training set, or of other contexts.
        num: how many.
        seed: of the classes.
        split: where other contexts come from, in order, and from the start again.
    """
    if model.context is None or split is None or isinstance(model.context, Classes):
        generator = generator_for("classes", seed, device=model.calibrated.device)
        drawn = model.draw_context(num, generator)
        return None if drawn is None else drawn.cpu()
    return split[torch.arange(num) % len(split)][1]


def class_labels(model: Model, context: Tensor | None) -> list[str] | None:
    """What the classes of a context (N,) are called; None for other contexts."""
    if context is None or not isinstance(model.context, Classes):
        return None
    return [model.context.labels[i] for i in context.tolist()]


def class_context(model: Model, label: str | None, num: int) -> Tensor | None:
    """The context (num,) of a class by its name; None for no name.

    Raises:
        InputError: no such class, or a model that is not given one.
    """
    if label is None:
        return None
    if not isinstance(model.context, Classes):
        given = "is not conditional" if model.context is None else f"is given {model.context}"
        raise refuse("label", f"left out for a model that {given}", label)
    context = torch.full((num,), model.context.index(label))
    if isinstance(model, ContextModel):
        model.check_seen(context)
    return context


def complete(model: Model, context: Tensor, num: int, *, seed: int = 0) -> Tensor:
    """Means of p(x|z) given each context, each at several draws from the prior.

    Args:
        model: a model with a context and a prior.
        context: of each example (B, …): what is observed of an image, say.
        num: completions of each.
        seed: of the draws.

    Returns:
        (num, B, *event), on the CPU; one completion of every example after another.
    """
    repeated = context.repeat(num, *(1,) * (context.ndim - 1))
    means = draw(model, len(repeated), seed=seed, mean=True, context=repeated)
    return means.unflatten(0, (num, len(context)))


@torch.no_grad()
def redraw_levels(
    model: Model, num: int, *, seed: int = 0, context: Tensor | None = None
) -> Tensor:
    """One draw from the prior whose levels are drawn anew, from each level downwards.

    What an image of row l has in common with the first of that row is held by the levels above l.

    Args:
        model: a hierarchy.
        num: images per row.
        seed: of the draws.
        context: the same for all of them (1, …); without it a model of classes draws one.

    Returns:
        Means of p(x|z), (L, num, *event), on the CPU: in row l levels above l are those of the
        draw and levels l … 1 are new; the first of each row is the draw itself.

    Raises:
        InputError: a model without levels, or ``num`` below 2.
    """
    if not isinstance(model, Hierarchy):
        raise refuse("levels", "asked of a model that has them, hvae or ladder", model.name)
    if num < 2:
        raise refuse("num", "at least 2", num)
    if context is None:
        context = contexts_for(model, 1, seed=seed)
    given = None if context is None else repeated_rows(context, num)
    rows = []
    for level, span in enumerate(model.spans(), 1):
        generator = generator_for("levels", seed, device=model.calibrated.device)
        z = model.prior.sample(1, None, generator).repeat(num, 1)
        generator = generator_for("levels", seed, level, device=model.calibrated.device)
        # Level 1 comes first in the vector: what is drawn anew is its beginning.
        z[1:, : span.stop] = model.prior.sample(num - 1, None, generator)[:, : span.stop]
        rows.append(model.decode(z, given).mean.cpu())
    return torch.stack(rows)


@torch.no_grad()
def reconstruct(
    model: Model,
    x: Tensor,
    context: Tensor | None = None,
    *,
    decoded_as: Tensor | None = None,
    noise_level: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Means of p(x|z) at the posterior mean of z: (B, *event), on the CPU.

    Args:
        model: a model with an encoder; or one that denoises, see `renoise`.
        x: examples (B, *event).
        context: of each example (B, …), or None.
        decoded_as: another context of each, to decode with: the same style in another class.
        noise_level: t of the z that is denoised, half the way unless said.
        seed: of the noise.

    Raises:
        InputError: a noise level of a model that has none, or out of range.
    """
    others = context if decoded_as is None else decoded_as
    if isinstance(model, DenoisingModel):
        level = USUAL_LEVEL if noise_level is None else noise_level
        return renoise(model, x, others, noise_level=level, seed=seed)
    if noise_level is not None:
        raise refuse("noise_level", f"left out for a '{model.name}'", noise_level)
    device, parts = model.calibrated.device, []
    block = model.rows_together(BATCH)
    for first in range(0, len(x), block):
        rows = slice(first, first + block)
        given, other = (None if c is None else c[rows].to(device) for c in (context, others))
        z = model.encode(x[rows].to(device), given).mean
        parts.append(model.decode(z, other).mean.cpu())
    return torch.cat(parts)


@torch.no_grad()
def interpolate(
    model: Model,
    start: Tensor,
    end: Tensor,
    num_steps: int = 10,
    *,
    contexts: tuple[Tensor, Tensor] | None = None,
    spherical: bool | None = None,
) -> Tensor:
    """Means of p(x|z) along lines between posterior means, or between noises.

    Args:
        model: a model with an encoder; or one that denoises, whose z is the noise that its ODE
            makes of x.
        start: examples (R, *event) where the lines begin.
        end: examples (R, *event) where they end.
        num_steps: points per line, both ends included.
        contexts: of the examples at the start and at the end, each (R, …), or None. A class has
            no half: each point is decoded with that of the nearer end.
        spherical: see `mixed`; of noises unless said, whose lengths are nearly all the same.

    Returns:
        (R, num_steps, *event), on the CPU.
    """
    device, denoises = model.calibrated.device, isinstance(model, DenoisingModel)
    first, last = (None, None) if contexts is None else (c.to(device) for c in contexts)
    given = None
    if first is not None and last is not None:
        nearer = [first if 2 * k < num_steps else last for k in range(num_steps)]
        given = torch.stack(nearer, 1).flatten(0, 1)
    ends = ((start.to(device), first), (end.to(device), last))
    if isinstance(model, DenoisingModel):
        a, b = (to_noise(model, x, context) for x, context in ends)
    else:
        a, b = (model.encode(x, context).mean for x, context in ends)
    z = mixed(a, b, num_steps, denoises if spherical is None else spherical).flatten(0, 1)
    if isinstance(model, DenoisingModel):
        decoded = from_noise(model, z, given)
    else:
        decoded = model.decode(z, given).mean.cpu()
    return decoded.unflatten(0, (len(a), num_steps))


def mixed(a: Tensor, b: Tensor, num_steps: int, spherical: bool = False) -> Tensor:
    """Lines from each a to its b: (R, num_steps, *shape).

    Args:
        a: (R, *shape).
        b: (R, *shape).
        num_steps: points per line, both ends included.
        spherical: along arcs around the origin, a sin(1 − s)θ/sin θ + b sin sθ/sin θ with θ the
            angle between both: of two independent noises each point is as noisy as they are,
            where half their sum is shorter by √2.

    >>> import torch
    >>> mixed(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 3, spherical=True)[0, 1]
    tensor([0.7071, 0.7071])
    """
    shares = torch.linspace(0, 1, num_steps, device=a.device, dtype=a.dtype)
    shares = shares.reshape(1, -1, *(1,) * (a.ndim - 1))
    if not spherical:
        return torch.lerp(a.unsqueeze(1), b.unsqueeze(1), shares)
    flat = a.flatten(1), b.flatten(1)
    angle = torch.acos(torch.cosine_similarity(*flat).clamp(-1 + 1e-6, 1 - 1e-6))
    angle = angle.reshape(-1, 1, *(1,) * (a.ndim - 1))
    of_a, of_b = ((angle * s).sin() / angle.sin() for s in (1 - shares, shares))
    return of_a * a.unsqueeze(1) + of_b * b.unsqueeze(1)


@torch.no_grad()
def decode_plane(
    model: Model, num_steps: int = 15, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means of p(x|z) over a grid of quantiles of N(0, 1) in two latent dimensions.

    Args:
        model: a model with two latent dimensions.
        num_steps: points along each side.
        context: one for the whole plane (…), or None.

    Returns:
        (num_steps, num_steps, *event), rows z₂ from high to low, columns z₁ from low to high,
        and the quantiles (num_steps,), rising; both on the CPU.
    """
    shares = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
    quantiles = torch.special.ndtri(shares).float()
    z_2, z_1 = torch.meshgrid(quantiles, quantiles, indexing="ij")
    z = torch.stack([z_1, z_2], -1).flatten(0, 1).to(model.calibrated.device)
    given = None if context is None else context.to(z.device).expand(len(z), *context.shape)
    decoded = model.decode(z, given).mean.cpu()
    return decoded.unflatten(0, (num_steps, num_steps)).flip(0), quantiles
