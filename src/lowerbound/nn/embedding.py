"""Embeddings: what a network is told beside its input, as numbers it can add up.

A class is a row of a table, a vector goes through a small network, a partly observed array through
any network that takes one. Each has something to say where nothing is known, which is learned too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = [
    "ClassEmbedding",
    "Embedding",
    "Joined",
    "JoinedPlaces",
    "MaskEmbedding",
    "VectorEmbedding",
]


class Embedding(nn.Module, ABC):
    """Base of embeddings (B, …) -> (B, size)."""

    size: int

    @abstractmethod
    def measure(self, context: Tensor) -> None:
        """Measure on training contexts (N, …) what must be known of their scale or frequency."""

    @abstractmethod
    def forward(self, context: Tensor) -> Tensor:
        """(B, …) -> (B, size)."""


class ClassEmbedding(Embedding):
    """Class indices (B,) -> (B, size): a learned row per class, and one for a class not known.

    Args:
        num_classes: n; the index n is the class that is not known.
        size: numbers per class.
    """

    frequencies: Tensor

    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        self.size, self.table = size, nn.Embedding(num_classes + 1, size)
        self.register_buffer("frequencies", torch.full((num_classes,), 1 / num_classes))

    def measure(self, context: Tensor) -> None:
        """Count how often each class occurs; nothing is known of a class that is not known."""
        counts = torch.bincount(context, minlength=len(self.frequencies))[: len(self.frequencies)]
        if counts.any():
            self.frequencies.copy_(counts / counts.sum())

    def forward(self, context: Tensor) -> Tensor:
        """(B,) -> (B, size)."""
        rows: Tensor = self.table(context.long())
        return rows


class VectorEmbedding(Embedding):
    """Vectors (B, num_inputs) -> (B, size): standardised, linear, SiLU, linear.

    Where a vector holds a NaN its embedding is that of a vector not known.

    Args:
        num_inputs: numbers per vector.
        size: numbers per embedding.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, num_inputs: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(num_inputs, size), nn.SiLU(), nn.Linear(size, size))
        self.unknown = nn.Parameter(torch.zeros(size))
        self.register_buffer("shift", torch.zeros(num_inputs))
        self.register_buffer("scale", torch.ones(num_inputs))

    def measure(self, context: Tensor) -> None:
        """Center and width of each number; 1 for one that never changes."""
        context = context.double()[~context.isnan().any(1)]
        if not len(context):
            return
        spread = context.std(0, correction=0)
        self.shift.copy_(context.mean(0))
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))

    def forward(self, context: Tensor) -> Tensor:
        """(B, num_inputs) -> (B, size)."""
        known = ~context.isnan().any(1, keepdim=True)
        standardized = (context.to(self.shift.dtype) - self.shift) / self.scale
        return torch.where(known, self.layers(standardized.nan_to_num()), self.unknown)


class MaskEmbedding(Embedding):
    """Partly observed arrays (B, 2, *event) -> (B, size); all-zero masks are nothing observed.

    Args:
        network: (B, 2 · first axis, *other axes) -> (B, size), of the standardised values, 0
            where they are not observed, and of the mask behind them along the first axis.
        event_shape: shape of one array.
        size: numbers per embedding.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, event_shape: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.size, self.network = size, network
        unit_shape = (event_shape[0],) + (1,) * (len(event_shape) - 1)
        self.register_buffer("shift", torch.zeros(unit_shape))
        self.register_buffer("scale", torch.ones(unit_shape))

    def measure(self, context: Tensor) -> None:
        """Center and width of what is observed, along the first axis."""
        x, mask = context.double().unbind(1)
        axes = [0, *range(2, x.ndim)]
        count = mask.sum(axes).clamp_min(1)
        x = torch.where(mask != 0, x, 0.0)
        mean = x.sum(axes) / count
        variance = x.square().sum(axes) / count - mean.square()
        spread = variance.clamp_min(0).sqrt()
        self.shift.copy_(mean.reshape(self.shift.shape))
        self.scale.copy_(torch.where(spread > 0, spread, 1.0).reshape(self.shift.shape))

    def forward(self, context: Tensor) -> Tensor:
        """(B, 2, *event) -> (B, size)."""
        x, mask = context.to(self.shift.dtype).unbind(1)
        observed = torch.where(mask != 0, (x - self.shift) / self.scale, 0.0)
        embedded: Tensor = self.network(torch.cat([observed, mask], 1))
        return embedded


class Joined(nn.Module):
    """A network that sees an embedding behind its input: (N, *shape), (N, E) -> its output.

    Args:
        network: takes E numbers more per input; E constant channels more of an array.
        is_flat: the network takes vectors: arrays are flattened before they are joined.
    """

    def __init__(self, network: nn.Module, *, is_flat: bool) -> None:
        super().__init__()
        self.network, self.is_flat = network, is_flat

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Join along the first axis behind the batch."""
        x = x.flatten(1) if self.is_flat else x
        channels = embedded.reshape(*embedded.shape, *(1,) * (x.ndim - 2))
        joined = torch.cat([x, channels.to(x.dtype).expand(-1, -1, *x.shape[2:])], 1)
        result: Tensor = self.network(joined)
        return result


class JoinedPlaces(nn.Module):
    """A network of P vectors that sees an embedding behind each: (N, P · d), (N, E) -> its output.

    Args:
        network: takes P · (d + E) numbers, place by place.
        num_places: P.
    """

    def __init__(self, network: nn.Module, num_places: int) -> None:
        super().__init__()
        self.network, self.num_places = network, num_places

    def forward(self, z: Tensor, embedded: Tensor) -> Tensor:
        """Join at every place."""
        places = z.unflatten(1, (self.num_places, -1))
        told = embedded.to(z.dtype).unsqueeze(1).expand(-1, self.num_places, -1)
        result: Tensor = self.network(torch.cat([places, told], 2).flatten(1))
        return result
