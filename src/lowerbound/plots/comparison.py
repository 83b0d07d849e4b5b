"""The figure of a comparison: what several models make of the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lowerbound.distributions.support import Support
from lowerbound.errors import refuse
from lowerbound.plots.columns import as_rows
from lowerbound.plots.images import image_grid, image_panels, is_image, shared_grey, shown_part
from lowerbound.plots.sequences import is_sequence, sequence_figure
from lowerbound.plots.style import GREY, MAX_POINTS, MODEL, dress, scatter_points, titled_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["comparison_figure"]

TITLE = "The same examples, encoded and decoded"
PANEL = "What is decoded from the mean of each example's latents"
MAX_EXAMPLES = 12  # images side by side
MAX_SEQUENCES = 6
PIXELS_PER_CHARACTER = 10  # of a row's title


def comparison_figure(
    x: Tensor, reconstructions: Sequence[tuple[str, Tensor]], support: Support
) -> Figure:
    """Examples, and under them what is left of each in every model, a row per model.

    Reconstructed sequences are drawn over their examples. Vectors become a panel per model, every
    column of every example a point: the example against its reconstruction, both in standard
    deviations of the column over the examples.

    Args:
        x: Examples (N, *event); of images the first 12 are shown, of sequences the first 6.
        reconstructions: A title and the decoded means (N, *event) of each model.
        support: Of the data.

    Raises:
        InputError: No reconstructions, or not as many as examples.
    """
    if not reconstructions:
        raise refuse("reconstructions", "those of at least one model", "none")
    for title, means in reconstructions:
        if means.shape != x.shape:
            required = f"of the examples' shape {tuple(x.shape)}"
            raise refuse(title, required, tuple(means.shape))
    if is_sequence(x.shape[1:]):
        return _lines(x[:MAX_SEQUENCES], reconstructions)
    if not is_image(x.shape[1:]):
        return _points(x, reconstructions)
    rows = [("examples", x), *reconstructions]
    shown = [t[:MAX_EXAMPLES] for _, t in rows]
    columns = len(shown[0])
    grey = torch.cat([shared_grey(t, support, shown[0]) for t in shown])
    grid = image_grid(grey, columns)
    longest = max(len(line) for title, _ in rows for line in title.splitlines())
    title, left = TITLE + shown_part(x.shape[1:]), 40 + PIXELS_PER_CHARACTER * longest
    figure, (ax,) = image_panels(title, {PANEL: grid}, left=left)
    height = (len(grid) + 2) / len(rows)  # 2: the gap below a row
    ax.set_yticks(height * (np.arange(len(rows)) + 0.5) - 1.5, [title for title, _ in rows])
    return figure


def _lines(x: Tensor, reconstructions: Sequence[tuple[str, Tensor]]) -> Figure:
    """A row of sequences per model, each over its example."""
    means = torch.cat([means[: len(x)] for _, means in reconstructions])
    layers = {"example": x.repeat(len(reconstructions), 1, 1), "reconstruction": means}
    figure, ax = sequence_figure(TITLE, PANEL, layers, len(x), x)
    rows = len(reconstructions)
    ax.set_yticks(rows - np.arange(rows) - 0.5, [title for title, _ in reconstructions])
    return figure


def _points(x: Tensor, reconstructions: Sequence[tuple[str, Tensor]]) -> Figure:
    """A panel per model; perfect reconstructions lie on the diagonal."""
    examples = as_rows(x)
    center, spread = examples.mean(0), examples.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    across = min(len(reconstructions), 4)
    down = math.ceil(len(reconstructions) / across)
    figure = titled_figure(TITLE, max(3.0 * across, 5.0), 3.2 * down + 0.6)
    for i, (title, means) in enumerate(reconstructions):
        pair = [((rows - center) / spread).ravel() for rows in (examples, as_rows(means))]
        points = np.stack(pair, axis=1)[:MAX_POINTS]
        ax = figure.add_subplot(down, across, i + 1)
        ax.axline((0, 0), slope=1, color=GREY, lw=0.9, zorder=0)
        scatter_points(ax, points, [MODEL] * len(points))
        limits = points[:, 0].min() - 0.3, points[:, 0].max() + 0.3
        ax.set(xlim=limits, ylim=limits)
        ax.set_aspect("equal", adjustable="box")
        dress(
            ax, title, "example (standard deviations)", "reconstruction" if i % across == 0 else ""
        )
    return figure
