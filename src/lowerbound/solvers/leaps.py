"""A method is a handful of numbers for each step from one noise level to the next, cleaner one.

From γ_t to γ_s, with x̂ and ε̂ as the denoiser sees them in z_t, every method here is

    z_s = α_s x̂ + e ε̂ + p (x̂ − x̂_before) + τ n,      n ~ N(0, I)
    z_s ← z_s + c (ε̂(z_s) − ε̂)                       where c is not zero: a second evaluation

No method subtracts large numbers from one another: α_s x̂ and σ_s ε̂ are what z_s is made of.
With h = (γ_t − γ_s)/2, by how much log α/σ rises, the numbers are

    ancestral   e = σ_s exp(−h),  τ² = (1 − exp(−2h)) σ_s^2(1−v) σ_t^2v:  q(z_s|z_t, x̂) for v = 0
    ddim        τ = η σ_s √(1 − exp(−2h)),  e² = σ_s² − τ²:  ancestral for η = 1, the ODE for η = 0
    dpm++       as ddim, and p = α_s (1 − exp(−h) e/σ_s)/2 · h/h_before:  x̂ is a line in log α/σ
    heun        as ddim with η = 0, and c = −σ_s (exp(h) − 1)/2:  the trapezoid in σ/α
    euler       as ddim with η = 0

The ODE is dy/dς = ε̂ for y = z/α and ς = σ/α. Euler's step in it is DDIM's; Euler's step along the
straight paths of flow matching, (1 − t) x + t ε with t = σ/(α + σ), is the same once more, and
differs only in where the levels lie (the grid ``"flow"``). Deterministic methods take negative
steps h too, from clean to noisy.

References:
    Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020: ancestral.
    Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021: ddim.
    Lu et al., DPM-Solver++, 2022: dpm++ in its form 2M, with noise as SDE-DPM-Solver++.
    Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022: heun.
    Lipman et al., Flow Matching for Generative Modeling, 2023: euler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.noising import alpha, sigma

__all__ = ["METHODS", "Leap", "Levels", "Method", "method_named", "plan"]


class Leap(NamedTuple):
    """The numbers of one step.

    Args:
        x: factor of x̂: α_s.
        eps: factor of ε̂: e.
        noise: τ, the standard deviation of fresh noise.
        pull: p, factor of the change of x̂ since the step before.
        push: c, factor of the change of ε̂ at the new place.
        widen: log σ_t/σ_s: τ is multiplied by its exponential times a learned v.
    """

    x: float
    eps: float
    noise: float = 0.0
    pull: float = 0.0
    push: float = 0.0
    widen: float = 0.0


class Levels(NamedTuple):
    """The ends of all steps, from γ_t to γ_s: (n,) each, in float64."""

    t: Tensor
    s: Tensor

    @property
    def rise(self) -> Tensor:
        """By how much log α/σ rises: h."""
        return (self.t - self.s) / 2


@dataclass(frozen=True)
class Method:
    """What a method is, and its numbers.

    Args:
        summary: what it does, in a few words.
        order: the error of the solved equation falls like the step to this power.
        evaluations: of the denoiser per step.
        draws: whether it draws fresh noise: always, never, or where ``eta`` is above 0.
        numbers: columns of `Leap`, each (n,), from the levels, η and v.
    """

    summary: str
    order: int
    evaluations: int
    draws: Literal["always", "never", "by eta"]
    numbers: Callable[[Levels, float, float | None], dict[str, Tensor]]


def _ancestral(levels: Levels, eta: float, variance: float | None) -> dict[str, Tensor]:
    clean, rise = sigma(levels.s), levels.rise
    apart = (sigma(levels.t) / clean).log()
    spread = clean * (apart * (variance or 0.0)).exp()
    numbers = {"eps": clean * (-rise).exp(), "noise": spread * (-(-2 * rise).expm1()).sqrt()}
    return {**numbers, "widen": apart} if variance is None else numbers


def _ddim(levels: Levels, eta: float, variance: float | None) -> dict[str, Tensor]:
    clean = sigma(levels.s)
    if eta == 0:
        return {"eps": clean}
    drawn = -(eta**2) * (-2 * levels.rise).expm1()  # the share of σ_s² that is drawn afresh
    return {"eps": clean * (1 - drawn).sqrt(), "noise": clean * drawn.sqrt()}


def _dpm(levels: Levels, eta: float, variance: float | None) -> dict[str, Tensor]:
    numbers, rise = _ddim(levels, eta, variance), levels.rise
    exponent = (numbers["eps"] / sigma(levels.s)).log() - rise
    pull = -alpha(levels.s) * exponent.expm1() / 2
    pull[1:] *= rise[1:] / rise[:-1]
    pull[0] = 0.0  # nothing came before
    return {**numbers, "pull": pull}


def _heun(levels: Levels, eta: float, variance: float | None) -> dict[str, Tensor]:
    clean = sigma(levels.s)
    return {"eps": clean, "push": -clean * levels.rise.expm1() / 2}


METHODS = {
    "ancestral": Method("the chain of q(z_s|z_t, x̂)", 1, 1, "always", _ancestral),
    "ddim": Method("the ODE, with η > 0 an SDE, x̂ and ε̂ constant", 1, 1, "by eta", _ddim),
    "dpm++": Method("the same with x̂ linear in log α/σ", 2, 1, "by eta", _dpm),
    "heun": Method("the ODE by the trapezoid in σ/α", 2, 2, "never", _heun),
    "euler": Method("Euler's step along the straight paths of a flow", 1, 1, "never", _ddim),
}


def method_named(name: str) -> Method:
    """A member of `METHODS`, refused by name where there is none."""
    if name not in METHODS:
        raise refuse("method", f"one of {', '.join(METHODS)}", name)
    return METHODS[name]


def plan(
    gammas: Tensor,
    method: str,
    eta: float = 0.0,
    variance: float | None = None,
    *,
    asks_at_last: bool = True,
) -> list[Leap]:
    """The numbers of every step between levels, in double precision.

    Args:
        gammas: γ = −log SNR at n + 1 levels.
        method: a name in `METHODS`.
        eta: η, the share of fresh noise: 0 is deterministic, 1 is ancestral.
        variance: v, for ``"ancestral"``: 0 for the variance of q(z_s|z_t, x), exact where the
            data are one point; 1 for that of q(z_t|z_s), exact where they are white noise;
            geometric in between. None is what the denoiser has learned, or 0.
        asks_at_last: whether a second evaluation may be made at the last level too; the network
            of a chain was never trained there.

    Returns:
        n leaps.

    Raises:
        InputError: an unknown method, or a number that it has no use for.
    """
    member = method_named(method)
    for name, value, used in (
        ("eta", eta, member.draws == "by eta"),
        ("variance", variance or 0.0, member.draws == "always"),
    ):
        if not 0 <= value <= 1:
            raise refuse(name, "between 0 and 1", value)
        if value and not used:
            raise refuse(name, f"0 for the method {method}", value, "choose another method")
    levels = Levels(gammas[:-1].double().cpu(), gammas[1:].double().cpu())
    columns = {"x": alpha(levels.s), **member.numbers(levels, eta, variance)}
    if "push" in columns and not asks_at_last:
        columns["push"][-1] = 0.0
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [Leap(**dict(zip(columns, row, strict=True))) for row in rows]
