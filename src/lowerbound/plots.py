"""Figures from tensors: what a model draws, keeps, forgets, and how it got there.

Every function takes CPU tensors and returns a `matplotlib.figure.Figure` that belongs to nobody:
no pyplot, no global state, no window. Images are shown as the numbers they are, x / (levels − 1)
clipped to [0, 1] and never wrapped; vectors become small multiples, one panel per column.

The training figure shows the bound in nats and its two halves, −bound = distortion + rate, where
the distortion is −E_q log p(x|z) and the rate is what the latents cost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowerbound._shapes import shown_shape
from lowerbound.distributions.support import Binary, Discrete, Real, Support
from lowerbound.errors import refuse
from lowerbound.files import atomic_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "displayable",
    "image_grid",
    "interpolations_figure",
    "latents_figure",
    "plane_figure",
    "reconstructions_figure",
    "samples_figure",
    "save_figure",
    "training_figure",
]

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

DPI = 150
INK, GREY, FAINT = "#1f2430", "#6b7280", "#d5d8de"
DATA, MODEL, MARK = "#8a93a3", "#2563a8", "#c2410c"  # what was given, what is ours, what to see
# Ten hues that stay apart for colour-blind eyes (Paul Tol's muted scheme, its grey darkened).
HUES = "#332288 #cc6677 #117733 #ddcc77 #88ccee #882255 #44aa99 #999933 #aa4499 #7f7f7f".split()
MAX_COLUMNS = 12  # of a table, one small panel each
MAX_IMAGES = 100
MAX_POINTS = 5_000
MAX_TSNE_POINTS = 2_000  # t-SNE's time grows with the square
MIN_CELL = 48  # pixels: an 8×8 digit becomes visible
RATE = re.compile(r"kl(_\d+)?|codes|prior|diffusion|entropy")


def displayable(
    x: Tensor, support: Support, low: float | None = None, high: float | None = None
) -> Tensor:
    """Scale images to [0, 1] for the eye; values outside are clipped, never wrapped.

    Args:
        x: Images or means of p(x|z), (N, C, H, W) with C from 1 to 4, in the data's own values.
        support: `Binary` is taken as is, `Discrete` is divided by levels − 1, `Real` is scaled.
        low: Value of a real image that becomes 0; the smallest of ``x`` unless given.
        high: Value of a real image that becomes 1; the largest of ``x`` unless given.

    Returns:
        (N, 1 or 3, H, W) float in [0, 1]: of two channels the first, of four the first three.

    >>> displayable(torch.full((1, 1, 1, 1), 300, dtype=torch.int16), Discrete(256)).item()
    1.0
    """
    if x.ndim != 4 or not 1 <= x.shape[1] <= 4:
        raise refuse("x", "images (N, C, H, W) with C from 1 to 4", shown_shape(x.shape))
    x = x[:, : 3 if x.shape[1] >= 3 else 1].detach().float()
    if isinstance(support, Discrete):
        x = x / (support.levels - 1)
    elif isinstance(support, Real) and x.numel():
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


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def samples_figure(
    draws: Tensor,
    means: Tensor | None,
    support: Support,
    event_shape: Sequence[int],
    train: Tensor | None = None,
    column_names: Sequence[str] = (),
    labels: Tensor | Sequence[int] | None = None,
) -> Figure:
    """What the model draws: images in a grid, two real columns as points, others as histograms.

    Args:
        draws: Draws from p(x), (N, *event); of images the first 100 are shown.
        means: Means of p(x|z) for z from the prior, (N, *event), shown for images only.
        support: Of the data.
        event_shape: Shape of one example; three axes of which the first is 1 … 4 are an image.
        train: Training data (M, *event) to compare with; it also fixes the grey of real images.
        column_names: One name per column of a table; x₁, x₂, … unless given.
        labels: Class of each draw (N,), written into the corner of its image.
    """
    title = "What the model draws"
    if not _is_image(event_shape):
        data = None if train is None else _table(train)
        draw = (
            _scatter_pair if isinstance(support, Real) and draws[0].numel() == 2 else _histograms
        )
        return draw(title, data, _table(draws), support, column_names)
    reference = draws if train is None else train
    panels = {"Draws from p(x)": draws, "Means of p(x|z), z from the prior": means}
    shown = {name: x[:MAX_IMAGES] for name, x in panels.items() if x is not None}
    columns = math.ceil(math.sqrt(len(draws[:MAX_IMAGES])))
    grids = {name: image_grid(_grey(x, support, reference), columns) for name, x in shown.items()}
    figure, axes = _image_panels(title, grids)
    for ax in axes if labels is not None else []:
        _tag_cells(ax, [str(label) for label in torch.as_tensor(labels).tolist()], columns)
    return figure


def reconstructions_figure(
    x: Tensor,
    means: Tensor,
    support: Support,
    column_names: Sequence[str] = (),
) -> Figure:
    """Examples beside what is left of them after encoding and decoding.

    Args:
        x: Examples (N, *event); of images the first 40 are shown, ten to a row.
        means: Means of p(x|z) at the means of q(z|x), (N, *event).
        support: Of the data.
        column_names: One name per column of a table; x₁, x₂, … unless given.
    """
    title = "Examples and their reconstructions"
    if not _is_image(x.shape[1:]):
        return _column_reconstructions(title, _table(x), _table(means), column_names)
    columns = min(len(x), 10)
    halves = [torch.split(_grey(t[:40], support, x), columns) for t in (x, means)]
    rows = [image_grid(part, columns) for pair in zip(*halves, strict=True) for part in pair]
    height = rows[0].shape[0]
    below = [2, height // 4] * (len(rows) // 2)  # a pair stands together, apart from the next
    below[-1] = 0
    white = [((0, pad), (0, 0), (0, 0)) for pad in below]
    stack = [np.pad(row, pad, constant_values=255) for row, pad in zip(rows, white, strict=True)]
    panels = {"Means of p(x|z) at the mean of q(z|x)": np.concatenate(stack)}
    figure, (ax,) = _image_panels(title, panels, left=150)
    tops = np.cumsum([0, *(len(row) for row in stack)])[:-1]
    ax.set_yticks(tops + height / 2, ["example", "reconstruction"] * (len(rows) // 2))
    return figure


def latents_figure(
    z: Tensor,
    pca: Tensor | None = None,
    labels: Tensor | None = None,
    class_names: Sequence[str] = (),
    method: str = "pca",
) -> Figure:
    """Where the examples lie in the latent space, beside the plane of their own PCA.

    Args:
        z: Latents (N, d): shown as they are for d ≤ 2, else as two coordinates.
        pca: First two principal components of the same examples (N, 2), for comparison.
        labels: Class of each example (N,), as its colour.
        class_names: Name of each class; its index unless given.
        method: How d > 2 becomes two: ``pca``, or ``tsne`` (of at most 2,000 examples).
    """
    if method not in ("pca", "tsne"):
        raise refuse("method", "pca or tsne", method)
    keep = MAX_TSNE_POINTS if method == "tsne" else MAX_POINTS
    z = z.detach().double()[:keep]
    classes = torch.zeros(len(z)).int() if labels is None else labels[:keep].int()
    hues = {0: MODEL} if labels is None else _palette(classes)
    colours = [hues[c] for c in classes.tolist()]
    figure = _figure("Where the examples lie", 5.6 if pca is None else 9.8, 4.7)
    left = figure.add_subplot(1, 1 if pca is None else 2, 1)
    if z.shape[1] == 1:
        groups = [z[classes == c, 0].numpy() for c in hues]
        left.hist(groups, 40, stacked=True, color=list(hues.values()))
        _dress(left, "The latent", "z", "examples per bin")
    else:
        points, names, title = _in_two(z, method)
        _points(left, points, colours)
        _dress(left, title, *names)
    if pca is not None:
        right = figure.add_subplot(1, 2, 2)
        _points(right, pca[:keep].double().numpy(), colours)
        _dress(right, "The data: its PCA", "first component", "second component")
    if labels is not None:
        _class_legend(figure, hues, class_names)
    return figure


def interpolations_figure(
    frames: Tensor, support: Support, column_names: Sequence[str] = ()
) -> Figure:
    """Walks through the latent space from one example to another.

    Args:
        frames: Decoded means (R, S, *event): R walks of S steps, ends included.
        support: Of the data.
        column_names: One name per column of a table; x₁, x₂, … unless given.
    """
    walks, steps = frames.shape[:2]
    title, position = "From one example to another", "fraction of the way in latent space"
    if _is_image(frames.shape[2:]):
        grid = image_grid(_grey(frames.flatten(0, 1), support, frames), steps)
        figure, (ax,) = _image_panels(title, {"Means of p(x|z) on the way": grid}, bottom=76)
        cell = grid.shape[1] / steps
        ax.set_xticks([cell / 2, grid.shape[1] - cell / 2], ["0", "1"])
        ax.set_xlabel(position, fontsize=9, color=INK)
        return figure
    table = frames.flatten(2).detach().double().numpy()
    names = _column_names(column_names, table.shape[2])
    figure, axes = _small_multiples(title, names, "fraction of the way", "mean of p(x|z)")
    for i, ax in enumerate(axes):
        for walk, hue in zip(range(walks), HUES, strict=False):
            path = table[walk, :, i]
            ax.plot(np.linspace(0, 1, steps), path, color=hue, lw=1.4, label=f"walk {walk + 1}")
    _shared_legend(figure, axes)
    return figure


def plane_figure(decoded: Tensor, support: Support, quantiles: Tensor) -> Figure:
    """The data that each point of a two-dimensional latent plane stands for.

    Args:
        decoded: Means of p(x|z) (G, G, *event), rows z₂ from high to low, so that it grows
            upwards in the figure, and columns z₁ from low to high.
        support: Of the data.
        quantiles: Quantiles of the prior along each axis (G,), rising.
    """
    size, title = len(quantiles), "The latent plane, decoded"
    if _is_image(decoded.shape[2:]):
        grid = image_grid(_grey(decoded.flatten(0, 1), support, decoded), size, gap=1)
        panels = {"Means of p(x|z) at even quantiles of the prior": grid}
        figure, axes = _image_panels(title, panels, left=100, bottom=76)
    else:
        table = decoded.flatten(2).detach().double().numpy()
        names = [f"Mean of {name}" for name in _column_names((), table.shape[2])]
        figure, axes = _small_multiples(title, names, side=2.6)
        for i, ax in enumerate(axes):
            image = ax.imshow(table[:, :, i], cmap="viridis", aspect="auto")
            _dress_bar(figure.colorbar(image, ax=ax))
    shown = sorted({0, size // 4, size // 2, size - 1 - size // 4, size - 1})
    values = [_minus(f"{float(quantiles[i]):.2g}") for i in shown]
    for ax in axes:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        ax.set_xticks([left + (right - left) * (i + 0.5) / size for i in shown], values)
        ax.set_yticks([bottom + (top - bottom) * (i + 0.5) / size for i in shown], values)
        ax.set_xlabel("z₁", fontsize=9.5, color=INK)
        ax.set_ylabel("z₂", fontsize=9.5, color=INK)
    return figure


def training_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The bound over the steps, and the rate it was paid with against the distortion left.

    Args:
        rows: Rows of metrics.jsonl, ``kind`` train or validation; at least one has a finite
            ``bound`` (or, for a model without one, ``loss``) in nats per example.
    """
    quantity = "bound" if any(_finite(row, "bound") for row in rows) else "loss"
    rows = [row for row in rows if _finite(row, quantity) and _finite(row, "step")]
    if not rows:
        raise refuse("rows", "rows with a step and a finite bound or loss", "none", "train first")
    flow = [point for point in map(_rate_and_distortion, rows) if point]
    figure = _figure("How training went", 9.8 if flow else 6.0, 4.2)
    _curves(figure.add_subplot(1, 2 if flow else 1, 1), rows, quantity)
    if flow:
        _rate_distortion(figure, figure.add_subplot(1, 2, 2), np.array(flow))
    return figure


