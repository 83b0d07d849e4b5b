"""The clean end of a diffusion: p(x|z_0), where z_0 still has a little noise.

With u = z_0/α_0 = y + e^{γ_0/2} ε, y being x in the unit of the diffusion:

    levels      p(x = k|z_0) ∝ exp(−½ e^{−γ_0} (u − grid_k)²),   grid_k = 2 (k + ½)/levels − 1
    real data   N(x; m + s u, s² e^{γ_0}),   y = (x − m)/s measured on the training set

Both are normalised over x, so that nats are nats: the first a mass over the levels, the first and
the last of which are levels like all others; the second a density in the data's own units.

References:
    Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lowerbound._random import permutation
from lowerbound._shapes import num_elements, sum_event
from lowerbound.data import Source, measured
from lowerbound.distributions import (
    Binary,
    DiagonalGaussian,
    Discrete,
    Distribution,
    GaussianLikelihood,
    Real,
    Support,
)
from lowerbound.distributions.categorical import draw_index
from lowerbound.errors import refuse

__all__ = ["End", "GridCategorical", "LevelsEnd", "RealEnd", "make_end", "mean_square_of"]

ROWS_FOR_SCALE = 10_000
NEGLIGIBLE = 40.0  # nats below the likeliest level: less than the rounding of float64


class End(nn.Module, ABC):
    """The promise of a clean end: the unit y of the diffusion, and p(x|z_0)."""

    event_shape: tuple[int, ...]
    support: Support

    @abstractmethod
    def scaled(self, x: Tensor) -> Tensor:
        """The y of examples (…, *event): what is diffused, of order one."""

    @abstractmethod
    def forward(self, u: Tensor, gamma_0: Tensor) -> Distribution:
        """p(x|z_0) over x in the data's own units, where u = z_0/α_0 (…, *event)."""

    @abstractmethod
    def flow_start(self, x: Tensor, eps: Tensor, gamma_0: Tensor) -> tuple[Tensor, Tensor]:
        """A place u = z_0/α_0 for examples, and what log p(x) has more than log p(u) there.

        Args:
            x: (B, *event).
            eps: standard normal, (B, *event); used where x is a level and has no density.
            gamma_0: γ of the clean end, ().

        Returns:
            u (B, *event) and nats (B,) or (). Log p(u) and these are an estimate of log p(x).
        """

    def blur(self, gamma_0: Tensor) -> float:
        """What the reconstruction of a level among others costs at the least, nats."""
        return 0.0

    @property
    def levels_looked_at(self) -> int:
        """Logits for each element."""
        return 1

    def calibrate(self, source: Source) -> None:
        """Measure the unit on the training set, where it must be measured."""
        return

    def notes(self, gamma_0: Tensor) -> list[str]:
        """What a reader of the nats should know of p(x|z_0)."""
        return []


@dataclass(frozen=True)
class GridCategorical(Distribution):
    """Independent levels with logits −½ e^{−γ_0} (u − grid_k)².

    Args:
        u: a place on the axis of the grid (…, *event), on which the levels fill [−1, 1].
        gamma_0: log of the variance of u around its level, ().
        levels: how many.
        reach: levels on either side of the nearest that are looked at; None for all. Whoever
            gives one answers for it: see `LevelsEnd`.
        event_ndim: how many trailing axes are the event.
    """

    u: Tensor
    gamma_0: Tensor
    levels: int
    reach: int | None = None
    event_ndim: int = 1

    @property
    def support(self) -> Discrete:
        """The integers 0 … levels − 1."""
        return Discrete(self.levels)

    def _logits(self, u: Tensor, k: Tensor) -> Tensor:
        """Unnormalised, of levels ``k`` at places ``u`` that broadcast with them."""
        grid = 2 * (k + 0.5) / self.levels - 1
        return -0.5 * torch.exp(-self.gamma_0) * (u - grid).square()

    def _near(self) -> tuple[Tensor, Tensor]:
        """The levels that count (…, *event, n) and their logits; −∞ for those that are none."""
        if self.reach is None:
            k = torch.arange(self.levels, device=self.u.device, dtype=self.u.dtype)
            k = k.expand(*self.u.shape, -1)
            return k, self._logits(self.u.unsqueeze(-1), k)
        offsets = torch.arange(-self.reach, self.reach + 1, device=self.u.device)
        nearest = ((self.u + 1) * (self.levels / 2) - 0.5).round().clamp(0, self.levels - 1)
        k = nearest.unsqueeze(-1) + offsets
        logits = self._logits(self.u.unsqueeze(-1), k)
        return k, logits.masked_fill((k < 0) | (k > self.levels - 1), -math.inf)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-mass of levels ``x`` (…, *event): (…), nats."""
        log_mass = self._logits(self.u, x.to(self.u.dtype)) - self._near()[1].logsumexp(-1)
        return sum_event(log_mass, self.event_ndim)

    @property
    def mean(self) -> Tensor:
        """Expectation of the level, (…, *event)."""
        k, logits = self._near()
        return (logits.softmax(-1) * k).sum(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, *event)."""
        k, logits = self._near()
        return k.gather(-1, draw_index(logits, generator).unsqueeze(-1)).squeeze(-1).detach()


