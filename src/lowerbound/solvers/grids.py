"""Where the levels of a solver lie: any number of steps between the ends of a schedule.

    time      t uniform in [0, 1], γ(t) of the schedule
    gamma     γ uniform: every step divides the noise-to-signal ratio by the same factor
    karras    ς^(1/ρ) uniform, ς = σ/α = exp(γ/2): short steps where there is little noise
    flow      σ/(α + σ) uniform: the time of flow matching's straight paths

References:
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022: ρ = 7.
    Lipman et al., Flow Matching for Generative Modeling, 2023: straight paths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lowerbound.errors import refuse

__all__ = ["GRIDS", "Schedule", "grid"]

Schedule = Callable[[Tensor], Tensor]


def _time(ends: Tensor, share: Tensor, schedule: Schedule, rho: float) -> Tensor:
    return schedule(1 - share)


def _gamma(ends: Tensor, share: Tensor, schedule: Schedule, rho: float) -> Tensor:
    return ends[0] + share * (ends[1] - ends[0])


def _karras(ends: Tensor, share: Tensor, schedule: Schedule, rho: float) -> Tensor:
    first, last = (ends / (2 * rho)).exp()
    return 2 * rho * (first + share * (last - first)).log()


def _flow(ends: Tensor, share: Tensor, schedule: Schedule, rho: float) -> Tensor:
    first, last = torch.sigmoid(ends / 2)  # σ/(α + σ)
    return 2 * torch.logit(first + share * (last - first))


GRIDS = {"time": _time, "gamma": _gamma, "karras": _karras, "flow": _flow}


@torch.no_grad()
def grid(
    kind: str,
    steps: int,
    schedule: Schedule,
    *,
    chain: int | None = None,
    rho: float = 7.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Levels γ from noise to data, as `solve` takes them.

    Args:
        kind: a name in `GRIDS`.
        steps: how many steps; one more level.
        schedule: γ(t) of times (n,) in [0, 1], rising.
        chain: number of steps n of a model that knows only the levels γ(i/n); for ``"time"``:
            the times are rounded to those.
        rho: ρ of ``"karras"``.
        device: where the times are given to the schedule.

    Returns:
        (steps + 1,), falling, in float64; both ends are the schedule's own.

    Raises:
        InputError: an unknown kind, no step, or more steps than the chain has.

    >>> grid("gamma", 2, lambda t: -13 + 18 * t).tolist()
    [5.0, -4.0, -13.0]
    """
    if kind not in GRIDS:
        raise refuse("grid", f"one of {', '.join(GRIDS)}", kind)
    if steps < 1:
        raise refuse("steps", "at least 1", steps)
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=device)
    if chain is not None:
        if kind != "time":
            raise refuse("grid", "time for a chain", kind)
        if steps > chain:
            raise refuse("steps", f"at most the {chain} of the chain", steps, "ask for fewer")
        share = (share * chain).round() / chain
    ends = schedule(1 - share[[0, -1]]).double()
    levels = GRIDS[kind](ends, share, schedule, rho).double()
    levels[0], levels[-1] = ends[0], ends[1]
    return levels