# --- the training figure's panels -----------------------------------------------------------


def _finite(row: Mapping[str, Any], key: str) -> bool:
    return isinstance(row.get(key), int | float) and math.isfinite(row[key])


def _rate_and_distortion(row: Mapping[str, Any]) -> tuple[float, float, float, bool] | None:
    """(rate, distortion, step, is validation) of one row, in nats; None if it lacks them."""
    rates = [key for key in row if RATE.fullmatch(key) and _finite(row, key)]
    if not rates or not _finite(row, "reconstruction"):
        return None
    rate = sum(row[key] for key in rates)
    return rate, -row["reconstruction"], row["step"], row.get("kind") == "validation"


def _view(values: Floats, *, tail: str) -> tuple[float, float]:
    """Limits that hold everything but a long tail on its ``low`` or ``high`` side.

    The first steps of training are off by orders of magnitude, and would flatten all the rest.
    """
    low, high = values.min(), values.max()
    if len(values) > 3:
        q10, q90 = np.quantile(values, [0.1, 0.9], method="nearest")
        low = max(low, q10 - (q90 - q10)) if tail == "low" else low
        high = min(high, q90 + (q90 - q10)) if tail == "high" else high
    pad = 0.06 * (high - low) or 0.05 * max(abs(high), 1.0)
    return float(low - pad), float(high + pad)


