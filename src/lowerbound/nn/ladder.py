"""Networks of a ladder: a path that climbs from x to features, and one that descends to x.

    climbing       f_0 = first(x),   f_l = blocks(f_{l−1})                       for l = 1 … L
    descending     h_L = a learned constant,  h_{l−1} = blocks(h_l + W z_l)      for l = L … 1

Rung l reads two things off h_l: the parameters of a prior, and, together with f_l, those of an
offset from it. h is shared by both, so that what is learned of one serves the other. Branches end
in zeros: every block starts as the identity, every prior as N(0, I) and every offset as none.

A ladder is made of dense layers, for arrays of any shape, or of convolutions, whose rungs are
spread over the sizes that an image has when it is halved again and again.

References:
    Sønderby et al., Ladder Variational Autoencoders, 2016.
    Vahdat and Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, 2020.
    Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021:
    the shared path, and bottleneck blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements, shown_shape
from lowerbound.errors import refuse
from lowerbound.nn.hybrid import HybridDecoder

__all__ = ["ConvLadder", "Ladder", "MlpLadder", "image_sizes", "spread"]

SMALLEST_SIDE = 7
LARGEST_AT_FULL_SIZE = 14  # larger images begin at half their size
Size = tuple[int, int]


class Ladder(nn.Module):
    """The promise of a ladder's network. Rungs are numbered 1 … L, rung 1 next to the data.

    Args:
        shapes: of the latents of rungs 1 … L, each (channels, …).
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = [tuple(shape) for shape in shapes]

    def features(self, x: Tensor) -> list[Tensor]:
        """What each rung sees of x (B, *event): f_1 … f_L, each (B, …)."""
        raise NotImplementedError

    def start(self, num: int) -> Tensor:
        """h_L: (num, …)."""
        raise NotImplementedError

    def prior(self, rung: int, h: Tensor) -> Tensor:
        """Means and log-scales of the prior: (N, 2 · channels, …)."""
        raise NotImplementedError

    def offset(self, rung: int, h: Tensor, features: Tensor) -> Tensor:
        """Offsets of both for the posterior, given features (N, …): (N, 2 · channels, …)."""
        raise NotImplementedError

    def descend(self, rung: int, h: Tensor, z: Tensor) -> Tensor:
        """h_{l−1} from h_l and the latents (N, *shape) of the rung."""
        raise NotImplementedError

    def output(self, h: Tensor) -> Tensor:
        """h_0 to the outputs of a decoder, (N, …)."""
        raise NotImplementedError


