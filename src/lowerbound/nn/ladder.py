"""Networks of a ladder: a path that climbs from x to features, and one that descends to x.

    climbing       f_0 = first(x),   f_l = blocks(f_{l−1})                       for l = 1 … L
    descending     h_L = a learned constant,  h_{l−1} = blocks(h_l + W z_l)      for l = L … 1

Rung l reads two things off h_l: the parameters of a prior, and, together with f_l, those of an
offset from it. h is shared by both, so that what is learned of one serves the other. Branches end
in zeros: every block starts as the identity, every prior as N(0, I), and every offset as one that
sees the features alone. Blocks are normalised inside; h is not, nor is what is read off it: how
far z moves h is how sure the posterior is, and dividing it away was measured to slow learning.

A ladder is made of dense layers, for arrays of any shape (here), or of convolutions. Where it is
told of something beside x, as an embedding e, both paths hear it: f_0 = first(x) + V e, and
h_l + V_l e takes the place of h_l at every rung.

References:
    Sønderby et al., Ladder Variational Autoencoders, 2016.
    Vahdat and Kautz, NVAE: A Deep Hierarchical Variational Autoencoder, 2020.
    Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021:
    the shared path, and bottleneck blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements
from lowerbound.nn.hybrid import HybridDecoder

__all__ = ["Ladder", "MlpLadder", "Rung"]


class Ladder(nn.Module):
    """The promise of a ladder's network. Rungs are numbered 1 … L, rung 1 next to the data.

    Args:
        shapes: of the latents of rungs 1 … L, each (channels, …).
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = [tuple(shape) for shape in shapes]
        self.listeners: nn.ModuleList | None = None  # V and V_1 … V_L

    def listen(self, num_context: int, widths: Sequence[int]) -> None:
        """Hear an embedding of ``num_context`` numbers, 0 for none, from now on.

        Args:
            num_context: E.
            widths: sizes, or channels, of f_0 and of h_1 … h_L.
        """
        if num_context:
            self.listeners = nn.ModuleList(nn.Linear(num_context, width) for width in widths)

    def heard(self, rung: int, h: Tensor, *beside: Tensor) -> Tensor:
        """h_l (N, …), or f_0 at rung 0, with what is said of an embedding (N, E) added to it."""
        if self.listeners is None:
            return h
        said: Tensor = self.listeners[rung](*beside)
        return h + said.reshape(*said.shape, *(1,) * (h.ndim - 2))

    def features(self, x: Tensor, *beside: Tensor) -> list[Tensor]:
        """What each rung sees of x (B, *event) and an embedding (B, E): f_1 … f_L, each (B, …)."""
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
        self.up = nn.Sequential(*(block(width) for _ in range(depth)))
        self.down = nn.Sequential(*(block(width) for _ in range(depth)))
        self.prior = zeroed(mix(width, 2 * latent_dim))
        self.from_h, self.from_features = mix(width, width), mix(width, width)
        self.offset = zeroed(mix(width, 2 * latent_dim))
        self.direct = mix(width, 2 * latent_dim)
        self.merge = mix(latent_dim, width)

    def seen(self, f: Tensor) -> Tensor:
        """Features (B, …) as `offset_at` needs them: to be mixed with h, and as they are."""
        f = F.silu(f)
        return torch.cat([self.from_features(f), self.direct(f)], 1)

    def prior_at(self, h: Tensor) -> Tensor:
        """See `Ladder.prior`."""
        raw: Tensor = self.prior(F.silu(h))
        return raw

    def offset_at(self, h: Tensor, features: Tensor) -> Tensor:
        """See `Ladder.offset`; h (M·B, …) has M ways for each of the features (B, …)."""
        seen, direct = features.split([h.shape[1], features.shape[1] - h.shape[1]], 1)
        mixed = self.from_h(F.silu(h)).unflatten(0, (-1, len(seen))) + seen
        raw = self.offset(F.silu(mixed.flatten(0, 1))).unflatten(0, (-1, len(seen))) + direct
        return raw.flatten(0, 1)

    def below(self, h: Tensor, z: Tensor) -> Tensor:
        """h_{l−1} at the size of this rung."""
        h = h + self.merge(z)
        return self.down(h)


class MlpLadder(Ladder):
    """A ladder of dense layers: (B, *event_shape) to num_outputs · event numbers.

    Args:
        event_shape: shape of one example; it is flattened.
        num_outputs: numbers per element of the event.
        latent_dims: of rungs 1 … L.
        width: size of h.
        depth: blocks per rung, up and down.
        has_brush: images only: h_0 is drawn by a `HybridDecoder`, and not by one dense layer.
        num_context: E, numbers of the embedding that is told; 0 for none.
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
        num_context: int = 0,
    ) -> None:
        super().__init__([(d,) for d in latent_dims])
        size = num_elements(event_shape)
        self.first = nn.Linear(size, width)
        self.rungs: Any = nn.ModuleList(Rung(width, d, depth, is_conv=False) for d in latent_dims)
        self.top = nn.Parameter(torch.zeros(1, width))
        if has_brush:
            image = (num_outputs * event_shape[0], *event_shape[1:])
            self.last: nn.Module = HybridDecoder(width, image, width=width, depth=0)
        else:
            self.last = nn.Linear(width, num_outputs * size)
        self.listen(num_context, [width] * (1 + len(latent_dims)))

    def features(self, x: Tensor, *beside: Tensor) -> list[Tensor]:
        """See `Ladder.features`; they are already mixed as the offsets need them."""
        f, found = self.heard(0, self.first(x.flatten(1)), *beside), []
        for rung in self.rungs:
            f = rung.up(f)
            found.append(rung.seen(f))
        return found

    def start(self, num: int) -> Tensor:
        """See `Ladder.start`."""
        return self.top.expand(num, -1)

    def prior(self, rung: int, h: Tensor) -> Tensor:
        """See `Ladder.prior`."""
        return self.rungs[rung - 1].prior_at(h)

    def offset(self, rung: int, h: Tensor, features: Tensor) -> Tensor:
        """See `Ladder.offset`."""
        return self.rungs[rung - 1].offset_at(h, features)

    def descend(self, rung: int, h: Tensor, z: Tensor) -> Tensor:
        """See `Ladder.descend`."""
        return self.rungs[rung - 1].below(h, z)

    def output(self, h: Tensor) -> Tensor:
        """See `Ladder.output`."""
        return self.last(F.silu(h))


def zeroed(layer: nn.Module) -> nn.Module:
    """A layer whose output is zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)
