"""How a learned interior of a schedule follows the variance of an estimate, in one pass backward.

A draw i depends on the interior by two numbers alone, s(t_i) and s'(t_i), which no other draw
sees. Scaling the gradient behind them by the draw's own rate L_i turns that of Σ L_i into that of
½ Σ L_i², and moves nothing else.

References:
    Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021, appendix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound._parallel import global_mean

__all__ = ["VarianceFactor"]


class VarianceFactor:
    """A hook that scales the gradient of each draw by its rate, over the mean of all rates.

    The gradient of Σ L_i becomes that of Σ ½ L_i²/mean. With the mean of L_i independent of the
    interior, that of L_i² moves as their variance does.

    Args:
        values: s and s' of the draws, each (M, B), whose gradients are scaled.
    """

    def __init__(self, *values: Tensor) -> None:
        self.factor: Tensor | None = None
        for value in values:
            value.register_hook(self)

    def measure(self, rate: Tensor) -> None:
        """Take in the rates (M, B), once they are known."""
        rate = rate.detach()
        mean = global_mean(rate.mean().unsqueeze(0).unsqueeze(0)).squeeze()
        self.factor = rate / mean.clamp_min(torch.finfo(rate.dtype).tiny)

    def __call__(self, grad: Tensor) -> Tensor:
        """The scaled gradient (M, B)."""
        return grad if self.factor is None else grad * self.factor.to(grad.dtype)
