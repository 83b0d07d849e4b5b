"""The commands that make something of examples: reconstruct, interpolate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lowerbound.commands.shared import (
    OfRun,
    check_ending,
    column_names_of,
    data_of,
    first_rows,
    model_of,
    named,
    output,
    save_arrays,
    save_table,
)
from lowerbound.errors import refuse

if TYPE_CHECKING:
    from torch import Tensor

    from lowerbound.models import Model

__all__ = [
    "InterpolateFlags",
    "ReconstructFlags",
    "interpolate",
    "reconstruct",
]

ODE = "Noises on the way, each made x by solving\nan ordinary differential equation (ODE)"
"""What the frames of a diffusion's walks are."""


@dataclass(frozen=True)
class ReconstructFlags(OfRun):
    """Examples beside reconstructions or completions; of a diffusion, from a noise level."""

    data: str | None = None
    """Other data than the run's."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split the examples come from."""
    num: int | None = None
    """How many; 20 images, sequences or volumes, or 1,000 rows of a table unless said."""
    label: str | None = None
    """Class to decode them as in place of their own: the same style in another class."""
    noise_level: float | None = None
    """Of a diffusion: the t in (0, 1] that examples are noised to and denoised from; 0.5 unless
    said. What is finer than that level is drawn anew."""
    seed: int = 0
    """Of that noise."""
    out: Path | None = None
    """X.png, X.npz with x and reconstructions (or completions), or X.csv of a table; unless said
    RUN/reconstructions.png, or RUN/reconstructions-split-train.png and the like."""


def reconstruct(flags: ReconstructFlags) -> None:
    """``lowerbound reconstruct``."""
    from lowerbound import plots
    from lowerbound.generation import class_context
    from lowerbound.pictures import NUM_RECONSTRUCTED, reconstructions_picture

    model = model_of(flags)
    usual = NUM_RECONSTRUCTED.of(model.event_shape)
    place = named(flags, "reconstructions", ".png", num=usual)
    out = output(flags.out, place, (".png", ".npz", ".csv"))
    check_ending(out, model)
    class_context(model, flags.label, 1)  # refused before any work
    _check_noise(model, flags)
    source = data_of(flags, flags.data)
    num = usual if flags.num is None else flags.num
    x, context = first_rows(model, source, flags.split, num)
    if out.suffix == ".png":
        names = source.column_names
        noise: Any = {"noise_level": flags.noise_level, "seed": flags.seed}
        figure = reconstructions_picture(model, x, context, names, flags.label, **noise)
        plots.save_figure(figure, out)
    else:
        _save_reconstructions(flags, model, x, context, out)
    print(out)


def _check_noise(model: Model, flags: ReconstructFlags) -> None:
    """Refuse a noise level out of range, or of a model that has none, before any work."""
    from lowerbound.models import DenoisingModel

    level = flags.noise_level
    if level is None:
        return
    if not isinstance(model, DenoisingModel):
        remedy = "its latents are means, without noise"
        raise refuse("noise_level", f"left out for a '{model.name}'", level, remedy)
    if not 0 < level <= 1:
        raise refuse("noise_level", "above 0 and at most 1", level)


def _save_reconstructions(
    flags: ReconstructFlags, model: Model, x: Tensor, context: Tensor | None, out: Path
) -> None:
    """Examples with their reconstructions, or with completions (N, K, …) of their parts."""
    from lowerbound.data import Mask
    from lowerbound.generation import class_context, complete
    from lowerbound.generation import reconstruct as decode_encoded
    from lowerbound.pictures import NUM_COMPLETIONS

    if context is not None and isinstance(model.context, Mask) and out.suffix == ".npz":
        completions = complete(model, context, NUM_COMPLETIONS).transpose(0, 1)
        save_arrays(out, x=x, context=context, completions=completions)
        return
    noise: Any = {"noise_level": flags.noise_level, "seed": flags.seed}
    other = class_context(model, flags.label, len(x))
    means = decode_encoded(model, x, context, decoded_as=other, **noise)
    if out.suffix == ".csv":
        names = column_names_of(flags, x.shape[1])
        save_table(out, [*names, *(f"{name} reconstructed" for name in names)], x, means)
    else:
        save_arrays(out, x=x, reconstructions=means)


@dataclass(frozen=True)
class InterpolateFlags(OfRun):
    """Walk in lines between the latents of test examples; of a diffusion, between their noises."""

    data: str | None = None
    """Other data than the run's."""
    num: int = 6
    """How many walks."""
    steps: int = 10
    """Points per walk, both ends included."""
    path: Literal["auto", "line", "arc"] = "auto"
    """Straight lines, or arcs around the origin; auto is arcs between noises, lines elsewhere."""
    out: Path | None = None
    """X.png, or X.npz with x (walks, steps, …); unless said RUN/interpolations.png, or
    RUN/interpolations-steps-20.png and the like."""


def interpolate(flags: InterpolateFlags) -> None:
    """``lowerbound interpolate``."""
    from lowerbound import plots
    from lowerbound.models import DenoisingModel
    from lowerbound.pictures import paths, walk_note

    out = output(flags.out, named(flags, "interpolations", ".png"), (".png", ".npz"))
    if flags.steps < 2:
        raise refuse("steps", "at least 2", flags.steps)
    model, source = model_of(flags), data_of(flags, flags.data)
    x, _ = first_rows(model, source, "test", 2 * flags.num)
    half = len(x) // 2
    if not half:
        raise refuse("data", "at least two test examples", len(x), "name more with --data")
    spherical = None if flags.path == "auto" else flags.path == "arc"
    frames = paths(model, source, half, flags.steps, spherical=spherical)
    if out.suffix == ".npz":
        save_arrays(out, x=frames)
    else:
        said = {"space": "noise", "panel": ODE} if isinstance(model, DenoisingModel) else {}
        names = source.column_names
        figure = plots.interpolations_figure(
            frames, model.support, names, note=walk_note(model), **said
        )
        plots.save_figure(figure, out)
    print(out)