def _curves(ax: Axes, rows: Sequence[Mapping[str, Any]], quantity: str) -> None:
    """The bound (or loss) of training and validation over the steps, the best one marked."""
    up = quantity == "bound"
    judged = [row for row in rows if row.get("kind") == "validation"]
    trained = [row for row in rows if row.get("kind") != "validation"]
    for name, chosen, hue in (("training", trained, DATA), ("validation", judged, MODEL)):
        points = np.array([(row["step"], row[quantity]) for row in chosen]).reshape(-1, 2)
        marker = "" if name == "training" and len(points) > 1 else "o"
        if len(points):
            ax.plot(*points.T, color=hue, lw=1.5, marker=marker, ms=3.5, label=name)
    if judged:
        best = max(judged, key=lambda row: row[quantity] if up else -row[quantity])
        label = _minus(f"best: {best[quantity]:,.2f} at step {best['step']:,}")
        ax.plot(
            best["step"], best[quantity], "o", ms=9, mfc="none", mec=MARK, mew=1.6, label=label
        )
    values = np.array([row[quantity] for row in rows], dtype=float)
    ax.set_ylim(*_view(values, tail="low" if up else "high"))
    ax.legend(frameon=False, fontsize=8.5, loc="lower right" if up else "upper right")
    unit = "nats per example" if up else "as the model defines it"
    better = "higher" if up else "lower"
    _dress(ax, f"The {quantity}: {better} is better", "step", f"{quantity} ({unit})")


