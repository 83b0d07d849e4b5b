"""A diagonal Gaussian moved by a flow: log q(z) = log N(x; μ, σ²) − log |det ∂z/∂x|, z = f(x).

Its draws know their density. That of any other z takes the way back, which for an autoregressive
flow is d passes: exact, and slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lowerbound._random import generator_for
from lowerbound.distributions import DiagonalGaussian, Distribution

__all__ = ["FlowedGaussian"]

NUM_FOR_MOMENTS = 64


@dataclass(frozen=True)
class FlowedGaussian(Distribution):
    """The distribution of z = f(x; h), x ~ N(μ, diag σ²); ``event_ndim`` is 1.

    It remembers the last draw of `rsample` with its density, so that ``log_prob`` of that very
    tensor costs nothing.

    Args:
        base: of x, over (…, d).
        context: h (…, C), what the flow is told of each.
        flow: (x, h) -> z and log |det ∂z/∂x|, or with ``inverse=True`` (z, h) -> x and the same.
    """

    base: DiagonalGaussian
    context: Tensor
    flow: Callable[..., tuple[Tensor, Tensor]]
    event_ndim: int = 1
    drawn: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False, compare=False)

    def rsample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw z = f(μ + σ ε) for standard normal ``noise`` (K, …, d)."""
        x = self.base.rsample(noise)
        z, log_det = self.flow(x, self.context)
        self.drawn[:] = [(z, self.base.log_prob(x) - log_det)]
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` (…, d) in nats, (…)."""
        for known, log_prob in self.drawn:
            if z is known:
                return log_prob
        x, log_det = self.flow(z, self.context, inverse=True)
        return self.base.log_prob(x) - log_det

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, d)."""
        x = self.base.sample(generator)
        return self.flow(x, self.context)[0].detach()

    @property
    def mean(self) -> Tensor:
        """Mean of 64 fixed draws in pairs of opposite noise, (…, d): E[z] has no closed form."""
        return self._moments[0]

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of the same draws, (…, d)."""
        return self._moments[1]

    @property
    def log_scale(self) -> Tensor:
        """Logarithm of `stddev`, (…, d)."""
        return self.stddev.log()

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        loc = self.base.loc
        d, generator = loc.shape[-1], generator_for("moments", loc.shape[-1])
        half = torch.randn(NUM_FOR_MOMENTS // 2, d, generator=generator, dtype=torch.float64)
        noise = torch.cat([half, -half]).to(loc)
        noise = noise.reshape(-1, *[1] * (loc.ndim - 1), d).expand(-1, *loc.shape)
        z, _ = self.flow(self.base.rsample(noise), self.context)
        return z.mean(0), z.std(0)

    def detach(self) -> FlowedGaussian:
        """The same distribution with parameters that carry no gradient, those of the flow too.

        It knows no draws: the density of each is that of the point where it is, with a gradient
        along its path alone.
        """
        flow = self.flow
        if isinstance(flow, nn.Module):
            flow = _Fixed(flow)
        return FlowedGaussian(self.base.detach(), self.context.detach(), flow)


class _Fixed:
    """A network whose parameters are held fixed; gradients go through it to its input."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.tensors = {k: p.detach() for k, p in network.named_parameters()}

    def __call__(
        self, x: Tensor, context: Tensor, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See `lowerbound.nn.Flow`."""
        result: tuple[Tensor, Tensor] = functional_call(
            self.network, self.tensors, (x, context), {"inverse": inverse}
        )
        return result
