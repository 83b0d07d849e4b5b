"""Schedules: how much noise there is at a time t of [0, 1], as γ(t) = −log SNR, which rises.

    γ(t) = γ_0 + (γ_1 − γ_0) s(t),   s(0) = 0,   s(1) = 1,   s rising

γ_0 and γ_1 are exact numbers, fixed or learned; s, the interior, is what schedules differ in. In
continuous time the bound depends on the end-points alone: substituting γ for t leaves an integral
over γ. The interior only decides how noisy a random t makes the estimate of that integral.

Everything is in float32 or float64, autocast or not: there are no products of matrices here.

References:
    Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020: the table.
    Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021: the cosine.
    Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021: γ, learned, and why.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.errors import refuse

__all__ = [
    "SCHEDULES",
    "CosineSchedule",
    "LearnedSchedule",
    "Level",
    "LinearSchedule",
    "Schedule",
    "ScheduleName",
    "TableSchedule",
    "ddpm_gammas",
    "make_schedule",
]

ScheduleName = Literal["linear", "cosine", "ddpm", "learned"]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)


class Level(NamedTuple):
    """A schedule at some times.

    Args:
        gamma: γ(t), of the shape of t.
        rate: γ'(t) ≥ 0, the same shape.
        interior: s(t), the same shape.
    """

    gamma: Tensor
    rate: Tensor
    interior: Tensor


class Schedule(nn.Module, ABC):
    """The promise of a schedule: γ and γ' of any t in [0, 1].

    Args:
        gamma_0: γ(0), the clean end.
        gamma_1: γ(1), the noisy end.
        learn_ends: whether both are parameters, and not buffers.

    Raises:
        InputError: ends that do not rise, or are not finite.
    """

    gamma_0: Tensor
    gamma_1: Tensor

    def __init__(self, gamma_0: float, gamma_1: float, *, learn_ends: bool = False) -> None:
        super().__init__()
        if not (math.isfinite(gamma_0) and math.isfinite(gamma_1) and gamma_0 < gamma_1):
            required = f"finite and above gamma_min = {gamma_0:g}: noise rises with t"
            raise refuse("gamma_max", required, f"{gamma_1:g}")
        for name, value in (("gamma_0", gamma_0), ("gamma_1", gamma_1)):
            if learn_ends:
                self.register_parameter(name, nn.Parameter(torch.tensor(value)))
            else:
                self.register_buffer(name, torch.tensor(value))
        self.learns_ends = learn_ends

    @property
    def learns_interior(self) -> bool:
        """Whether s has parameters."""
        return False

    @abstractmethod
    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """s(t) and s'(t) ≥ 0 of times of any shape; s(0) = 0 and s(1) = 1."""

    def forward(self, t: Tensor) -> Level:
        """γ(t), γ'(t) and s(t) of times (…) in [0, 1]; in float64 where t or the ends are."""
        t = t.to(torch.promote_types(t.dtype, self.gamma_0.dtype))
        return self.at(*self.interior(t))

    def at(self, s: Tensor, slope: Tensor) -> Level:
        """The level where the interior is ``s`` and rises by ``slope`` per unit of t."""
        # Not γ_0 + (γ_1 − γ_0) s: rounded, that misses γ_1, and the last γ must be that of the
        # prior term.
        low, high = self.gamma_0.to(s.dtype), self.gamma_1.to(s.dtype)
        return Level(torch.lerp(low, high, s), (high - low) * slope, s)

    def gamma(self, t: Tensor) -> Tensor:
        """γ(t), (…)."""
        return self(t).gamma

    def levels(self, num: int) -> Tensor:
        """γ at ``num`` equidistant times, both ends included, rising: (num,)."""
        t = torch.linspace(0, 1, num, dtype=torch.float64, device=self.device)
        return self.gamma(t).to(self.gamma_0.dtype)

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return self.gamma_0.device


