"""The figure of a diffusion: at which noise levels its nats go, and what the three terms cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.plots.style import DATA, INK, MARK, MODEL, Floats, dress, titled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["noise_levels_figure"]


def noise_levels_figure(
    gammas: Tensor,
    rates: Tensor,
    errors: Tensor,
    *,
    reconstruction: float,
    prior: float,
    num_dims: int,
) -> Figure:
    """Bits per dimension and unit of γ at each noise level, beside the three terms.

    Args:
        gammas: Edges of S bins of −log SNR, rising, (S + 1,).
        rates: What the steps of each bin cost, (S,), nats per example.
        errors: Their standard errors, (S,).
        reconstruction: Log p(x|z_0), nats.
        prior: What the noisy end costs, nats.
        num_dims: Numbers of an example.

    Raises:
        InputError: another number of edges than of bins and one.
    """
    if len(gammas) != len(rates) + 1 or len(errors) != len(rates):
        raise refuse("gammas", f"{len(rates) + 1} edges of {len(rates)} bins", len(gammas))
    scale = 1 / (num_dims * math.log(2))
    edges, bits, spread = (t.double().numpy() for t in (gammas, rates * scale, errors * scale))
    figure = titled_figure("Where the bits go", 9.2, 3.8)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 1.3]})
    _by_level(left, edges, bits, spread)
    _terms(right, -reconstruction * scale, float(bits.sum()), prior * scale)
    return figure


def _by_level(ax: Axes, edges: Floats, bits: Floats, spread: Floats) -> None:
    """A step per bin, whose area is what the bin costs."""
    widths = np.diff(edges)
    height, error = bits / widths, np.nan_to_num(spread / widths)
    ax.stairs(height, edges, fill=True, color=MODEL, alpha=0.85)
    ax.errorbar(
        (edges[1:] + edges[:-1]) / 2, height, error, fmt="none", ecolor=INK, elinewidth=0.6
    )
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=min(0.0, float(height.min())))
    label = "γ = −log SNR: clean at the left, noise at the right"
    dress(ax, "Denoising, level by level", label, "bits/dim per unit of γ")


def _terms(ax: Axes, reconstruction: float, diffusion: float, prior: float) -> None:
    """The three terms as bars, with their numbers."""
    names, values = ["clean end", "denoising", "noisy end"], [reconstruction, diffusion, prior]
    ax.bar(names, values, color=[DATA, MODEL, MARK], width=0.6)
    for place, value in enumerate(values):
        ax.text(place, max(value, 0.0), f"{value:.4f}", ha="center", va="bottom", fontsize=8)
    dress(ax, f"The three terms: {sum(values):.3f} bits/dim")
