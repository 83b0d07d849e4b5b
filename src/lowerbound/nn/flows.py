"""Invertible networks: x ↦ y with log |det ∂y/∂x|, and the way back.

Both kinds are affine in each entry, y_i = x_i exp(a_i) + b_i with a and b by a network that sees
other entries only, so that the Jacobian is triangular and its log-determinant the sum of the a_i:

    coupling         a, b of one half from the other half: both ways in one pass
    autoregressive   a_i, b_i from x_<i: there in one pass, back in d of them
    gated            the same with exp(a) = σ and b = (1 − σ) m: a step from x towards m

References:
    Dinh, Sohl-Dickstein and Bengio, Density Estimation using Real NVP, 2017 (coupling).
    Papamakarios, Pavlakou and Murray, Masked Autoregressive Flow for Density Estimation, 2017.
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016 (gated).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.nn.masked import MaskedMlp
from lowerbound.nn.mlp import Mlp

__all__ = ["Autoregressive", "Chain", "Coupling", "Flow", "coupling_masks"]

MAX_LOG_SCALE = 2.0  # of one layer: |a| stays below
MAX_GATE = 10.0  # logit: σ stays above 4.5e-5, so that there is a way back
OPEN_GATE = 2.0  # logit at the start: σ = 0.88


class Flow(nn.Module, ABC):
    """The promise of an invertible network over vectors (…, d)."""

    @abstractmethod
    def there(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y (…, d) and log |det ∂y/∂x| (…), nats."""

    @abstractmethod
    def back(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X (…, d) of which ``there`` makes ``y``, and its log |det ∂y/∂x| (…), nats."""

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """``there``, or with ``inverse`` ``back``."""
        return self.back(x, context) if inverse else self.there(x, context)


class Coupling(Flow):
    """A layer that moves the entries where ``mask`` is 0, by what it sees where it is 1.

    It starts as the identity.

    Args:
        mask: (d,), zeros and ones.
        num_context: numbers of a context that its network sees too.
        width: hidden units of its network.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, num_context: int = 0, *, width: int) -> None:
        super().__init__()
        d, self.num_context = len(mask), num_context
        self.register_buffer("mask", mask.to(torch.get_default_dtype()), persistent=False)
        self.network = Mlp((d + num_context,), 2 * d, width=width, depth=1)
        nn.init.zeros_(self.network.last.weight)
        nn.init.zeros_(self.network.last.bias)

    def _affine(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-scale a and shift b, both zero where the mask is 1."""
        seen, moved = x * self.mask, 1 - self.mask
        if self.num_context:
            assert context is not None
            seen = torch.cat([seen, context.expand(*x.shape[:-1], -1)], -1)
        raw = self.network(seen.reshape(-1, seen.shape[-1])).reshape(*x.shape[:-1], -1)
        a, b = raw.chunk(2, dim=-1)
        return moved * MAX_LOG_SCALE * torch.tanh(a / MAX_LOG_SCALE), moved * b

    def there(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Flow.there`."""
        a, b = self._affine(x, context)
        return x * a.exp() + b, a.sum(-1)

    def back(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Flow.back`."""
        a, b = self._affine(y, context)
        return (y - b) * torch.exp(-a), a.sum(-1)


class Autoregressive(Flow):
    """A layer that moves every entry by those before it.

    Ungated it starts as the identity, gated as a factor of 0.88.

    Args:
        num_dims: d.
        num_context: numbers of a context that its network sees too.
        width: hidden units per layer of its network.
        gated: take steps towards a point, as an inverse autoregressive flow does.
        reverse: the entries come in the opposite order, and are given back in that.
    """

    def __init__(
        self,
        num_dims: int,
        num_context: int = 0,
        *,
        width: int,
        gated: bool = False,
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.gated, self.reverse = gated, reverse
        self.network = MaskedMlp(num_dims, num_context, width=width)
        if gated:
            with torch.no_grad():
                self.network.last.bias[num_dims:] = OPEN_GATE

    def _affine(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-scale a and shift b; the i-th of them see x_<i."""
        b, s = self.network(x, context)
        if self.gated:
            gate = F.hardtanh(s, -MAX_GATE, MAX_GATE)
            return F.logsigmoid(gate), torch.sigmoid(-gate) * b
        return MAX_LOG_SCALE * torch.tanh(s / MAX_LOG_SCALE), b

    def there(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Flow.there`."""
        x = x.flip(-1) if self.reverse else x
        a, b = self._affine(x, context)
        return x * a.exp() + b, a.sum(-1)

    def back(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Flow.back`; entry after entry, each from those that are known by then."""
        x, log_det = torch.zeros_like(y), torch.zeros_like(y[..., 0])
        index = torch.arange(y.shape[-1], device=y.device)
        for i in range(y.shape[-1]):
            a, b = self._affine(x, context)
            x = torch.where(index == i, (y - b) * torch.exp(-a), x)
            log_det = log_det + a[..., i]
        return (x.flip(-1) if self.reverse else x), log_det


class Chain(Flow):
    """Flows one after another, in full precision whatever that of the networks around them.

    Args:
        flows: the first is applied first.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def there(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Flow.there`."""
        log_det = torch.zeros_like(x[..., 0])
        with torch.autocast(x.device.type, enabled=False):
            for flow in self.flows:
                x, more = flow(x, context)
                log_det = log_det + more
        return x, log_det

    def back(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Flow.back`."""
        log_det = torch.zeros_like(y[..., 0])
        with torch.autocast(y.device.type, enabled=False):
            for flow in reversed(self.flows):
                y, more = flow(y, context, inverse=True)
                log_det = log_det + more
        return y, log_det


def coupling_masks(num_dims: int, num_layers: int) -> list[Tensor]:
    """Masks (d,) of couplings: by one binary digit of the index and its opposite, then the next.

    Whichever two entries are taken, some digit tells them apart: with 2⌈log₂ d⌉ layers or more one
    sees the other, and with fewer some do so through others.

    >>> [mask.int().tolist() for mask in coupling_masks(4, 4)]
    [[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]]
    """
    index, num_digits = torch.arange(num_dims), max(1, (num_dims - 1).bit_length())
    digits = [(index >> (layer // 2 % num_digits)) & 1 for layer in range(num_layers)]
    return [(digit + layer) % 2 for layer, digit in enumerate(digits)]
