"""How a diffusion draws: which solver, how many steps, how much fresh noise, how much guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.schedules import Schedule
from lowerbound.solvers import METHODS, grid

__all__ = ["STEPS", "SamplerName", "Sampling", "check_sampler", "check_timesteps"]

SamplerName = Literal["ancestral", "ddim", "dpm++", "heun", "euler"]
STEPS = 100
"""Of a draw in continuous time, unless said."""
GRIDS_OF = {"heun": "karras", "euler": "flow"}
"""Where the levels of a method lie in continuous time; of the others at even times."""


def check_sampler(name: str) -> None:
    """Refuse what is no method of `lowerbound.solvers`.

    Raises:
        InputError: with those that there are.
    """
    if name not in METHODS:
        raise refuse("sampler", f"one of {', '.join(METHODS)}", name)


def check_timesteps(timesteps: int | None, *, learn_variance: bool) -> None:
    """Refuse a chain that has no step, and the variance of a step where there is no chain.

    Args:
        timesteps: T; None for continuous time.
        learn_variance: whether the network gives the variance of a chain's steps.

    Raises:
        InputError: T below 2, or a learned variance in continuous time.
    """
    if timesteps is not None and timesteps < 2:
        remedy = "leave it out for continuous time"
        raise refuse("timesteps", "at least 2, a noisy and a clean level", timesteps, remedy)
    if learn_variance and timesteps is None:
        raise refuse("variance", "fixed in continuous time", "learned", "give --timesteps T")


@dataclass(frozen=True)
class Sampling:
    """How draws are made; `Diffusion.with_sampler` gives a model that draws so.

    Args:
        sampler: a method of `lowerbound.solvers`.
        steps: from noise to data; all steps of a chain, or 100, where it is None.
        eta: share of fresh noise, 0 … 1, of ddim and dpm++.
        guidance: s of classifier-free guidance; 1 is none, and 0 leaves the context out.

    Raises:
        InputError: a number out of range, or one that the sampler has no use for.
    """

    sampler: str = "ancestral"
    steps: int | None = None
    eta: float = 0.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        check_sampler(self.sampler)
        if self.steps is not None and self.steps < 1:
            raise refuse("steps", "at least 1", self.steps)
        if not 0 <= self.eta <= 1:
            raise refuse("eta", "from 0 to 1", self.eta)
        if self.eta and METHODS[self.sampler].draws != "by eta":
            remedy = "choose --sampler ddim or dpm++"
            raise refuse("eta", f"0 for the sampler {self.sampler}", self.eta, remedy)
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise refuse("guidance", "a number of at least 0", self.guidance, "1 is no guidance")

    @property
    def method(self) -> dict[str, Any]:
        """What the solvers are told."""
        return {"method": self.sampler, "eta": self.eta}

    def check_chain(self, timesteps: int | None) -> None:
        """Refuse more steps than a chain of T levels has: its network knows no others.

        Raises:
            InputError: with T.
        """
        if timesteps is None or self.steps is None or self.steps < timesteps:
            return
        required = f"at most {timesteps - 1}, the steps of a chain of T = {timesteps} levels"
        raise refuse("steps", required, self.steps, "ask for fewer")

    def levels(self, schedule: Schedule, timesteps: int | None) -> Tensor:
        """γ from noise to data, (steps + 1,), float64.

        Args:
            schedule: of the model.
            timesteps: T of a chain, of whose levels they are some; None in continuous time.
        """
        if timesteps is not None:
            chain = timesteps - 1
            steps = self.steps or chain
            return grid("time", steps, schedule.gamma, chain=chain, device=schedule.device)
        kind = GRIDS_OF.get(self.sampler, "time")
        return grid(kind, self.steps or STEPS, schedule.gamma, device=schedule.device)