def _rate_distortion(figure: Figure, ax: Axes, points: Floats) -> None:
    """Rate against distortion by step, over lines of constant bound; (n, 4) points."""
    rate, distortion, step, judged = points.T
    ax.set_xlim(*_view(rate, tail="high"))
    ax.set_ylim(*_view(distortion, tail="high"))
    x, y = np.meshgrid(np.linspace(*ax.get_xlim(), 60), np.linspace(*ax.get_ylim(), 60))
    lines = ax.contour(x, y, -(x + y), levels=7, colors=FAINT, linewidths=0.8, linestyles="solid")
    ax.clabel(lines, fmt=lambda value: _minus(f"{value:,.5g}"), fontsize=7, colors=GREY)
    edges = np.where(judged, "white", "none").tolist()
    dots = ax.scatter(rate, distortion, np.where(judged, 34, 12), step, edgecolors=edges, zorder=3)
    if step.min() < step.max():
        _dress_bar(figure.colorbar(dots, ax=ax, label="step", format=lambda v, _: f"{v:,.0f}"))
    title = "What the bound is made of (grey lines: equal bound)"
    _dress(ax, title, "rate (nats per example)", "distortion (nats per example)")


# --- panels of points and histograms --------------------------------------------------------


def _in_two(z: Tensor, method: str) -> tuple[Floats, tuple[str, str], str]:
    """Two coordinates (N, 2) of latents (N, d), the names of their axes, and a title."""
    if z.shape[1] == 2:
        return z.numpy(), ("z₁", "z₂"), "The latents"
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, max(1.0, (len(z) - 1) / 3))
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(
            z.numpy()
        )
        names = ("first t-SNE coordinate", "second t-SNE coordinate")
        return points, names, f"The {z.shape[1]} latents: t-SNE"
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(z.numpy())
    first, second = (100 * np.nan_to_num(pca.explained_variance_ratio_)).tolist()
    names = (
        f"first principal component ({first:.0f} % of variance)",
        f"second principal component ({second:.0f} %)",
    )
    return pca.transform(z.numpy()), names, f"The {z.shape[1]} latents: their PCA"


