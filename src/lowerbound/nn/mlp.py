"""Multi-layer perceptrons with residual blocks: h ← h + W₂ φ(W₁ φ(h))."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements

__all__ = ["Mlp"]


class ResidualBlock(nn.Module):
    """Two linear layers beside an identity; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(N, width) -> (N, width)."""
        return h + self.outer(F.silu(self.inner(F.silu(h))))


class Mlp(nn.Module):
    """Linear, ``depth`` residual blocks, SiLU, linear: (N, *input_shape) -> (N, num_outputs).

    Args:
        input_shape: shape of one input; it is flattened.
        num_outputs: numbers per output.
        width: size of the hidden layer.
        depth: number of residual blocks; 0 is the classical single hidden layer.
    """

    def __init__(
        self, input_shape: Sequence[int], num_outputs: int, *, width: int, depth: int
    ) -> None:
        super().__init__()
        self.first = nn.Linear(num_elements(input_shape), width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.last = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, *input_shape) -> (N, num_outputs)."""
        h = self.first(x.flatten(1))
        return self.last(F.silu(self.blocks(h)))
