"""The figure of training: the bound in nats over the steps, and its two halves.

−bound = distortion + rate, where the distortion is −E_q log p(x|z) and the rate is what the
latents cost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lowerbound.errors import refuse
from lowerbound.plots.style import (
    DATA,
    FAINT,
    GREY,
    MARK,
    MODEL,
    Floats,
    dress,
    dress_bar,
    titled_figure,
    true_minus,
    view,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["has_curve", "has_halves", "training_figure"]

RATE = re.compile(r"kl(_\d+)?|codes|prior|entropy")
OF_DIFFUSION = "diffusion"  # a term that is all of the bound: there is no trade to be seen
EDGE = 0.12  # share of a panel's side that half a label takes


def training_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The bound over the steps, and the rate it was paid with against the distortion left.

    Args:
        rows: Rows of metrics.jsonl, ``kind`` train or validation; at least one has a finite
            ``bound`` (or, for a model without one, ``loss``) in nats per example.
    """
    if not has_curve(rows):
        raise refuse("rows", "rows with a step and a finite bound or loss", "none", "train first")
    rows = [row for row in rows if _finite(row, "step")]
    quantity = "bound" if any(_finite(row, "bound") for row in rows) else "loss"
    rows = [row for row in rows if _finite(row, quantity)]
    flow = [point for point in map(_rate_and_distortion, rows) if point]
    figure = titled_figure("How training went", 9.8 if flow else 6.0, 4.2)
    _curves(figure.add_subplot(1, 2 if flow else 1, 1), rows, quantity)
    if flow:
        _rate_distortion(figure, figure.add_subplot(1, 2, 2), np.array(flow))
    return figure


def has_curve(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is training to draw: a row with a step and a finite bound or loss.

    >>> has_curve([{"step": 1, "bound": None, "loss": math.nan}])
    False
    """
    return any(
        _finite(row, "step") and (_finite(row, "bound") or _finite(row, "loss")) for row in rows
    )


def has_halves(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rate is drawn against distortion: not for a diffusion, whose rate is its bound."""
    return any(_rate_and_distortion(row) for row in rows if _finite(row, "step"))


def _finite(row: Mapping[str, Any], key: str) -> bool:
    return isinstance(row.get(key), int | float) and math.isfinite(row[key])


def _rate_and_distortion(row: Mapping[str, Any]) -> tuple[float, float, float, bool] | None:
    """(rate, distortion, step, is validation) of one row, in nats; None if it lacks them."""
    rates = [key for key in row if RATE.fullmatch(key) and _finite(row, key)]
    if not rates or OF_DIFFUSION in row or not _finite(row, "reconstruction"):
        return None
    rate = sum(row[key] for key in rates)
    return rate, -row["reconstruction"], row["step"], row.get("kind") == "validation"


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
        label = true_minus(f"best: {best[quantity]:,.2f} at step {best['step']:,}")
        ax.plot(
            best["step"], best[quantity], "o", ms=9, mfc="none", mec=MARK, mew=1.6, label=label
        )
    values = np.array([row[quantity] for row in rows], dtype=float)
    ax.set_ylim(*view(values, tail="low" if up else "high"))
    ax.legend(frameon=False, fontsize=8.5, loc="lower right" if up else "upper right")
    unit = "nats per example" if up else "as the model defines it"
    better = "higher" if up else "lower"
    dress(ax, f"The {quantity}: {better} is better", "step", f"{quantity} ({unit})")


def _rate_distortion(figure: Figure, ax: Axes, points: Floats) -> None:
    """Rate against distortion by step, over lines of constant bound; (n, 4) points."""
    rate, distortion, step, judged = points.T
    ax.set_xlim(*view(rate, tail="high"))
    ax.set_ylim(*view(distortion, tail="high"))
    x, y = np.meshgrid(np.linspace(*ax.get_xlim(), 60), np.linspace(*ax.get_ylim(), 60))
    lines = ax.contour(x, y, -(x + y), levels=7, colors=FAINT, linewidths=0.8, linestyles="solid")
    places = _label_places(lines.levels, ax.get_xlim(), ax.get_ylim())
    if places:
        style: dict[str, Any] = {"fontsize": 7, "colors": GREY}
        ax.clabel(lines, fmt=lambda v: true_minus(f"{v:,.5g}"), manual=places, **style)
    edges = np.where(judged, "white", "none").tolist()
    dots = ax.scatter(rate, distortion, np.where(judged, 34, 12), step, edgecolors=edges, zorder=3)
    if step.min() < step.max():
        dress_bar(figure.colorbar(dots, ax=ax, label="step", format=lambda v, _: f"{v:,.0f}"))
    title = "What the bound is made of (grey lines: equal bound)"
    dress(ax, title, "rate (nats per example)", "distortion (nats per example)")


def _label_places(
    bounds: Iterable[float], xlim: tuple[float, float], ylim: tuple[float, float]
) -> list[tuple[float, float]]:
    """The middle of each line −(x + y) = bound, but none where an edge would cut its label."""
    places = []
    for bound in bounds:
        left, right = max(xlim[0], -bound - ylim[1]), min(xlim[1], -bound - ylim[0])
        x = (left + right) / 2
        shares = [
            (value - low) / (high - low) for value, (low, high) in ((x, xlim), (-bound - x, ylim))
        ]
        if all(EDGE <= share <= 1 - EDGE for share in shares):
            places.append((float(x), float(-bound - x)))
    return places
