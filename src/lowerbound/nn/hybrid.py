"""A decoder for small images: an MLP that decides what is where, and one brush for every place.

The MLP gives features to each cell of a grid, a cell being four by four pixels. A small network,
the same for all cells, turns the features into a window of eight by eight pixels around the cell,
and overlapping windows are added. Strokes are learned once instead of once per pixel, so that the
decoder fits faster than one whose last layer is dense; all of it is matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.nn.mlp import Mlp

__all__ = ["HybridDecoder"]

CELL = 4  # pixels a side; a window is twice as wide, so that each pixel is drawn by four cells


class HybridDecoder(nn.Module):
    """Numbers to image: (N, num_inputs) -> (N, channels, H, W).

    Args:
        num_inputs: numbers per input.
        image_shape: (channels, H, W) of the output; any sides, what lies over is cut off.
        width: hidden units of the MLP; a cell has a sixteenth as many features.
        depth: residual blocks of the MLP.
    """

    def __init__(
        self, num_inputs: int, image_shape: Sequence[int], *, width: int, depth: int
    ) -> None:
        super().__init__()
        self.channels, self.height, self.breadth = image_shape
        self.features = max(4, width // 16)
        self.grid = (-(-self.height // CELL), -(-self.breadth // CELL))
        num_features = self.grid[0] * self.grid[1] * self.features
        self.body = Mlp((num_inputs,), num_features, width=width, depth=depth)
        self.brush = nn.Sequential(
            nn.Linear(self.features, 2 * self.features),
            nn.SiLU(),
            nn.Linear(2 * self.features, 4 * CELL**2 * self.channels),
        )
        self.bias = nn.Parameter(torch.zeros(*image_shape))

    def forward(self, z: Tensor) -> Tensor:
        """(N, num_inputs) -> (N, channels, H, W)."""
        cells = F.silu(self.body(z)).reshape(len(z), *self.grid, self.features)
        # A window has an upper and a lower half, and a left and a right one.
        windows = self.brush(cells).unflatten(-1, (2, CELL, self.channels, 2 * CELL))
        rows = _overlapping(windows[:, :, :, 0], windows[:, :, :, 1], dim=1)
        grid = _overlapping(rows[..., :CELL], rows[..., CELL:], dim=2)
        image = grid.permute(0, 4, 1, 3, 2, 5).flatten(4, 5).flatten(2, 3)
        # The outer half cell on each side belongs to no pixel.
        top, left = slice(CELL // 2, CELL // 2 + self.height), CELL // 2
        return image[..., top, left : left + self.breadth] + self.bias


def _overlapping(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Sum of two halves of which the second begins a cell later along ``dim``."""
    untouched = [0, 0] * (first.ndim - dim - 1)
    return F.pad(first, [*untouched, 0, 1]) + F.pad(second, [*untouched, 1, 0])
