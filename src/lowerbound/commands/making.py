"""The commands that make something: sample, reconstruct, interpolate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lowerbound.commands.shared import (
    OfRun,
    data_of,
    first_rows,
    model_of,
    output,
    save_arrays,
    save_png,
)
from lowerbound.errors import refuse

__all__ = [
    "InterpolateFlags",
    "ReconstructFlags",
    "SampleFlags",
    "interpolate",
    "reconstruct",
    "sample",
]


@dataclass(frozen=True)
class SampleFlags(OfRun):
    """Draw from p(x)."""

    num: int = 64
    """How many."""
    label: str | None = None
    """Class to draw, for a conditional model."""
    seed: int = 0
    """Same seed, same draws."""
    mean: bool = False
    """Means of p(x|z) in place of draws from it."""
    out: Path | None = None
    """X.png for a picture, X.npz for an array under x; RUN/samples-seed-S.png unless said."""


def sample(flags: SampleFlags) -> None:
    """``lowerbound sample``."""
    from lowerbound import plots
    from lowerbound.generation import draw

    out = output(flags.out, flags.run / f"samples-seed-{flags.seed}.png", (".png", ".npz"))
    if flags.label is not None:
        raise refuse("label", "left out for a model that is not conditional", flags.label)
    model = model_of(flags)
    x = draw(model, flags.num, seed=flags.seed, mean=flags.mean)
    if out.suffix == ".npz":
        save_arrays(out, x=x)
    elif len(model.event_shape) == 3:
        source = None if str(model.support) not in ("real", "counts") else data_of(flags, None)
        reference = x if source is None else source.train[slice(0, 1000)][0]
        pixels = plots.displayable(
            x, model.support, float(reference.min()), float(reference.max())
        )
        save_png(out, plots.image_grid(pixels, max(1, round(flags.num**0.5))))
    else:
        source = data_of(flags, None)
        train = source.train[slice(0, 5000)][0]
        figure = plots.samples_figure(
            x, None, model.support, model.event_shape, train, source.column_names
        )
        plots.save_figure(figure, out)
    print(out)


@dataclass(frozen=True)
class ReconstructFlags(OfRun):
    """Examples beside the means of p(x|z) at their latents."""

    data: str | None = None
    """Other data than the run's."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split the examples come from."""
    num: int = 20
    """How many."""
    out: Path | None = None
    """X.png, or X.npz with x and reconstructions; RUN/reconstructed.png unless said."""


def reconstruct(flags: ReconstructFlags) -> None:
    """``lowerbound reconstruct``."""
    from lowerbound import plots
    from lowerbound.generation import reconstruct as decode_encoded

    out = output(flags.out, flags.run / "reconstructed.png", (".png", ".npz"))
    model, source = model_of(flags), data_of(flags, flags.data)
    x = first_rows(source, flags.split, flags.num)
    model.check(x, source.name)
    means = decode_encoded(model, x)
    if out.suffix == ".npz":
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
    """X.png, or X.npz with x (walks, steps, …); RUN/interpolated.png unless said."""


def interpolate(flags: InterpolateFlags) -> None:
    """``lowerbound interpolate``."""
    from lowerbound import plots
    from lowerbound.generation import interpolate as walk

    out = output(flags.out, flags.run / "interpolated.png", (".png", ".npz"))
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
