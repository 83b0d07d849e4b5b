"""Sequences as lines: each example in a small frame of its own, all frames on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lowerbound.plots.style import (
    DATA,
    FAINT,
    GREY,
    HUES,
    INK,
    MODEL,
    Floats,
    dress,
    titled_figure,
    true_minus,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["is_sequence", "sequence_figure"]

MAX_CHANNELS = 5  # lines of different hue in one frame
MARGIN = 0.05  # of a frame, on each side of its lines
WIDTHS = {"behind": 2.4, "front": 1.0}


def is_sequence(event_shape: Sequence[int]) -> bool:
    """Whether examples of this shape are shown as lines: (C, L)."""
    return len(event_shape) == 2


def sequence_figure(
    title: str,
    panel: str,
    layers: Mapping[str, Tensor],
    columns: int,
    reference: Tensor,
    *,
    tags: Sequence[str] = (),
    shaded: Tensor | None = None,
) -> tuple[Figure, Axes]:
    """Frames row by row; in each the lines of one example, of every layer, a hue per channel.

    Frame (r, c) of R rows is the unit square from (c, R − 1 − r) of the axes.

    Args:
        title: Of the figure.
        panel: What is shown, above the frames.
        layers: By name (N, C, L), or (K, N, C, L) for K lines in each frame. Of several the
            first is drawn pale and broad behind the others. The first five channels are shown.
        columns: Frames in a row.
        reference: Values (…) whose range, but for stray ones, is the height of a frame; lines are
            cut off there.
        tags: Of the first frames, written into their corners.
        shaded: 1 where a frame is shaded, (N, L).
    """
    shapes = [x.shape for x in layers.values()]
    (num, channels, length), rows = shapes[0][-3:], -(-shapes[0][-3] // columns)
    low, high = _range([reference, *layers.values()])
    shown = min(channels, MAX_CHANNELS)
    if shown < channels:
        title = f"{title} (the first {shown} of {channels} channels)"
    wide = float(np.clip(10 / columns, 0.3, 2.0))
    size = max(wide * columns + 0.6, 6.4), max(0.62 * wide * rows + 1.5, 2.6)
    figure = titled_figure(title, *size)
    ax = figure.add_subplot()
    _frames(ax, num, columns, rows, None if shaded is None else shaded.numpy())
    for i, x in enumerate(layers.values()):
        is_behind = i == 0 and len(layers) > 1
        values = (x.detach().double().numpy()[..., :shown, :] - low) / (high - low)
        _lines(ax, values.reshape(-1, num, shown, length), columns, rows, is_behind)
    for i, tag in enumerate(tags[:num]):
        place = (i % columns + MARGIN, rows - i // columns - MARGIN)
        ax.text(*place, tag, fontsize=6, color=INK, va="top")
    scale = true_minus(f"values from {low:.3g} to {high:.3g} upwards")
    dress(ax, f"{panel}\nin each frame: {length} steps to the right, {scale}")
    ax.set(xlim=(0, columns), ylim=(0, rows), xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _legend(figure, list(layers), shown)
    return figure, ax


def _range(layers: Sequence[Tensor]) -> tuple[float, float]:
    """What holds all but one in a thousand values of each layer on each side; never empty."""
    every = [x.detach().double().numpy().ravel() for x in layers]
    ends = [np.quantile(v, [0.001, 0.999]) for v in (v[np.isfinite(v)] for v in every) if len(v)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _frames(
    ax: Axes, num: int, columns: int, rows: int, shaded: Floats | None, inset: float = MARGIN / 2
) -> None:
    """A thin grey square around each example, shaded where that is asked."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    side = 1 - 2 * inset
    corners = [(i % columns + inset, rows - 1 - i // columns + inset) for i in range(num)]
    frames = [Rectangle(corner, side, side) for corner in corners]
    ax.add_collection(PatchCollection(frames, facecolor="none", edgecolor=FAINT, linewidth=0.6))
    if shaded is None:
        return
    step = side / shaded.shape[1]
    spans = [
        Rectangle((corner[0] + step * t, corner[1]), step, side)
        for corner, row in zip(corners, shaded, strict=True)
        for t in np.flatnonzero(row)
    ]
    ax.add_collection(PatchCollection(spans, facecolor=FAINT, linewidth=0, alpha=0.6))


def _lines(ax: Axes, values: Floats, columns: int, rows: int, is_behind: bool) -> None:
    """The lines (K, N, C, L) of a layer, scaled to [0, 1], each in the frame of its example."""
    from matplotlib.collections import LineCollection

    if values.shape[-1] == 1:
        values = values.repeat(2, axis=-1)  # one value is a level line
    _, num, channels, length = values.shape
    inside = 1 - 2 * MARGIN
    frame = np.arange(num)
    x = (frame % columns)[:, None] + MARGIN + inside * np.linspace(0, 1, length)
    y = (rows - 1 - frame // columns)[:, None, None] + MARGIN + inside * values.clip(0, 1)
    for c in range(channels):
        across = np.broadcast_to(x, y[:, :, c].shape)
        points = np.stack([across, y[:, :, c]], -1).reshape(-1, length, 2)
        ax.add_collection(LineCollection(list(points), **_style(c, channels, is_behind)))


def _style(channel: int, channels: int, is_behind: bool) -> dict[str, Any]:
    """One channel is grey behind blue; of several each keeps its hue, pale behind."""
    width = WIDTHS["behind" if is_behind else "front"]
    if channels == 1:
        return {"color": DATA if is_behind else MODEL, "lw": width, "alpha": 0.9}
    return {"color": HUES[channel], "lw": width, "alpha": 0.35 if is_behind else 0.95}


def _legend(figure: Figure, names: Sequence[str], channels: int) -> None:
    """Which line is which, where there is more than one kind of them."""
    from matplotlib.lines import Line2D

    kinds = []
    for i, name in enumerate(names if len(names) > 1 else ()):
        style = _style(0, 1, is_behind=i == 0)
        if channels > 1:
            style["color"] = GREY  # hues are those of channels
        kinds.append(Line2D([], [], label=name[:1].lower() + name[1:], **style))
    if channels > 1:
        hues = [_style(c, channels, is_behind=False) for c in range(channels)]
        kinds += [
            Line2D([], [], label=f"channel {c + 1}", **style) for c, style in enumerate(hues)
        ]
    if kinds:
        place: Any = {"loc": "outside lower center", "ncols": min(len(kinds), 5)}
        figure.legend(handles=kinds, frameon=False, fontsize=8.5, **place)
