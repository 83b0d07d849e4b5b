"""Images as pixels: scaled for the eye, laid out in grids, placed in figures to the pixel.

A volume is shown as an image: its middle slice across the first of its sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lowerbound._shapes import shown_shape
from lowerbound.distributions.support import Counts, Discrete, Real, Support
from lowerbound.errors import refuse
from lowerbound.plots.style import DPI, INK, dress, titled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "MAX_IMAGES",
    "displayable",
    "image_grid",
    "image_panels",
    "is_image",
    "shared_grey",
    "shown_part",
    "tag_cells",
]

Pixels = NDArray[np.uint8]

MAX_IMAGES = 100
MIN_CELL = 48  # pixels: an 8×8 digit becomes visible


def displayable(
    x: Tensor, support: Support, low: float | None = None, high: float | None = None
) -> Tensor:
    """Scale images to [0, 1] for the eye; values outside are clipped, never wrapped.

    Args:
        x: Images or means of p(x|z), (N, C, H, W), or volumes (N, C, D, H, W), in the data's own
            values.
        support: `Binary` is taken as is, `Discrete` is divided by levels − 1, `Real`
            and `Counts` are scaled.
        low: Value of a real image that becomes 0; the smallest of ``x`` unless given.
        high: Value of a real image that becomes 1; the largest of ``x`` unless given.

    Returns:
        (N, 1 or 3, H, W) float in [0, 1]: of three or four channels the first three, else the
        first; of a volume the middle slice, number D // 2.

    >>> import torch
    >>> displayable(torch.full((1, 1, 1, 1), 300, dtype=torch.int16), Discrete(256)).item()
    1.0
    """
    if not is_image(x.shape[1:]):
        raise refuse("x", "images (N, C, H, W) or volumes (N, C, D, H, W)", shown_shape(x.shape))
    x = _middle_slices(x)[:, : _num_shown(x.shape[1])].detach().float()
    if isinstance(support, Discrete):
        x = x / (support.levels - 1)
    elif isinstance(support, Real | Counts) and x.numel():
        floor = float(x.min()) if low is None else low
        ceiling = float(x.max()) if high is None else high
        x = (x - floor) / max(ceiling - floor, 1e-12)
    return x.nan_to_num(0.0).clamp(0, 1)


def image_grid(images: Tensor, columns: int, *, gap: int = 2) -> Pixels:
    """Lay images out row by row, small ones enlarged by whole pixels to at least 48 a side.

    Args:
        images: (N, C, H, W) in [0, 1], C = 1 or 3.
        columns: Images in a row, at least 1.
        gap: White pixels between neighbours; there are none around the grid.

    Returns:
        (rows·H·s + (rows − 1)·gap, columns·W·s + (columns − 1)·gap, 3) bytes, where s is the
        enlargement ceil(48 / min(H, W)); places without an image are white.

    >>> import torch
    >>> image_grid(torch.zeros(3, 1, 8, 8), columns=2).shape
    (98, 98, 3)
    """
    if columns < 1:
        raise refuse("columns", "at least 1", columns)
    num, _, height, width = images.shape
    scale = max(1, math.ceil(MIN_CELL / min(height, width)))
    cell = (height * scale + gap, width * scale + gap)
    grid = np.full((max(1, -(-num // columns)) * cell[0], columns * cell[1], 3), 255, np.uint8)
    # Round, do not truncate: level 254 of 255 must come back as 254, not as 253.
    pixels = (images * 255).round().byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(pixels.repeat(scale, axis=1).repeat(scale, axis=2)):
        top, left = i // columns * cell[0], i % columns * cell[1]
        grid[top : top + height * scale, left : left + width * scale] = image
    return grid[: grid.shape[0] - gap, : grid.shape[1] - gap]


def is_image(event_shape: Sequence[int]) -> bool:
    """Whether examples of this shape are shown as images: (C, H, W), and volumes (C, D, H, W)."""
    return len(event_shape) in (3, 4)


def shown_part(event_shape: Sequence[int]) -> str:
    """What is to be seen of an example, for the end of a title; nothing where all of it is.

    >>> shown_part((3, 8, 8)), shown_part((1, 7, 8, 8)), shown_part((5, 8, 8))
    ('', ' (middle slice, 4 of 7)', ' (channel 1 of 5)')
    """
    channels, *sides = event_shape
    parts = []
    if len(sides) == 3:
        parts.append(f"middle slice, {sides[0] // 2 + 1} of {sides[0]}")
    if channels == 2 or channels > 4:
        parts.append(f"channel 1 of {channels}")
    return f" ({', '.join(parts)})" if parts else ""


def _middle_slices(x: Tensor) -> Tensor:
    """Volumes (N, C, D, H, W) as images (N, C, H, W); images as they are."""
    return x[:, :, x.shape[2] // 2] if x.ndim == 5 else x


def _num_shown(channels: int) -> int:
    """Three channels are a colour, with or without a fourth; of others the first is a grey."""
    return 3 if channels in (3, 4) else 1


def shared_grey(x: Tensor, support: Support, reference: Tensor) -> Tensor:
    """`displayable`, with the black and white of real images taken from ``reference``."""
    return displayable(x, support, float(reference.min()), float(reference.max()))


def image_panels(
    title: str, panels: Mapping[str, Pixels], left: int = 36, bottom: int = 36
) -> tuple[Figure, list[Axes]]:
    """Panels placed to the pixel, each array pixel a whole number of figure pixels.

    Resampling by a fraction would blur some columns of a digit and not others; only grids wider
    than 1,000 pixels are shrunk. ``left`` and ``bottom`` leave room for labels, in pixels.
    """
    sizes = []
    for height, width, _ in (grid.shape for grid in panels.values()):
        enlarged = max(1, min(560 // width, 700 // height))
        scale = min(enlarged, 1000 / width, 1600 / height)
        sizes.append((round(width * scale), round(height * scale)))
    top, between = 106, 48
    total_width = max(left + sum(w + between for w, _ in sizes), 640, 36 + 15 * len(title))
    total_height = top + max(h for _, h in sizes) + bottom
    figure = titled_figure(title, total_width / DPI, total_height / DPI, top=0.15)
    for (name, grid), (width, height) in zip(panels.items(), sizes, strict=True):
        box = np.array([left, total_height - top - height, width, height])
        ax = figure.add_axes(box / [total_width, total_height, total_width, total_height])
        shrunk = width < grid.shape[1]
        ax.imshow(grid, interpolation="antialiased" if shrunk else "nearest", aspect="auto")
        dress(ax, name)
        ax.set(xticks=[], yticks=[])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        left += width + between
    return figure, figure.axes


def tag_cells(ax: Axes, labels: Sequence[str], columns: int) -> None:
    """Write each class into the top left corner of its image in a square grid."""
    cell = (ax.get_xlim()[1] + 2.5) / columns  # 2: the gap; 0.5: pixels are centred on integers
    rows = math.ceil(min(len(labels), MAX_IMAGES) / columns)
    height = (ax.get_ylim()[0] + 2.5) / rows
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    for i, label in enumerate(labels[:MAX_IMAGES]):
        place = (i % columns * cell + 2, i // columns * height + 2)
        ax.text(*place, label, fontsize=5.5, color=INK, va="top", bbox=box)
