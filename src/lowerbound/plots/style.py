"""The one look of all figures: colours, sizes, the empty figure, its panels, and saving.

Figures belong to no window: pyplot is never imported, and matplotlib only when one is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowerbound.files import atomic_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DATA",
    "DPI",
    "FAINT",
    "GREY",
    "HUES",
    "INK",
    "MARK",
    "MAX_POINTS",
    "MODEL",
    "Floats",
    "dress",
    "dress_bar",
    "save_figure",
    "scatter_points",
    "titled_figure",
    "true_minus",
    "view",
]

Floats = NDArray[np.float64]

DPI = 150
INK, GREY, FAINT = "#1f2430", "#6b7280", "#d5d8de"
DATA, MODEL, MARK = "#8a93a3", "#2563a8", "#c2410c"  # what was given, what is ours, what to see
# Ten hues that stay apart for colour-blind eyes (Paul Tol's muted scheme, its grey darkened).
HUES = "#332288 #cc6677 #117733 #ddcc77 #88ccee #882255 #44aa99 #999933 #aa4499 #7f7f7f".split()
MAX_POINTS = 5_000


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def titled_figure(title: str, width: float, height: float, top: float | None = None) -> Figure:
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


def dress(ax: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """The one look of a panel: thin grey axes, a title at the left, labels in ink."""
    ax.set_title(title, loc="left", fontsize=9.5, color=INK, pad=7)
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    ax.tick_params(labelsize=8, colors=GREY, length=3, width=0.7)
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=GREY, linewidth=0.7)


def dress_bar(bar: Any) -> None:
    """The look of a colour bar beside a panel."""
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, colors=GREY, length=2, width=0.7)
    bar.ax.yaxis.label.set(fontsize=9, color=INK)


def scatter_points(ax: Axes, points: Floats, colours: Sequence[Any]) -> None:
    """Small points, with as many units to the centimetre on both axes."""
    size = float(np.clip(4_000 / max(len(points), 1), 4, 16))
    ax.scatter(points[:, 0], points[:, 1], size, list(colours), alpha=0.75, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")


def view(values: Floats, *, tail: str) -> tuple[float, float]:
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


def true_minus(text: str) -> str:
    """A number with a true minus sign, as matplotlib's own tick labels have."""
    return text.replace("-", "−")
