"""The figure of the codes: which are used how often, and where they lie in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lowerbound.distributions import Support
from lowerbound.plots.images import displayable
from lowerbound.plots.style import MARK, MODEL, dress, titled_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["codes_figure"]


def codes_figure(
    usage: Tensor,
    x: Tensor | None = None,
    maps: Tensor | None = None,
    support: Support | None = None,
) -> Figure:
    """How often each code is used, the most frequent first, above examples and their codes.

    Args:
        usage: Share of each code in each codebook (M, n).
        x: Example images (N, C, H, W), or none.
        maps: Codes of their places (N, rows, columns), as many.
        support: What values the images take.
    """
    num, columns = usage.shape[1], 1 if x is None else len(x)
    figure = titled_figure("How the codes are used", 7.4, 3.2 if x is None else 5.6)
    grid = figure.add_gridspec(1 if x is None else 3, columns, height_ratios=_heights(x))
    ax = figure.add_subplot(grid[0, :])
    for share in usage.double():
        height = share.sort(descending=True).values / share.sum().clamp_min(1e-12)
        ax.step(range(num), height.numpy(), where="mid", color=MODEL, linewidth=1.2)
    ax.axhline(1 / num, color=MARK, linestyle="--", linewidth=0.9)
    ax.set_ylim(bottom=0)
    dress(ax, f"{num} codes, the most frequent first", "code", "share of the places")
    if x is None or maps is None or support is None:
        return figure
    for i, (image, codes) in enumerate(zip(displayable(x, support), maps, strict=True)):
        for row, shown in ((1, image), (2, codes)):
            ax = figure.add_subplot(grid[row, i])
            if row == 1:
                ax.imshow(shown.movedim(0, -1).numpy(), cmap="gray", vmin=0, vmax=1)
            else:
                ax.imshow(shown.numpy(), cmap="nipy_spectral", vmin=0, vmax=num - 1)
            ax.axis("off")
    return figure


def _heights(x: Tensor | None) -> list[float]:
    """Of the rows: the curve, and under it images and their maps."""
    return [1.0] if x is None else [1.4, 1.0, 1.0]