def _points(ax: Axes, points: Floats, colours: Sequence[Any]) -> None:
    """Small points, with as many units to the centimetre on both axes."""
    size = float(np.clip(4_000 / max(len(points), 1), 4, 16))
    ax.scatter(points[:, 0], points[:, 1], size, list(colours), alpha=0.75, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")


def _palette(classes: Tensor) -> dict[int, Any]:
    """A colour for each class that occurs: ten hues, or a ramp when ten are not enough."""
    from matplotlib import colormaps

    present = sorted(set(classes.tolist()))
    ramp = list(colormaps["viridis"](np.linspace(0, 0.95, len(present))))
    return dict(zip(present, HUES if len(present) <= len(HUES) else ramp, strict=False))


def _class_legend(figure: Figure, palette: Mapping[int, Any], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    title = [str(names[c]) if 0 <= c < len(names) else str(c) for c in palette]
    style: dict[str, Any] = {"ls": "", "marker": "o", "ms": 5}
    dots = [Line2D([], [], color=hue, **style) for hue in palette.values()]
    thin = math.ceil(len(dots) / 30)  # more names than fit: every second, third, … of the ramp
    style = {"loc": "outside right center", "frameon": False, "fontsize": 8.5}
    figure.legend(dots[::thin], title[::thin], **style)


def _scatter_pair(
    title: str, data: Floats | None, draws: Floats, _: Support, column_names: Sequence[str]
) -> Figure:
    """Two real columns: data and draws side by side in the same frame."""
    panels = {"Training data": (data, DATA), "Draws from p(x)": (draws, MODEL)}
    given = {name: (x[:MAX_POINTS], hue) for name, (x, hue) in panels.items() if x is not None}
    pooled = np.concatenate([x for x, _ in given.values()])
    # A stray draw must not shrink everything else to a dot: the frame holds the central 99.6 %.
    low, high = np.nanquantile(pooled, [0.002, 0.998], axis=0)
    centre, half = (low + high) / 2, 0.56 * max(float((high - low).max()), 1e-6)
    figure = _figure(title, 4.6 * len(given), 5.0)
    names = [f"{name} (data units)" for name in _column_names(column_names, 2)]
    for i, (name, (x, hue)) in enumerate(given.items()):
        ax = figure.add_subplot(1, len(given), i + 1)
        _points(ax, x, [hue] * len(x))
        ax.set(
            xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half)
        )
        ax.set_aspect("equal", adjustable="box")
        _dress(ax, name, *names)
    return figure


def _histograms(
    title: str,
    data: Floats | None,
    draws: Floats,
    support: Support,
    column_names: Sequence[str],
) -> Figure:
    """One histogram per column: training data filled, draws as an outline."""
    exact = not isinstance(support, Real)
    names = _column_names(column_names, draws.shape[1])
    unit = "probability per level" if exact else "density"
    figure, axes = _small_multiples(title, names, "value (data units)", unit)
    filled: dict[str, Any] = {"color": DATA, "alpha": 0.45, "label": "training data"}
    line: dict[str, Any] = {"color": MODEL, "lw": 1.6, "label": "draws from p(x)"}
    for i, ax in enumerate(axes):
        columns = [x[np.isfinite(x[:, i]), i] for x in (draws, data) if x is not None]
        edges = _edges(columns, support)
        columns = [np.clip(x, edges[0], edges[-1]) for x in columns]
        if data is not None:
            ax.hist(columns[1], edges.tolist(), density=True, **filled)
        ax.hist(columns[0], edges.tolist(), density=True, histtype="step", **line)
        ax.locator_params(axis="x", nbins=4, integer=exact)
    _shared_legend(figure, axes)
    return figure


def _edges(columns: Sequence[Floats], support: Support) -> Floats:
    """Edges of the bins: one per level while there are few, else √n of them over the bulk."""
    values = np.concatenate(columns)
    if isinstance(support, Binary) or not len(values):
        return np.array([-0.5, 0.5, 1.5])
    low, high = np.quantile(values, [0.005, 0.995])
    if isinstance(support, Discrete):
        low, high = math.floor(low) - 0.5, math.ceil(high) + 0.5
        # Whole widths: a bin that holds one level more than its neighbour looks like a mode.
        width = math.ceil((high - low) / 40)
        return np.arange(low, high + width, width)
    num = int(np.clip(math.sqrt(min(map(len, columns))), 8, 40))
    return np.linspace(low, high if high > low else low + 1, num + 1)


def _column_reconstructions(
    title: str, x: Floats, means: Floats, column_names: Sequence[str]
) -> Figure:
    """Each column of the examples against its reconstruction; perfect ones lie on the diagonal."""
    names = _column_names(column_names, x.shape[1])
    labels = "example (data units)", "mean of p(x|z)"
    figure, axes = _small_multiples(title, names, *labels, side=2.7)
    for i, ax in enumerate(axes):
        pair = np.stack([x[:MAX_POINTS, i], means[:MAX_POINTS, i]], axis=1)
        ax.axline((0, 0), slope=1, color=GREY, lw=0.9, zorder=0)
        _points(ax, pair, [MODEL] * len(pair))
        limits = _view(pair[np.isfinite(pair)], tail="none")
        ax.set(xlim=limits, ylim=limits)
        ax.set_aspect("equal", adjustable="box")
    return figure


# --- what all figures share -----------------------------------------------------------------


def _is_image(event_shape: Sequence[int]) -> bool:
    return len(event_shape) == 3 and 1 <= event_shape[0] <= 4


def _table(x: Tensor) -> Floats:
    """Examples (N, *event) as rows (N, D)."""
    rows: Floats = x.detach().double().reshape(len(x), -1).numpy()
    return rows


def _grey(x: Tensor, support: Support, reference: Tensor) -> Tensor:
    """`displayable`, with the black and white of real images taken from ``reference``."""
    return displayable(x, support, float(reference.min()), float(reference.max()))


def _column_names(given: Sequence[str], num: int) -> list[str]:
    """The names given, or x₁ … x_D when they do not fit."""
    if len(given) == num:
        return [str(name) for name in given]
    digits = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return [f"x{i}".translate(digits) for i in range(1, num + 1)]


def _minus(text: str) -> str:
    """A number with a true minus sign, as matplotlib's own tick labels have."""
    return text.replace("-", "−")


def _figure(title: str, width: float, height: float, top: float | None = None) -> Figure:
    """A titled empty figure of so many inches that belongs to no window.

    The layout is matplotlib's, unless the title is put ``top`` inches below the upper edge.
    """
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=DPI, facecolor="white")
    style: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "color": INK, "ha": "left"}
    if top is None:
        figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.09)
        figure.suptitle(title, x=0.09 / width, **style)
    else:
        figure.suptitle(title, x=0.24 / width, y=1 - top / height, **style)
    return figure


