"""Figures of examples: drawn, reconstructed, on the way between two, and all over a plane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lowerbound.distributions.support import Binary, Real, Support
from lowerbound.plots.columns import (
    as_rows,
    column_reconstructions,
    histograms,
    names_of_columns,
    scatter_pair,
    shared_legend,
    small_multiples,
)
from lowerbound.plots.images import (
    MAX_IMAGES,
    displayable,
    image_grid,
    image_panels,
    is_image,
    shared_grey,
    shown_part,
    tag_cells,
)
from lowerbound.plots.sequences import is_sequence, sequence_figure
from lowerbound.plots.style import HUES, INK, MARK, dress_bar, true_minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "completions_figure",
    "interpolations_figure",
    "plane_figure",
    "reconstructions_figure",
    "samples_figure",
]

UNSEEN = 0.5  # the grey of what is not observed
MAX_COMPLETED = 12


def samples_figure(
    draws: Tensor,
    means: Tensor | None,
    support: Support,
    event_shape: Sequence[int],
    train: Tensor | None = None,
    column_names: Sequence[str] = (),
    labels: Tensor | Sequence[int | str] | None = None,
    *,
    are_means: bool = False,
    columns: int | None = None,
    given: str = "",
    how: str = "",
) -> Figure:
    """What the model draws: images in a grid, sequences as lines, vectors column by column.

    Two real columns are points, others histograms.

    Args:
        draws: Draws from p(x), (N, *event); of images and sequences the first 100 are shown.
        means: Means of p(x|z) for z from the prior, (N, *event), shown for those only.
        support: Of the data.
        event_shape: Shape of one example: two axes are a sequence, three an image, four a volume.
        train: Training data (M, *event) to compare with; it also fixes the grey of real images
            and the scale of sequences.
        column_names: One name per column of a table; x₁, x₂, … unless given.
        labels: Class of each draw (N,), or its name, written into the corner of its image.
        are_means: ``draws`` are means of p(x|z) themselves, and are called so.
        columns: Images to a row; a square grid unless said.
        given: What each draw was given, ``"class"`` or the like.
        how: By which sampler, in how many steps and the like.
    """
    title = "What the model draws" + (f": {how}" if how else "")
    of_draws, of_means = _names_of(given)
    drawn = of_means if are_means else of_draws
    reference = draws if train is None else train
    panels = {drawn: draws} if are_means else {drawn: draws, of_means: means}
    shown = {name: x[:MAX_IMAGES] for name, x in panels.items() if x is not None}
    columns = columns or math.ceil(math.sqrt(len(draws[:MAX_IMAGES])))
    tags = [str(tag) for tag in (labels.tolist() if isinstance(labels, Tensor) else labels or ())]
    if is_sequence(event_shape):
        panel = drawn if len(shown) == 1 else "Draws, and over them the means at the same latents"
        title += f" (the first {MAX_IMAGES} of {len(draws)})" if len(draws) > MAX_IMAGES else ""
        return sequence_figure(title, panel, shown, columns, reference, tags=tags)[0]
    if not is_image(event_shape):
        data = None if train is None else as_rows(train)
        draw = scatter_pair if isinstance(support, Real) and draws[0].numel() == 2 else histograms
        return draw(title, data, {drawn: as_rows(draws)}, support, column_names)
    grids = {
        name: image_grid(shared_grey(x, support, reference), columns) for name, x in shown.items()
    }
    figure, axes = image_panels(title + shown_part(event_shape), grids)
    for ax in axes if tags else []:
        tag_cells(ax, tags, columns)
    return figure


def _names_of(given: str) -> tuple[str, str]:
    """What draws, and means beside them, are called."""
    if given:
        return f"Draws from p(x|{given})", f"Means of p(x|z, {given}), z from the prior"
    return "Draws from p(x)", "Means of p(x|z), z from the prior"


def reconstructions_figure(
    x: Tensor,
    means: Tensor,
    support: Support,
    column_names: Sequence[str] = (),
    label: str | None = None,
    *,
    panel: str = "Means of p(x|z), z the mean of q(z|x)",
) -> Figure:
    """Examples beside what is left of them after encoding and decoding.

    Args:
        x: Examples (N, *event); of images the first 40 are shown, ten to a row, and of sequences
            five to a row.
        means: Means of p(x|z) at the means of q(z|x), (N, *event).
        support: Of the data.
        column_names: One name per column of a table; x₁, x₂, … unless given.
        label: The class that all were decoded as, in place of their own.
        panel: What the reconstructions are.
    """
    title = "Examples and their reconstructions" + (f" as class {label}" if label else "")
    if is_sequence(x.shape[1:]):
        layers = {"example": x[:40], f"as {label}" if label else "reconstruction": means[:40]}
        return sequence_figure(title, panel, layers, min(len(x), 5), x)[0]
    if not is_image(x.shape[1:]):
        return column_reconstructions(title, as_rows(x), as_rows(means), column_names)
    columns = min(len(x), 10)
    halves = [torch.split(shared_grey(t[:40], support, x), columns) for t in (x, means)]
    rows = [image_grid(part, columns) for pair in zip(*halves, strict=True) for part in pair]
    height = rows[0].shape[0]
    below = [2, height // 4] * (len(rows) // 2)  # a pair stands together, apart from the next
    below[-1] = 0
    white = [((0, pad), (0, 0), (0, 0)) for pad in below]
    stack = [np.pad(row, pad, constant_values=255) for row, pad in zip(rows, white, strict=True)]
    title += shown_part(x.shape[1:])
    figure, (ax,) = image_panels(title, {panel: np.concatenate(stack)}, left=150)
    tops = np.cumsum([0, *(len(row) for row in stack)])[:-1]
    ax.set_yticks(
        tops + height / 2,
        ["example", f"as {label}" if label else "reconstruction"] * (len(rows) // 2),
    )
    return figure


def completions_figure(
    x: Tensor, context: Tensor, completions: Tensor, support: Support
) -> Figure:
    """Examples, what is observed of them, and several ways to complete each.

    What is not observed of an image is grey, and in every completion a line runs along what is;
    what is observed of a sequence is shaded.

    Args:
        x: Images, volumes or sequences (N, *event), of which the first 12 are shown; images and
            volumes have a column each.
        context: What is observed of each, and its mask, (N, 2, *event); where channels differ,
            the first one's mask is shown.
        completions: Means of p(x|z) given that, z from the prior, (K, N, *event).
        support: Of the data.
    """
    title = "What is observed, and its completions"
    panel = "Means of p(x|z) given what is observed, z from the prior"
    shown = slice(0, MAX_COMPLETED)
    x, mask = x[shown], context[shown, 1, :1].float()
    if is_sequence(x.shape[1:]):
        layers = {"example": x, "completions": completions[:, shown]}
        return sequence_figure(title, panel, layers, min(len(x), 5), x, shaded=mask[:, 0])[0]
    images = [shared_grey(part[shown], support, x) for part in (x, x, *completions)]
    seen = displayable(mask, Binary())
    images[1] = images[1] * seen + UNSEEN * (1 - seen)
    grid = image_grid(torch.cat(images), len(x))
    title += shown_part(x.shape[1:])
    figure, (ax,) = image_panels(title, {panel: grid}, left=150)
    height = (len(grid) + 2) / len(images)  # 2: the gap below a row
    _outline(ax, seen[:, 0] > 0.5, range(2, len(images)), height)
    names = ["example", "observed", *(f"completion {k + 1}" for k in range(len(completions)))]
    ax.set_yticks(height * (np.arange(len(images)) + 0.5) - 1.5, names)
    return figure


def _outline(ax: Axes, mask: Tensor, rows: Iterable[int], height: float) -> None:
    """A line along what is observed (N, H, W) of the images of some rows of a grid."""
    from matplotlib.collections import LineCollection

    size = (height - 2) / mask.shape[1]  # of a pixel, enlarged; 2: the gap between images
    width = mask.shape[2] * size + 2
    down = (mask[:, :, 1:] != mask[:, :, :-1]).nonzero().double().numpy()
    across = (mask[:, 1:] != mask[:, :-1]).nonzero().double().numpy()
    lines = []
    for n, i, j in down:  # between pixels j and j + 1 of line i
        left, top = n * width + (j + 1) * size - 0.5, i * size - 0.5
        lines.append([[left, top], [left, top + size]])
    for n, i, j in across:
        left, top = n * width + j * size - 0.5, (i + 1) * size - 0.5
        lines.append([[left, top], [left + size, top]])
    segments = np.array(lines).reshape(-1, 2, 2)
    placed = [segments + np.array([0, row * height]) for row in rows]
    ax.add_collection(LineCollection(list(np.concatenate(placed)), colors=MARK, linewidths=0.9))


def interpolations_figure(
    frames: Tensor,
    support: Support,
    column_names: Sequence[str] = (),
    *,
    space: str = "latent space",
    panel: str = "Means of p(x|z) on the way",
    note: str = "",
) -> Figure:
    """Walks through the latent space from one example to another.

    Args:
        frames: Decoded means (R, S, *event): R walks of S steps, ends included.
        support: Of the data.
        column_names: One name per column of a table; x₁, x₂, … unless given.
        space: Where the walks go.
        panel: What the frames are.
        note: Said in the title too.
    """
    (walks, steps), event_shape = frames.shape[:2], frames.shape[2:]
    title, position = f"From one example to another{note}", f"fraction of the way in {space}"
    if is_sequence(event_shape):
        figure, ax = sequence_figure(title, panel, {panel: frames.flatten(0, 1)}, steps, frames)
        ax.set_xticks([0.5, steps - 0.5], ["0", "1"])
        ax.set_xlabel(position, fontsize=9, color=INK)
        return figure
    if is_image(event_shape):
        grid = image_grid(shared_grey(frames.flatten(0, 1), support, frames), steps)
        title += shown_part(event_shape)
        figure, (ax,) = image_panels(title, {panel: grid}, bottom=76)
        cell = grid.shape[1] / steps
        ax.set_xticks([cell / 2, grid.shape[1] - cell / 2], ["0", "1"])
        ax.set_xlabel(position, fontsize=9, color=INK)
        return figure
    table = frames.flatten(2).detach().double().numpy()
    names = names_of_columns(column_names, table.shape[2])
    figure, axes = small_multiples(title, names, "fraction of the way", "mean of p(x|z)")
    for i, ax in enumerate(axes):
        for walk, hue in zip(range(walks), HUES, strict=False):
            path = table[walk, :, i]
            ax.plot(np.linspace(0, 1, steps), path, color=hue, lw=1.4, label=f"walk {walk + 1}")
    shared_legend(figure, axes)
    return figure


def plane_figure(
    decoded: Tensor, support: Support, quantiles: Tensor, label: str | None = None
) -> Figure:
    """The data that each point of a two-dimensional latent plane stands for.

    Args:
        decoded: Means of p(x|z) (G, G, *event), rows z₂ from high to low, so that it grows
            upwards in the figure, and columns z₁ from low to high.
        support: Of the data.
        quantiles: Quantiles of the prior along each axis (G,), rising.
        label: The class that all of it was decoded as, of a model that is given one.
    """
    size = len(quantiles)
    title = "The latent plane, decoded" + (f" as class {label}" if label else "")
    panel = "Means of p(x|z) at even quantiles of the prior"
    event_shape, cells = decoded.shape[2:], decoded.flatten(0, 1)
    if is_sequence(event_shape):
        figure, ax = sequence_figure(title, panel, {panel: cells}, size, decoded)
        axes = [ax]
    elif is_image(event_shape):
        grid = image_grid(shared_grey(cells, support, decoded), size, gap=1)
        title += shown_part(event_shape)
        figure, axes = image_panels(title, {panel: grid}, left=100, bottom=76)
    else:
        table = decoded.flatten(2).detach().double().numpy()
        names = [f"Mean of {name}" for name in names_of_columns((), table.shape[2])]
        figure, axes = small_multiples(title, names, side=2.6)
        for i, ax in enumerate(axes):
            image = ax.imshow(table[:, :, i], cmap="viridis", aspect="auto")
            dress_bar(figure.colorbar(image, ax=ax))
    shown = sorted({0, size // 4, size // 2, size - 1 - size // 4, size - 1})
    values = [true_minus(f"{float(quantiles[i]):.2g}") for i in shown]
    for ax in axes:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        ax.set_xticks([left + (right - left) * (i + 0.5) / size for i in shown], values)
        ax.set_yticks([bottom + (top - bottom) * (i + 0.5) / size for i in shown], values)
        ax.set_xlabel("z₁", fontsize=9.5, color=INK)
        ax.set_ylabel("z₂", fontsize=9.5, color=INK)
    return figure
