"""A network whose i-th outputs see only the inputs before i: masks on the weights.

Every hidden unit has a number k, and sees inputs of index below k and hidden units of numbers up
to k; the outputs of index i see hidden units of numbers up to i. The numbers go round from 0 to
d − 1: units of number 0 see the context alone, so that output 0 is a function of it.

References:
    Germain, Gregor, Murray and Larochelle, MADE: Masked Autoencoder for Distribution Estimation,
    2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MaskedMlp"]


class MaskedLinear(nn.Linear):
    """A linear layer of which only some weights are there.

    Args:
        mask: (num_outputs, num_inputs), true where there is a weight.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, num_inputs) -> (…, num_outputs)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedMlp(nn.Module):
    """Two hidden layers with SiLU: (…, d) -> two tensors (…, d), the i-th entries of x_<i alone.

    The last layer starts at zero.

    Args:
        num_inputs: d.
        num_context: numbers of a context that every output sees; 0 for none.
        width: hidden units per layer, at least d of them, so that every number occurs.
    """

    def __init__(self, num_inputs: int, num_context: int = 0, *, width: int) -> None:
        super().__init__()
        index = torch.arange(num_inputs)
        number = torch.arange(max(width, num_inputs)) % num_inputs
        self.first = MaskedLinear(index[None, :] < number[:, None])
        self.beside = nn.Linear(num_context, len(number), bias=False) if num_context else None
        self.second = MaskedLinear(number[None, :] <= number[:, None])
        self.last = MaskedLinear(number[None, :] <= index.repeat(2)[:, None])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs (…, d), and contexts (…, num_context) that broadcast to them."""
        h = self.first(x)
        if self.beside is not None:
            h = h + self.beside(context)
        h = self.second(F.silu(h))
        one, two = self.last(F.silu(h)).chunk(2, dim=-1)
        return one, two
