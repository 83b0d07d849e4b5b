"""The commands that make something: sample, reconstruct, interpolate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lowerbound.commands.shared import (
    OfRun,
    OnDevices,
    check_ending,
    column_names_of,
    data_of,
    engine_of,
    first_rows,
    model_of,
    named,
    output,
    save_arrays,
    save_png,
    save_table,
)
from lowerbound.errors import refuse

if TYPE_CHECKING:
    from lowerbound.models import Model

__all__ = [
    "InterpolateFlags",
    "ReconstructFlags",
    "SampleFlags",
    "interpolate",
    "reconstruct",
    "sample",
]


@dataclass(frozen=True)
class SampleFlags(OnDevices):
    """Draw from p(x)."""

    num: int | None = None
    """How many; 64 images or 2,000 rows of a table unless said."""
    label: str | None = None
    """Class to draw, for a conditional model."""
    seed: int = 0
    """Same seed, same draws."""
    mean: bool = False
    """Means of p(x|z) in place of draws from it."""
    out: Path | None = None
    """X.png for a picture, X.npz for an array under x, X.csv for rows of a table; unless said
    RUN/samples.png, or RUN/samples-seed-3.png and the like where flags ask for others."""


def sample(flags: SampleFlags) -> None:
    """``lowerbound sample``."""
    from lowerbound.generation import draw
    from lowerbound.pictures import NUM_DRAWS

    if flags.label is not None:
        raise refuse("label", "left out for a model that is not conditional", flags.label)
    engine = engine_of(flags)
    model = model_of(flags, engine)
    usual = NUM_DRAWS.of(model.event_shape)
    place = named(flags, "samples", ".png", num=usual)
    out = output(flags.out, place, (".png", ".npz", ".csv"))
    check_ending(out, model)
    num = usual if flags.num is None else flags.num
    if out.suffix == ".png":
        if flags.devices > 1:
            raise refuse("devices", "1 for a picture", flags.devices, "ask for X.npz with --out")
        _picture(flags, model, num, out)
    else:
        with engine.connected():
            x = draw(model, num, seed=flags.seed, mean=flags.mean, engine=engine)
        if not engine.is_main:
            return
        if out.suffix == ".csv":
            save_table(out, column_names_of(flags, x.shape[1]), x)
        else:
            save_arrays(out, x=x)
    print(out)


def _picture(flags: SampleFlags, model: Model, num: int, out: Path) -> None:
    """The picture of a run, or a bare grid of more images than that shows."""
    from lowerbound import plots
    from lowerbound.generation import draw
    from lowerbound.pictures import samples_picture

    is_image = len(model.event_shape) == 3
    needs_data = not is_image or str(model.support) in ("real", "counts")  # for the grey
    source = data_of(flags, None) if needs_data else None
    if not is_image or num <= plots.MAX_IMAGES:
        figure = samples_picture(model, source, num, seed=flags.seed, mean=flags.mean)
        plots.save_figure(figure, out)
        return
    x = draw(model, num, seed=flags.seed, mean=flags.mean)
    some = x if source is None else source.train[slice(0, 5000)][0]
    pixels = plots.displayable(x, model.support, float(some.min()), float(some.max()))
    save_png(out, plots.image_grid(pixels, round(num**0.5)))


@dataclass(frozen=True)
class ReconstructFlags(OfRun):
    """Examples beside the means of p(x|z) at their latents."""

    data: str | None = None
    """Other data than the run's."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split the examples come from."""
    num: int | None = None
    """How many; 20 images or 1,000 rows of a table unless said."""
    out: Path | None = None
    """X.png, X.npz with x and reconstructions, or X.csv of a table; unless said
    RUN/reconstructions.png, or RUN/reconstructions-split-train.png and the like."""


def reconstruct(flags: ReconstructFlags) -> None:
    """``lowerbound reconstruct``."""
    from lowerbound import plots
    from lowerbound.generation import reconstruct as decode_encoded
    from lowerbound.pictures import NUM_RECONSTRUCTED

    model = model_of(flags)
    usual = NUM_RECONSTRUCTED.of(model.event_shape)
    place = named(flags, "reconstructions", ".png", num=usual)
    out = output(flags.out, place, (".png", ".npz", ".csv"))
    check_ending(out, model)
    source = data_of(flags, flags.data)
    x = first_rows(source, flags.split, usual if flags.num is None else flags.num)
    model.check(x, source.name)
    means = decode_encoded(model, x)
    if out.suffix == ".csv":
        names = column_names_of(flags, x.shape[1])
        save_table(out, [*names, *(f"{name} reconstructed" for name in names)], x, means)
    elif out.suffix == ".npz":
        save_arrays(out, x=x, reconstructions=means)
    else:
        figure = plots.reconstructions_figure(x, means, model.support, source.column_names)
        plots.save_figure(figure, out)
    print(out)


@dataclass(frozen=True)
class InterpolateFlags(OfRun):
    """Walk in straight lines between the latents of test examples."""

    data: str | None = None
    """Other data than the run's."""
    num: int = 6
    """How many walks."""
    steps: int = 10
    """Points per walk, both ends included."""
    out: Path | None = None
    """X.png, or X.npz with x (walks, steps, …); unless said RUN/interpolations.png, or
    RUN/interpolations-steps-20.png and the like."""


def interpolate(flags: InterpolateFlags) -> None:
    """``lowerbound interpolate``."""
    from lowerbound import plots
    from lowerbound.generation import interpolate as walk

    out = output(flags.out, named(flags, "interpolations", ".png"), (".png", ".npz"))
    if flags.steps < 2:
        raise refuse("steps", "at least 2", flags.steps)
    model, source = model_of(flags), data_of(flags, flags.data)
    x = first_rows(source, "test", 2 * flags.num)
    model.check(x, source.name)
    half = len(x) // 2
    if not half:
        raise refuse("data", "at least two test examples", len(x), "name more with --data")
    frames = walk(model, x[:half], x[half : 2 * half], flags.steps)
    if out.suffix == ".npz":
        save_arrays(out, x=frames)
    else:
        figure = plots.interpolations_figure(frames, model.support, source.column_names)
        plots.save_figure(figure, out)
    print(out)
