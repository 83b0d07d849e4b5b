"""Convolutional encoder and decoder between an image and a grid of vectors.

The image is halved (rounding up) a given number of times, and its channels doubled; what is left
are places of the grid, each with a vector of its own. The decoder walks the same sizes back. All
residual blocks are at the grid, where they are cheap: a step from size to size is one convolution.

References:
    van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.nn.conv import ConvBlock

__all__ = ["GridDecoder", "GridEncoder", "grid_sides"]

MAX_WIDENING = 4


def grid_sides(size: Sequence[int], halvings: int) -> list[tuple[int, int]]:
    """Sides of an image (H, W) that is halved so often, from the full one down.

    >>> grid_sides((28, 27), 2)
    [(28, 27), (14, 14), (7, 7)]
    """
    sides = [(size[0], size[1])]
    for _ in range(halvings):
        height, breadth = sides[-1]
        sides.append(((height + 1) // 2, (breadth + 1) // 2))
    return sides


def _channels(width: int, halvings: int) -> list[int]:
    return [min(2**i, MAX_WIDENING) * width for i in range(halvings + 1)]


def _blocks(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(ConvBlock(channels) for _ in range(depth)))


class GridEncoder(nn.Module):
    """Image to vectors at places: (N, C, H, W) -> (N, P · size), place by place, row by row.

    Args:
        image_shape: (C, H, W).
        size: numbers per place.
        halvings: how often the sides are halved.
        width: channels at full size; at most four times as many further down.
        depth: residual blocks at the grid.
    """

    def __init__(
        self, image_shape: Sequence[int], size: int, *, halvings: int, width: int, depth: int
    ) -> None:
        super().__init__()
        channels = _channels(width, halvings)
        stride, layers = 2 if halvings else 1, list[nn.Module]()
        for before, after in pairwise([image_shape[0], *(channels[1:] or channels)]):
            layers += [nn.SiLU(), nn.Conv2d(before, after, 5, stride, padding=2)]
        layers += [_blocks(channels[-1], depth), nn.SiLU(), nn.Conv2d(channels[-1], size, 1)]
        self.body = nn.Sequential(*layers[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, P · size)."""
        vectors: Tensor = self.body(x).flatten(2).mT.flatten(1)
        return vectors


class GridDecoder(nn.Module):
    """Vectors at places to image: (N, P · size) -> (N, channels, H, W).

    Args:
        size: numbers per place.
        image_shape: (channels, H, W) of the output.
        halvings: how often its sides are halved to those of the grid.
        width: channels at full size.
        depth: residual blocks at the grid.
    """

    def __init__(
        self, size: int, image_shape: Sequence[int], *, halvings: int, width: int, depth: int
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        self.size, self.sides = size, grid_sides((height, breadth), halvings)[::-1]
        widths = _channels(width, halvings)[::-1]
        self.first = nn.Conv2d(size, widths[0], 3, padding=1)
        self.blocks = _blocks(widths[0], depth)
        # Four times the channels at one size, which are shuffled into the next.
        self.steps = nn.ModuleList(
            nn.Conv2d(before, 4 * after, 3, padding=1) for before, after in pairwise(widths)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, P · size) -> (N, channels, H, W)."""
        vectors = z.unflatten(1, (-1, self.size)).mT.unflatten(2, self.sides[0])
        h = F.silu(self.blocks(self.first(vectors)))
        for step, (height, breadth) in zip(self.steps, self.sides[1:], strict=True):
            h = F.silu(F.pixel_shuffle(step(h), 2)[..., :height, :breadth])
        return self.last(h)
