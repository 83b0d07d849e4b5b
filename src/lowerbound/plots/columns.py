"""Columns of tables: small multiples, one panel each, and what is drawn into them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lowerbound.distributions.support import Binary, Counts, Discrete, Product, Support
from lowerbound.plots.style import (
    DATA,
    GREY,
    MAX_POINTS,
    MODEL,
    Floats,
    dress,
    scatter_points,
    titled_figure,
    view,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "as_rows",
    "column_reconstructions",
    "histograms",
    "names_of_columns",
    "scatter_pair",
    "shared_legend",
    "small_multiples",
]

MAX_COLUMNS = 12  # of a table, one small panel each


def as_rows(x: Tensor) -> Floats:
    """Examples (N, *event) as rows (N, D)."""
    rows: Floats = x.detach().double().reshape(len(x), -1).numpy()
    return rows


def names_of_columns(given: Sequence[str], num: int) -> list[str]:
    """The names given, or x₁ … x_D when they do not fit."""
    if len(given) == num:
        return [str(name) for name in given]
    digits = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return [f"x{i}".translate(digits) for i in range(1, num + 1)]


def small_multiples(
    title: str, names: Sequence[str], xlabel: str = "", ylabel: str = "", side: float = 2.3
) -> tuple[Figure, list[Axes]]:
    """A panel per column, the first twelve, four to a row; labels only at the outer edges."""
    num = min(len(names), MAX_COLUMNS)
    columns = min(num, 4)
    rows = math.ceil(num / columns)
    if num < len(names):
        title = f"{title} (the first {num} of {len(names)} columns)"
    figure = titled_figure(title, max(side * 1.1 * columns, 5.0), side * rows + 0.6)
    for i, name in enumerate(names[:num]):
        lowest, leftmost = i + columns >= num, i % columns == 0
        short = name if len(name) <= 25 else f"{name[:24]}…"
        ax = figure.add_subplot(rows, columns, i + 1)
        dress(ax, short, xlabel if lowest else "", ylabel if leftmost else "")
    return figure, figure.axes


def shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, below them, in rows of as nearly one length as can be."""
    handles, labels = axes[0].get_legend_handles_labels()
    columns = math.ceil(len(labels) / math.ceil(len(labels) / 5)) if labels else 1
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5
    )


def scatter_pair(
    title: str,
    data: Floats | None,
    drawn: Mapping[str, Floats],
    _: Support,
    column_names: Sequence[str],
) -> Figure:
    """Two real columns: data and what is drawn, by its name, side by side in the same frame."""
    panels = {"Training data": (data, DATA), **{k: (x, MODEL) for k, x in drawn.items()}}
    given = {name: (x[:MAX_POINTS], hue) for name, (x, hue) in panels.items() if x is not None}
    pooled = np.concatenate([x for x, _ in given.values()])
    # A stray draw must not shrink everything else to a dot: the frame holds the central 99.6 %.
    low, high = np.nanquantile(pooled, [0.002, 0.998], axis=0)
    centre, half = (low + high) / 2, 0.56 * max(float((high - low).max()), 1e-6)
    figure = titled_figure(title, 4.6 * len(given), 5.0)
    names = [f"{name} (data units)" for name in names_of_columns(column_names, 2)]
    for i, (name, (x, hue)) in enumerate(given.items()):
        ax = figure.add_subplot(1, len(given), i + 1)
        scatter_points(ax, x, [hue] * len(x))
        ax.set(
            xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half)
        )
        ax.set_aspect("equal", adjustable="box")
        dress(ax, name, *names)
    return figure


def histograms(
    title: str,
    data: Floats | None,
    drawn: Mapping[str, Floats],
    support: Support,
    column_names: Sequence[str],
) -> Figure:
    """One histogram per column: training data filled, what is drawn, by its name, an outline."""
    ((name, draws),) = drawn.items()
    names = names_of_columns(column_names, draws.shape[1])
    kinds = support.parts if isinstance(support, Product) else [support] * len(names)
    units = {"probability per level" if kind.is_discrete else "density" for kind in kinds}
    unit = " or ".join(sorted(units))
    figure, axes = small_multiples(title, names, "value (data units)", unit)
    filled: dict[str, Any] = {"color": DATA, "alpha": 0.45, "label": "training data"}
    line: dict[str, Any] = {"color": MODEL, "lw": 1.6, "label": name[:1].lower() + name[1:]}
    for i, ax in enumerate(axes):
        columns = [x[np.isfinite(x[:, i]), i] for x in (draws, data) if x is not None]
        edges = _edges(columns, kinds[i])
        columns = [np.clip(x, edges[0], edges[-1]) for x in columns]
        if data is not None:
            ax.hist(columns[1], edges.tolist(), density=True, **filled)
        ax.hist(columns[0], edges.tolist(), density=True, histtype="step", **line)
        ax.locator_params(axis="x", nbins=4, integer=kinds[i].is_discrete)
    shared_legend(figure, axes)
    return figure


def _edges(columns: Sequence[Floats], support: Support) -> Floats:
    """Edges of the bins: one per level while there are few, else √n of them over the bulk."""
    values = np.concatenate(columns)
    if isinstance(support, Binary) or not len(values):
        return np.array([-0.5, 0.5, 1.5])
    low, high = np.quantile(values, [0.005, 0.995])
    if isinstance(support, Discrete | Counts):
        low, high = math.floor(low) - 0.5, math.ceil(high) + 0.5
        # Whole widths: a bin that holds one level more than its neighbour looks like a mode.
        width = math.ceil((high - low) / 40)
        return np.arange(low, high + width, width)
    num = int(np.clip(math.sqrt(min(map(len, columns))), 8, 40))
    return np.linspace(low, high if high > low else low + 1, num + 1)


def column_reconstructions(
    title: str, x: Floats, means: Floats, column_names: Sequence[str]
) -> Figure:
    """Each column of the examples against its reconstruction; perfect ones lie on the diagonal."""
    names = names_of_columns(column_names, x.shape[1])
    labels = "example (data units)", "mean of p(x|z)"
    figure, axes = small_multiples(title, names, *labels, side=2.7)
    for i, ax in enumerate(axes):
        pair = np.stack([x[:MAX_POINTS, i], means[:MAX_POINTS, i]], axis=1)
        ax.axline((0, 0), slope=1, color=GREY, lw=0.9, zorder=0)
        scatter_points(ax, pair, [MODEL] * len(pair))
        limits = view(pair[np.isfinite(pair)], tail="none")
        ax.set(xlim=limits, ylim=limits)
        ax.set_aspect("equal", adjustable="box")
    return figure
