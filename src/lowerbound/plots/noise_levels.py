"""Figures of a diffusion: where its nats go, what its terms cost, and a draw on its way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lowerbound.distributions import Support
from lowerbound.errors import refuse
from lowerbound.plots.images import image_grid, image_panels, shared_grey, shown_part
from lowerbound.plots.style import (
    DATA,
    GREY,
    INK,
    MARK,
    MODEL,
    Floats,
    dress,
    titled_figure,
    true_minus,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["denoising_figure", "noise_levels_figure"]


def noise_levels_figure(
    gammas: Tensor,
    rates: Tensor,
    errors: Tensor,
    *,
    reconstruction: float,
    prior: float,
    num_dims: float,
    num_examples: int | None = None,
    split: str = "test",
) -> Figure:
    """Bits per dimension and unit of γ at each noise level, beside the three terms.

    Args:
        gammas: Edges of S bins of −log SNR, rising, (S + 1,).
        rates: What the steps of each bin cost, (S,), nats per example.
        errors: Their standard errors, (S,).
        reconstruction: Log p(x|z_0), nats.
        prior: What the noisy end costs, nats.
        num_dims: Numbers of an example.
        num_examples: How many were looked at; the title then says that a run's table, which may
            look at more of them, has another estimate.
        split: Which examples they were.

    Raises:
        InputError: another number of edges than of bins and one.
    """
    if len(gammas) != len(rates) + 1 or len(errors) != len(rates):
        raise refuse("gammas", f"{len(rates) + 1} edges of {len(rates)} bins", len(gammas))
    scale = 1 / (num_dims * math.log(2))
    edges, bits, spread = (t.double().numpy() for t in (gammas, rates * scale, errors * scale))
    title = "Where the bits go"
    if num_examples is not None:
        title += f": on {num_examples:,} {split} examples, another estimate than the table's"
    figure = titled_figure(title, 9.2, 3.8)
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
    # Bins are equal shares of time: where t runs, as far as γ says it.
    times = np.linspace(0, 1, len(edges))
    ways = (lambda g: np.interp(g, edges, times), lambda t: np.interp(t, times, edges))
    above = ax.secondary_xaxis("top", functions=ways)
    above.tick_params(labelsize=7, colors=GREY, length=2, pad=1)
    above.spines["top"].set_visible(False)
    above.set_xlabel("t", fontsize=8, color=GREY)


def _terms(ax: Axes, reconstruction: float, diffusion: float, prior: float) -> None:
    """The three terms as bars, with their numbers."""
    names, values = ["clean end", "denoising", "noisy end"], [reconstruction, diffusion, prior]
    ax.bar(names, values, color=[DATA, MODEL, MARK], width=0.6)
    for place, value in enumerate(values):
        ax.text(place, max(value, 0.0), f"{value:.4f}", ha="center", va="bottom", fontsize=8)
    dress(ax, f"The three terms: {sum(values):.3f} bits/dim")


def denoising_figure(frames: Tensor, gammas: Tensor, support: Support) -> Figure:
    """Draws on their way from noise to data, as the denoiser sees them.

    Args:
        frames: x̂ at S levels, (N, S, *event), images or volumes; a row of the figure is a draw.
        gammas: Their −log SNR, falling, (S,).
        support: Of the data.

    Raises:
        InputError: Another number of levels than of frames.
    """
    steps, event_shape = frames.shape[1], frames.shape[2:]
    if len(gammas) != steps:
        raise refuse("gammas", f"{steps} levels, one per frame", len(gammas))
    grid = image_grid(shared_grey(frames.flatten(0, 1), support, frames[:, -1]), steps)
    title = "From noise to data" + shown_part(event_shape)
    panel = "What the denoiser takes for x; at the right the draw"
    figure, (ax,) = image_panels(title, {panel: grid}, bottom=76)
    cell = grid.shape[1] / steps
    ax.set_xticks([cell * (i + 0.5) for i in range(steps)], _distinct(gammas.tolist()))
    ax.set_xlabel("γ = −log SNR", fontsize=9, color=INK)
    return figure


def _distinct(gammas: Sequence[float]) -> list[str]:
    """Levels with one decimal; nothing where the one before reads the same."""
    said = [true_minus(f"{round(g, 1) + 0.0:.1f}") for g in gammas]  # + 0: no minus zero
    return [text if i == 0 or text != said[i - 1] else "" for i, text in enumerate(said)]
