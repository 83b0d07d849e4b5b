"""Fourier features: the fine detail of noisy values, where a network can see it.

A network is smooth, and levels of a pixel that lie next to one another are nearly the same number
to it. Sines and cosines of high frequency tell them apart: with 256 levels between −1 and 1, two
neighbours are 2/256 = 2⁻⁷ apart, and sin(2⁷ π z) changes by half a period between them.

References:
    Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021, appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lowerbound.errors import refuse

__all__ = ["FourierFeatures"]

LARGEST_EXPONENT = 20


class FourierFeatures(nn.Module):
    """z, and sin(2ⁿ π z), cos(2ⁿ π z) behind it: (N, C, …) -> (N, C · ratio, …).

    Args:
        exponents: each n; for K levels between −1 and 1 the finest useful one is near
            log₂((K − 1)/2), and VDM takes that one and the next. Without any, z stays as it is.

    Raises:
        InputError: an exponent that float32 cannot follow.
    """

    def __init__(self, exponents: Sequence[int]) -> None:
        super().__init__()
        self.exponents = tuple(exponents)
        for n in self.exponents:
            if not 0 <= n <= LARGEST_EXPONENT:
                raise refuse("exponents", f"from 0 to {LARGEST_EXPONENT}", n)

    @property
    def ratio(self) -> int:
        """Channels of the output per channel of the input."""
        return 1 + 2 * len(self.exponents)

    def forward(self, z: Tensor) -> Tensor:
        """(N, C, …) -> (N, C · ratio, …): z, all sines by exponent, all cosines by exponent."""
        if not self.exponents:
            return z
        # In halves the angles would be noise: 2⁷ π z needs more than their eight bits.
        precise = z if z.dtype == torch.float64 else z.float()
        angles = torch.cat([2**n * math.pi * precise for n in self.exponents], 1)
        return torch.cat([z, angles.sin().to(z.dtype), angles.cos().to(z.dtype)], 1)
