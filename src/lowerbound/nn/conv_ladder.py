"""A ladder of convolutions: its rungs are spread over the sizes of an image that is halved.

Odd sides are rounded up on the way to smaller images; on the way back each image grows to the size
that it had. Where the largest latents have a place for each patch of several pixels, the full size
is reached by trading channels for places.

References:
    Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import shown_shape
from lowerbound.errors import refuse
from lowerbound.nn.doubling import doubled
from lowerbound.nn.ladder import Ladder, Rung

__all__ = ["ConvLadder", "image_sizes", "spread", "usual_patch"]

SMALLEST_SIDE = 7
LARGEST_AT_FULL_SIZE = 14  # larger images begin at half their size, by patches of two by two
Size = tuple[int, int]


class ConvLadder(Ladder):
    """A ladder of convolutions: (B, C, H, W) to (N, num_outputs · C, H, W).

    Args:
        image_shape: (C, H, W), any sides.
        num_outputs: numbers per element of the image.
        levels: L, spread over the sizes, more of them where the image is small.
        latent_dim: channels of the latents at every place.
        width: channels at the largest of the sizes; twice as many at the others.
        depth: blocks per rung, up and down.
        scales: how many sizes; what the image allows unless said.
        patch: pixels a side for one place of the largest size; 2 unless said, 1 for small images.
        num_context: E, numbers of the embedding that is told; 0 for none.

    Raises:
        InputError: more levels or more sizes than the image has room for.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_outputs: int,
        levels: int,
        latent_dim: int,
        *,
        width: int,
        depth: int,
        scales: int | None = None,
        patch: int | None = None,
        num_context: int = 0,
    ) -> None:
        channels, height, breadth = image_shape
        self.full = height, breadth
        self.patch = usual_patch(self.full) if patch is None else patch
        sizes = image_sizes(self.full, scales, levels, self.patch)
        own = spread(sizes, levels)
        super().__init__([(latent_dim, *size) for size in own])
        # The stem and its mirror: between the image and the largest size of latents.
        side = 2 * self.patch + 1
        self.first = nn.Conv2d(channels, width, side, self.patch, padding=self.patch)
        fine = width if self.patch == 1 else max(4, 4 * width // self.patch**2)
        self.wide = nn.Conv2d(width, fine * self.patch**2, 3, padding=1)
        self.last = nn.Conv2d(fine, num_outputs * channels, 3, padding=1)
        # Rungs, and the steps from the one below, in size and in channels.
        widths = [width if size == sizes[0] else 2 * width for size in own]
        self.rungs: Any = nn.ModuleList(Rung(w, latent_dim, depth, is_conv=True) for w in widths)
        self.below = [sizes[0], *own[:-1]]
        pairs = list(zip([width, *widths[:-1]], widths, strict=True))
        is_step = [a != b for a, b in zip(self.below, own, strict=True)]
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for (low, high), differs in zip(pairs, is_step, strict=True):
            down = nn.Conv2d(low, high, 3, stride=2, padding=1)
            self.shrink.append(down if differs else nn.Identity())
            self.grow.append(nn.Conv2d(high, low, 1) if differs else nn.Identity())
        self.top = nn.Parameter(torch.zeros(1, widths[-1], *own[-1]))
        self.listen(num_context, [width, *widths])

    def features(self, x: Tensor, *beside: Tensor) -> list[Tensor]:
        """See `Ladder.features`; they are already mixed as the offsets need them."""
        f, found = self.heard(0, self.first(x), *beside), []
        for rung, shrink in zip(self.rungs, self.shrink, strict=True):
            f = rung.up(shrink(f))
            found.append(rung.seen(f))
        return found

    def start(self, num: int) -> Tensor:
        """See `Ladder.start`."""
        return self.top.expand(num, -1, -1, -1)

    def prior(self, rung: int, h: Tensor) -> Tensor:
        """See `Ladder.prior`."""
        return self.rungs[rung - 1].prior_at(h)

    def offset(self, rung: int, h: Tensor, features: Tensor) -> Tensor:
        """See `Ladder.offset`."""
        return self.rungs[rung - 1].offset_at(h, features)

    def descend(self, rung: int, h: Tensor, z: Tensor) -> Tensor:
        """See `Ladder.descend`; h grows to the size of the rung below."""
        h = self.grow[rung - 1](self.rungs[rung - 1].below(h, z))
        size = self.below[rung - 1]
        return h if tuple(h.shape[2:]) == size else doubled(h, size)

    def output(self, h: Tensor) -> Tensor:
        """See `Ladder.output`."""
        h = self.wide(F.silu(h))
        if self.patch > 1:
            h = F.pixel_shuffle(h, self.patch)[..., : self.full[0], : self.full[1]]
        return self.last(F.silu(h))


def usual_patch(full: Size) -> int:
    """Pixels a side for one place of the largest latents: 2 for sides above fourteen, else 1."""
    return 1 if max(full) <= LARGEST_AT_FULL_SIZE else 2


def image_sizes(full: Size, scales: int | None, levels: int, patch: int) -> list[Size]:
    """The sizes of an image that latents have, the largest first.

    The first has a place for each patch, rounded up; each is half the one before, rounded up, and
    the last has no side above seven, unless ``scales`` says how many.

    >>> image_sizes((28, 28), None, 5, patch=2), image_sizes((9, 5), None, 5, patch=1)
    ([(14, 14), (7, 7)], [(9, 5), (5, 3)])

    Raises:
        InputError: more sizes or more levels than there is room for.
    """
    if not 1 <= patch <= max(full):
        raise refuse("patch", f"from 1 to {max(full)} on {shown_shape(full)} images", patch)
    size = -(-full[0] // patch), -(-full[1] // patch)
    sizes = [size]
    while max(size) > 1:
        size = _half(size)
        sizes.append(size)
    usual = 1 + sum(max(s) > SMALLEST_SIDE for s in sizes)
    remedy = "use fewer, or larger images"
    if scales is not None and not 1 <= scales <= min(len(sizes), levels):
        room = min(len(sizes), levels)
        required = f"from 1 to {room} for {levels} levels on {shown_shape(full)} images"
        raise refuse("scales", required, scales, remedy)
    sizes = sizes[: min(scales or usual, levels)]
    room = sum(max(s) for s in sizes)
    if levels > room:
        raise refuse("levels", f"at most {room} on {shown_shape(full)} images", levels, remedy)
    return sizes


def spread(sizes: Sequence[Size], levels: int) -> list[Size]:
    """Which size each of the levels 1 … L has: as even as can be, smaller ones get the rest.

    No size has more levels than pixels on its longer side.

    >>> spread([(14, 14), (7, 7)], 5)
    [(14, 14), (14, 14), (7, 7), (7, 7), (7, 7)]
    """
    counts = [0] * len(sizes)
    for _ in range(levels):
        free = [i for i, size in enumerate(sizes) if counts[i] < max(size)]
        counts[min(free, key=lambda i: (counts[i], -i))] += 1
    return [size for size, count in zip(sizes, counts, strict=True) for _ in range(count)]


def _half(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2