class LinearSchedule(Schedule):
    """s(t) = t."""

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Schedule.interior`."""
        return t, torch.ones_like(t)


class CosineSchedule(Schedule):
    """α = cos u, σ = sin u, with u from end to end at a constant pace: γ = 2 log tan u.

    The angles at the ends are those of γ_0 and γ_1; where these are learned the pace is that of
    their first values.
    """

    angles: Tensor

    def __init__(self, gamma_0: float, gamma_1: float, *, learn_ends: bool = False) -> None:
        super().__init__(gamma_0, gamma_1, learn_ends=learn_ends)
        angles = torch.tensor([gamma_0, gamma_1], dtype=torch.float64).div(2).exp().atan()
        self.register_buffer("angles", angles, persistent=False)

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Schedule.interior`."""
        angles = self.angles.double()  # a model in another precision has moved them to it
        start, end = angles
        u = torch.lerp(start, end, t.double())
        ends = angles.tan().log()
        width = ends[1] - ends[0]
        s = (u.tan().log() - ends[0]) / width
        slope = (end - start) / (u.sin() * u.cos() * width)
        return s.to(t.dtype), slope.to(t.dtype)


class TableSchedule(Schedule):
    """Straight lines through a table of γ at equidistant times.

    Args:
        gammas: γ of T ≥ 2 levels, rising, from clean to noisy.
        gamma_0: γ(0), to which the table is stretched; its own first unless said.
        gamma_1: γ(1); its own last unless said.
        learn_ends: whether the ends are parameters.

    Raises:
        InputError: a table that does not rise.
    """

    knots: Tensor

    def __init__(
        self,
        gammas: Tensor,
        gamma_0: float | None = None,
        gamma_1: float | None = None,
        *,
        learn_ends: bool = False,
    ) -> None:
        gammas = gammas.detach().double()
        if gammas.ndim != 1 or len(gammas) < 2 or not bool(gammas.isfinite().all()):
            raise refuse("gammas", "a row of two or more finite numbers", tuple(gammas.shape))
        falls = (gammas.diff() <= 0).nonzero().flatten()
        if len(falls):
            i = int(falls[0])
            shown = f"{float(gammas[i]):g} and then {float(gammas[i + 1]):g} at {i + 1}"
            raise refuse("gammas", "rising, as noise does with t", shown)
        first = float(gammas[0]) if gamma_0 is None else gamma_0
        last = float(gammas[-1]) if gamma_1 is None else gamma_1
        super().__init__(first, last, learn_ends=learn_ends)
        knots = (gammas - gammas[0]) / (gammas[-1] - gammas[0])
        self.register_buffer("knots", knots, persistent=False)

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Schedule.interior`; γ' is that of the line after t."""
        pieces = len(self.knots) - 1
        place = t.double() * pieces
        i = place.floor().long().clamp(0, pieces - 1)
        low, high = self.knots[i], self.knots[i + 1]
        return (low + (high - low) * (place - i)).to(t.dtype), ((high - low) * pieces).to(t.dtype)


class LearnedSchedule(Schedule):
    """A learned s: a rising line and rising sigmoids, all of positive weight, pinned at both ends.

    s(t) = (f(t) − f(0)) / (f(1) − f(0)),
    f(t) = a t + Σ_j b_j sigmoid(c_j (t − d_j)),   a, b, c > 0

    It starts near the line.
    """

    def __init__(
        self, gamma_0: float, gamma_1: float, *, learn_ends: bool = False, num_steps: int = 24
    ) -> None:
        super().__init__(gamma_0, gamma_1, learn_ends=learn_ends)
        self.line = nn.Parameter(torch.zeros(()))
        self.heights = nn.Parameter(torch.full((num_steps,), -4.0))
        self.slopes = nn.Parameter(torch.full((num_steps,), 10.0))
        self.places = nn.Parameter(torch.linspace(0, 1, num_steps))

    @property
    def learns_interior(self) -> bool:
        """See `Schedule.learns_interior`."""
        return True

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Schedule.interior`."""
        ends = torch.linspace(0, 1, 2, dtype=t.dtype, device=t.device)  # made there: no copy
        (start, end), _ = self._raw(ends)
        value, slope = self._raw(t)
        return (value - start) / (end - start), slope / (end - start)

    def _raw(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The sum f and its derivative at times (…)."""
        line, height, steep = (F.softplus(p) for p in (self.line, self.heights, self.slopes))
        step = torch.sigmoid(steep * (t[..., None] - self.places))
        value = line * t + (height * step).sum(-1)
        return value, line + (height * steep * step * (1 - step)).sum(-1)


def ddpm_gammas(num_steps: int = 1000) -> Tensor:
    """γ of the levels 1 … T of DDPM: β from 1e-4 to 0.02, scaled by 1000/T: (T,), float64.

    >>> [round(float(g), 2) for g in ddpm_gammas()[[0, -1]]]
    [-9.21, 10.12]
    """
    if num_steps < 2:
        raise refuse("num_steps", "at least 2", num_steps)
    betas = torch.linspace(1e-4, 0.02, num_steps, dtype=torch.float64) * (1000 / num_steps)
    log_alpha = torch.log1p(-betas.clamp_max(0.999)).cumsum(0)
    return torch.log(torch.expm1(-log_alpha))


def make_schedule(
    name: ScheduleName,
    gamma_0: float | None = None,
    gamma_1: float | None = None,
    *,
    learn_ends: bool = False,
) -> Schedule:
    """A schedule by name.

    Args:
        name: one of `SCHEDULES`.
        gamma_0: γ(0); −13.3 unless said, and the table's own for ``"ddpm"``.
        gamma_1: γ(1); 5 unless said, and the table's own for ``"ddpm"``.
        learn_ends: whether the ends are parameters.

    Raises:
        InputError: ends that do not rise, or no such schedule.

    >>> schedule = make_schedule("cosine", -6.0, 4.0)
    >>> schedule.gamma(torch.tensor([0.0, 0.5, 1.0]))
    tensor([-6.0000, -0.1697,  4.0000])
    """
    if name == "ddpm":
        return TableSchedule(ddpm_gammas(), gamma_0, gamma_1, learn_ends=learn_ends)
    kinds: dict[str, type[LinearSchedule] | type[CosineSchedule] | type[LearnedSchedule]] = {
        "linear": LinearSchedule,
        "cosine": CosineSchedule,
        "learned": LearnedSchedule,
    }
    if name not in kinds:
        raise refuse("schedule", f"one of {', '.join(SCHEDULES)}", name)
    first = -13.3 if gamma_0 is None else gamma_0
    return kinds[name](first, 5.0 if gamma_1 is None else gamma_1, learn_ends=learn_ends)