class LevelsEnd(End):
    """The end of data of levels: y on the grid, and an exact categorical over the levels.

    Args:
        event_shape: shape of one example.
        support: `Discrete` or `Binary`.
        gamma_0: γ of the clean end, where it never changes: levels that are more than 40 nats
            less likely than the nearest then need not be looked at; None looks at all.
    """

    anchor: Tensor

    def __init__(
        self, event_shape: Sequence[int], support: Discrete | Binary, gamma_0: float | None = None
    ) -> None:
        super().__init__()
        self.event_shape, self.support = tuple(event_shape), support
        self.levels = support.levels
        self.register_buffer("anchor", torch.zeros(()), persistent=False)
        self.reach = None if gamma_0 is None else self._reach(gamma_0)

    def _reach(self, gamma_0: float) -> int | None:
        """The least W whose next level is negligible: ½ e^{−γ_0} δ² (W² + W) > 40, δ = 2/levels.

        (That far from the nearest, u being anywhere nearer to it than to any other.)
        """
        needed = 2 * NEGLIGIBLE * math.exp(gamma_0) * (self.levels / 2) ** 2
        reach = max(1, math.ceil(math.sqrt(needed + 0.25) - 0.5))
        return reach if 2 * reach + 1 < self.levels else None

    def scaled(self, x: Tensor) -> Tensor:
        """See `End.scaled`."""
        return 2 * (x.to(self.anchor.dtype) + 0.5) / self.levels - 1

    def blur(self, gamma_0: Tensor) -> float:
        """See `End.blur`: the mean over evenly spread ε, of a level in the middle."""
        eps = torch.linspace(-6, 6, 601, dtype=torch.float64).unsqueeze(-1)
        share = torch.softmax(-0.5 * eps.flatten().square(), 0)
        middle = torch.full((1, 1), float(self.levels // 2), dtype=torch.float64)
        gamma = gamma_0.cpu().double()
        u = 2 * (middle + 0.5) / self.levels - 1 + torch.exp(0.5 * gamma) * eps
        p = GridCategorical(u, gamma, self.levels, self.reach)
        return -float((share * p.log_prob(middle.expand_as(u))).sum())

    @property
    def levels_looked_at(self) -> int:
        """See `End.levels_looked_at`."""
        return self.levels if self.reach is None else min(self.levels, 2 * self.reach + 1)

    def flow_start(self, x: Tensor, eps: Tensor, gamma_0: Tensor) -> tuple[Tensor, Tensor]:
        """See `End.flow_start`; u is drawn from q(u|x) = N(y, e^{γ_0}), where the model learned.

        log P(x) ≥ E_q [log p(u) + log p(x|u) − log q(u|x)], and hardly more: levels are six of
        q's standard deviations apart. (Uniform noise over a cell of that width would be where no
        data ever was, and costs 0.8 bits per dimension of a perfect model.)
        """
        y, eps = self.scaled(x), eps.to(self.anchor.dtype)
        u = y + torch.exp(0.5 * gamma_0) * eps
        minus_log_q = 0.5 * (eps.square() + math.log(2 * math.pi) + gamma_0)
        spread = sum_event(minus_log_q, len(self.event_shape))
        return u, self(u, gamma_0).log_prob(x.to(u.dtype)) + spread

    def forward(self, u: Tensor, gamma_0: Tensor) -> GridCategorical:
        """See `End.forward`."""
        return GridCategorical(u, gamma_0, self.levels, self.reach, len(self.event_shape))


class RealEnd(End):
    """The end of real data: y standardised, and a Gaussian as wide as the noise that is left.

    That width is the best one for a mean of z_0/α_0, whatever the data: E (u − y)² = e^{γ_0}.

    Args:
        event_shape: shape of one example.
        support: `Real`.
    """

    def __init__(self, event_shape: Sequence[int], support: Real) -> None:
        super().__init__()
        self.event_shape, self.support = tuple(event_shape), support
        self.unit = GaussianLikelihood(event_shape, support, sigma=1.0)

    def calibrate(self, source: Source) -> None:
        """See `End.calibrate`."""
        self.unit.calibrate(measured(source.train))

    def notes(self, gamma_0: Tensor) -> list[str]:
        """See `End.notes`."""
        sigma_0 = math.exp(0.5 * float(gamma_0))
        return [
            f"p(x|z_0) is a Gaussian of {sigma_0:.2g} standard deviations of the training data. "
            "Nats are nats of a density in the data's own units."
        ]

    def scaled(self, x: Tensor) -> Tensor:
        """See `End.scaled`."""
        return self.unit.standardized(x)

    def flow_start(self, x: Tensor, eps: Tensor, gamma_0: Tensor) -> tuple[Tensor, Tensor]:
        """See `End.flow_start`; u is y itself, of another unit than x."""
        return self.scaled(x), -self.unit.scale.log().expand(self.event_shape).sum()

    def forward(self, u: Tensor, gamma_0: Tensor) -> DiagonalGaussian:
        """See `End.forward`."""
        log_scale = self.unit.scale.log() + 0.5 * gamma_0
        loc = self.unit.shift + self.unit.scale * u
        return DiagonalGaussian(loc, log_scale, len(self.event_shape))


def make_end(event_shape: Sequence[int], support: Support, gamma_0: float | None = None) -> End:
    """The end that fits a support.

    Args:
        event_shape: shape of one example.
        support: `Discrete`, `Binary` or `Real`.
        gamma_0: γ of the clean end, where it never changes.

    Raises:
        InputError: another support.
    """
    if isinstance(support, Discrete | Binary):
        return LevelsEnd(event_shape, support, gamma_0)
    if isinstance(support, Real):
        return RealEnd(event_shape, support)
    raise refuse(
        "support",
        "binary, discrete:LEVELS or real for a 'diffusion'",
        support,
        "declare the data as one of them with --support, or use another model",
    )


def mean_square_of(end: End, source: Source, device: torch.device) -> float:
    """The mean of y² over seeded training examples and their numbers."""
    rows = permutation(len(source.train), "scale")[:ROWS_FOR_SCALE]
    total = 0.0
    for some in rows.split(500):
        y = end.scaled(source.train[some][0].to(device))
        total += float(y.double().square().sum())
    return total / (len(rows) * num_elements(end.event_shape))
