"""The figure of a hierarchy: what each level of latents holds, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lowerbound.distributions.support import Support
from lowerbound.errors import refuse
from lowerbound.plots.images import image_grid, image_panels, is_image, shared_grey
from lowerbound.plots.style import INK, MODEL, dress, titled_figure, true_minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["levels_figure", "rates_of_levels"]

PREFIX = "kl_"


def rates_of_levels(evaluation: Mapping[str, Any]) -> list[float]:
    """Mean rates of levels 1 … L in nats, from what evaluation.json holds; none where it has none.

    >>> rates_of_levels({"bound": {"terms": {"reconstruction": -9.0, "kl_1": 2.0, "kl_2": 1.0}}})
    [2.0, 1.0]
    """
    bound = evaluation.get("bound")
    terms = bound.get("terms", {}) if isinstance(bound, Mapping) else {}
    names = [f"{PREFIX}{level}" for level in range(1, len(terms) + 1)]
    return [float(terms[name]) for name in names if name in terms]


def levels_figure(frames: Tensor | None, support: Support, rates: Sequence[float] = ()) -> Figure:
    """One draw whose levels are drawn anew from one downwards, beside the rate of each level.

    Args:
        frames: Means of p(x|z), images (L, N, C, H, W): in row l, level l is the highest that was
            drawn anew, and the first column is the draw itself; None for data that are no images.
        support: Of the data.
        rates: Nats that levels 1 … L cost on average; none, where they are not known.

    Raises:
        InputError: neither images nor rates.
    """
    title = "What each level holds"
    if frames is None or not is_image(frames.shape[2:]):
        if not rates:
            raise refuse("rates", "given where there are no images", "none")
        figure = titled_figure(title, 6.4, 1.6 + 0.3 * len(rates))
        _bars(figure.subplots(), rates)
        return figure
    rows = frames.flip(0)  # the top level first
    grid = image_grid(shared_grey(rows.flatten(0, 1), support, frames), rows.shape[1])
    panels = {"Means of p(x|z): a draw, then its levels anew": grid}
    if rates:  # a place for the bars, as high as the rows that they belong to
        panels["Rate"] = np.full_like(grid, 255)
    figure, axes = image_panels(title, panels, left=150, bottom=100 if rates else 36)
    height = (len(grid) + 2) / len(rows)  # 2: the gap below a row
    middles = height * (np.arange(len(rows)) + 0.5) - 1.5
    names = ["level 1" if i == 1 else f"levels {i} to 1" for i in range(len(rows), 0, -1)]
    axes[0].set_yticks(middles, names)
    if rates:
        left, bottom, width, top = axes[1].get_position().bounds
        axes[1].remove()
        ax = figure.add_axes((left, bottom, width, top))
        _bars(ax, rates, middles, height * 0.5)
        ax.set_ylim(len(grid) - 0.5, -0.5)
        ax.set_yticks([])
    return figure


def _bars(ax: Axes, rates: Sequence[float], places: Any = None, thickness: float = 0.6) -> None:
    """Rates as bars, the top level first, with their numbers."""
    shown = list(rates)[::-1]
    places = np.arange(len(shown)) if places is None else places
    ax.barh(places, shown, thickness, color=MODEL)
    dress(ax, "Rate of each level", "nats per example")
    ax.set_yticks(places, [f"level {i}" for i in range(len(shown), 0, -1)])
    ax.invert_yaxis()
    ax.set_xlim(min(0.0, *shown), 1.25 * max(max(shown), 1e-6))
    for place, rate in zip(places, shown, strict=True):
        text = f" {true_minus(f'{rate:.2f}')}"
        ax.text(max(rate, 0.0), place, text, va="center", fontsize=8, color=INK)