def _dress(ax: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """The one look of a panel: thin grey axes, a title at the left, labels in ink."""
    ax.set_title(title, loc="left", fontsize=9.5, color=INK, pad=7)
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    ax.tick_params(labelsize=8, colors=GREY, length=3, width=0.7)
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=GREY, linewidth=0.7)


def _small_multiples(
    title: str, names: Sequence[str], xlabel: str = "", ylabel: str = "", side: float = 2.3
) -> tuple[Figure, list[Axes]]:
    """A panel per column, the first twelve, four to a row; labels only at the outer edges."""
    num = min(len(names), MAX_COLUMNS)
    columns = min(num, 4)
    rows = math.ceil(num / columns)
    if num < len(names):
        title = f"{title} (the first {num} of {len(names)} columns)"
    figure = _figure(title, max(side * 1.1 * columns, 5.0), side * rows + 0.6)
    for i, name in enumerate(names[:num]):
        lowest, leftmost = i + columns >= num, i % columns == 0
        short = name if len(name) <= 25 else f"{name[:24]}…"
        ax = figure.add_subplot(rows, columns, i + 1)
        _dress(ax, short, xlabel if lowest else "", ylabel if leftmost else "")
    return figure, figure.axes


def _shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, on the line of the title or below it."""
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5
    )


def _image_panels(
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
    total_width = max(left + sum(w + between for w, _ in sizes), 640)
    total_height = top + max(h for _, h in sizes) + bottom
    figure = _figure(title, total_width / DPI, total_height / DPI, top=0.15)
    for (name, grid), (width, height) in zip(panels.items(), sizes, strict=True):
        box = np.array([left, total_height - top - height, width, height])
        ax = figure.add_axes(box / [total_width, total_height, total_width, total_height])
        shrunk = width < grid.shape[1]
        ax.imshow(grid, interpolation="antialiased" if shrunk else "nearest", aspect="auto")
        _dress(ax, name)
        ax.set(xticks=[], yticks=[])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        left += width + between
    return figure, figure.axes


def _tag_cells(ax: Axes, labels: Sequence[str], columns: int) -> None:
    """Write each class into the top left corner of its image in a square grid."""
    cell = (ax.get_xlim()[1] + 2.5) / columns  # 2: the gap; 0.5: pixels are centred on integers
    rows = math.ceil(min(len(labels), MAX_IMAGES) / columns)
    height = (ax.get_ylim()[0] + 2.5) / rows
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    for i, label in enumerate(labels[:MAX_IMAGES]):
        place = (i % columns * cell + 2, i // columns * height + 2)
        ax.text(*place, label, fontsize=5.5, color=INK, va="top", bbox=box)


def _dress_bar(bar: Any) -> None:
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, colors=GREY, length=2, width=0.7)
    bar.ax.yaxis.label.set(fontsize=9, color=INK)