class DenseBlock(nn.Module):
    """h + W₂ φ(W₁ norm(h)); starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor) -> Tensor:
        """(N, width) -> (N, width)."""
        return h + self.outer(F.silu(self.inner(self.norm(h))))


class ConvBlock(nn.Module):
    """As `DenseBlock`, of one 3×3 convolution between two of 1×1; half the channels inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // 2)
        self.norm = _group_norm(channels)
        self.first = nn.Conv2d(channels, inside, 1)
        self.middle = nn.Conv2d(inside, inside, 3, padding=1)
        self.last = zeroed(nn.Conv2d(inside, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        inside = F.silu(self.first(self.norm(h)))
        return h + self.last(F.silu(self.middle(inside)))


class Rung(nn.Module):
    """What one level is made of, of dense layers or of 1×1 convolutions.

    Args:
        width: size of h and of the features, or channels of both.
        latent_dim: numbers of the latent, or channels.
        depth: blocks on the way up, and as many on the way down.
        is_conv: whether h is an image.
    """

    def __init__(self, width: int, latent_dim: int, depth: int, *, is_conv: bool) -> None:
        super().__init__()

        def mix(num_inputs: int, num_outputs: int) -> nn.Module:
            if is_conv:
                return nn.Conv2d(num_inputs, num_outputs, 1)
            return nn.Linear(num_inputs, num_outputs)

        block = ConvBlock if is_conv else DenseBlock
        norm = _group_norm if is_conv else nn.LayerNorm
        self.up = nn.Sequential(*(block(width) for _ in range(depth)))
        self.down = nn.Sequential(*(block(width) for _ in range(depth)))
        self.norm, self.features_norm = norm(width), norm(width)
        self.prior = zeroed(mix(width, 2 * latent_dim))
        self.from_h, self.from_features = mix(width, width), mix(width, width)
        self.offset = zeroed(mix(width, 2 * latent_dim))
        self.merge = mix(latent_dim, width)


class MlpLadder(Ladder):
    """A ladder of dense layers: (B, *event_shape) to num_outputs · event numbers.

    Args:
        event_shape: shape of one example; it is flattened.
        num_outputs: numbers per element of the event.
        latent_dims: of rungs 1 … L.
        width: size of h.
        depth: blocks per rung, up and down.
        has_brush: images only: h_0 is drawn by a `HybridDecoder`, and not by one dense layer.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_outputs: int,
        latent_dims: Sequence[int],
        *,
        width: int,
        depth: int,
        has_brush: bool = False,
    ) -> None:
        super().__init__([(d,) for d in latent_dims])
        size = num_elements(event_shape)
        self.first = nn.Linear(size, width)
        self.rungs = nn.ModuleList(Rung(width, d, depth, is_conv=False) for d in latent_dims)
        self.top = nn.Parameter(torch.zeros(1, width))
        self.norm = nn.LayerNorm(width)
        if has_brush:
            image = (num_outputs * event_shape[0], *event_shape[1:])
            self.last: nn.Module = HybridDecoder(width, image, width=width, depth=0)
        else:
            self.last = nn.Linear(width, num_outputs * size)

    def features(self, x: Tensor) -> list[Tensor]:
        """See `Ladder.features`; they are already mixed as the offsets need them."""
        f, found = self.first(x.flatten(1)), []
        for rung in self.rungs:
            f = rung.up(f)
            found.append(rung.from_features(rung.features_norm(f)))
        return found

    def start(self, num: int) -> Tensor:
        """See `Ladder.start`."""
        return self.top.expand(num, -1)

    def prior(self, rung: int, h: Tensor) -> Tensor:
        """See `Ladder.prior`."""
        return _prior(self.rungs[rung - 1], h)

    def offset(self, rung: int, h: Tensor, features: Tensor) -> Tensor:
        """See `Ladder.offset`."""
        return _offset(self.rungs[rung - 1], h, features)

    def descend(self, rung: int, h: Tensor, z: Tensor) -> Tensor:
        """See `Ladder.descend`."""
        part = self.rungs[rung - 1]
        return part.down(h + part.merge(z))

    def output(self, h: Tensor) -> Tensor:
        """See `Ladder.output`."""
        return self.last(F.silu(self.norm(h)))


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
    ) -> None:
        channels, *full = image_shape
        sizes = image_sizes((full[0], full[1]), scales, levels)
        self.sizes = spread(sizes, levels)
        super().__init__([(latent_dim, *size) for size in self.sizes])
        self.full = (full[0], full[1])
        self.is_halved = sizes[0] != self.full
        self.widths = [width if size == sizes[0] else 2 * width for size in self.sizes]
        self.first = nn.Conv2d(
            channels,
            width,
            5 if self.is_halved else 3,
            2 if self.is_halved else 1,
            "same" if not self.is_halved else 2,
        )
        self.rungs = nn.ModuleList(Rung(w, latent_dim, depth, is_conv=True) for w in self.widths)
        below = [width, *self.widths[:-1]]
        before = [sizes[0], *self.sizes[:-1]]
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for old, w_old, new, w_new in zip(before, below, self.sizes, self.widths, strict=True):
            steps = _halvings(old, new)
            self.shrink.append(
                nn.Sequential(
                    *(
                        nn.Conv2d(w_old if i == 0 else w_new, w_new, 3, stride=2, padding=1)
                        for i in range(steps)
                    )
                )
            )
            self.grow.append(nn.Conv2d(w_new, w_old, 1) if steps else nn.Identity())
        self.before = before
        self.top = nn.Parameter(torch.zeros(1, self.widths[-1], *self.sizes[-1]))
        self.norm = _group_norm(width)
        self.wide = nn.Conv2d(width, 4 * width if self.is_halved else width, 3, padding=1)
        self.last = nn.Conv2d(width, num_outputs * channels, 3, padding=1)

    def features(self, x: Tensor) -> list[Tensor]:
        """See `Ladder.features`; they are already mixed as the offsets need them."""
        f, found = self.first(x), []
        for rung, shrink in zip(self.rungs, self.shrink, strict=True):
            f = rung.up(shrink(f))
            found.append(rung.from_features(rung.features_norm(f)))
        return found

    def start(self, num: int) -> Tensor:
        """See `Ladder.start`."""
        return self.top.expand(num, -1, -1, -1)

    def prior(self, rung: int, h: Tensor) -> Tensor:
        """See `Ladder.prior`."""
        return _prior(self.rungs[rung - 1], h)

    def offset(self, rung: int, h: Tensor, features: Tensor) -> Tensor:
        """See `Ladder.offset`."""
        return _offset(self.rungs[rung - 1], h, features)

    def descend(self, rung: int, h: Tensor, z: Tensor) -> Tensor:
        """See `Ladder.descend`; h grows to the size of the rung below."""
        part = self.rungs[rung - 1]
        h = self.grow[rung - 1](part.down(h + part.merge(z)))
        size = self.before[rung - 1]
        return h if tuple(h.shape[2:]) == size else F.interpolate(h, size=size, mode="nearest")

    def output(self, h: Tensor) -> Tensor:
        """See `Ladder.output`."""
        h = self.wide(F.silu(self.norm(h)))
        if self.is_halved:
            h = F.pixel_shuffle(h, 2)[..., : self.full[0], : self.full[1]]
        return self.last(F.silu(h))


def image_sizes(full: Size, scales: int | None, levels: int) -> list[Size]:
    """The sizes of an image that latents have, the largest first.

    Images of more than fourteen pixels begin at half their sides; each size is half the one
    before, rounded up, and the last has no side above seven, unless ``scales`` says how many.

    >>> image_sizes((28, 28), None, 5), image_sizes((9, 5), None, 5)
    ([(14, 14), (7, 7)], [(9, 5), (5, 3)])

    Raises:
        InputError: more sizes or more levels than there is room for.
    """
    size = full if max(full) <= LARGEST_AT_FULL_SIZE else _half(full)
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


def zeroed(layer: nn.Module) -> nn.Module:
    """A layer whose output is zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _prior(rung: nn.Module, h: Tensor) -> Tensor:
    return rung.prior(rung.norm(h))  # type: ignore[operator, no-any-return]


def _offset(rung: nn.Module, h: Tensor, features: Tensor) -> Tensor:
    """Of one draw per example or of several: h (M·B, …), features (B, …) are mixed but once."""
    mixed = rung.from_h(rung.norm(h))  # type: ignore[operator]
    mixed = mixed.unflatten(0, (-1, len(features))) + features
    return rung.offset(F.silu(mixed.flatten(0, 1)))  # type: ignore[operator, no-any-return]


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)


def _half(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _halvings(old: Size, new: Size) -> int:
    count = 0
    while old != new:
        old, count = _half(old), count + 1
    return count
