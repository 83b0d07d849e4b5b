"""The likelihood of a diffusion by its probability flow: an estimate, and no bound.

    dz/dγ = ½ (σ ε̂(z, γ) − σ² z)          carries p(z_0) to p(z_1) ≈ N(0, I) without noise

    log p(z_0) = log N(z_1; 0, I) + ∫ div(dz/dγ) dγ,   div ε̂ ≈ vᵀ (∂ε̂/∂z) v,   v of signs ±1

It is exact for the density that the flow itself defines, which is the model's only where ε̂ is a
gradient, and here three more things are estimated: the integral by fixed steps, the divergence by
random probes, and the mass of data of levels by a draw of z_0,

    log P(x) ≥ E_q [log p(z_0) + log p(x|z_0) − log q(z_0|x)]        (dequantisation by q(z_0|x))

which on average costs no more than the reconstruction term. Of real data it starts at z_0 = α_0 y,
where the density is blurred by e^{γ_0/2}. The network of a chain is asked between its levels and
also at γ_0, where it was never trained. It may err on either side: compare it with bounds by eye,
not in a table.

References:
    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021.
    Grathwohl et al., FFJORD, 2019: the probes.
    Ho et al., Flow++, 2019: dequantisation by a density that fits the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound._shapes import num_elements, sum_event
from lowerbound.data import Mask
from lowerbound.distributions import Real
from lowerbound.errors import refuse
from lowerbound.evaluation.base import as_split, blocks, context_of, judging
from lowerbound.models import Diffusion, Model
from lowerbound.noising import alpha, sigma

__all__ = ["FlowLikelihood", "flow_likelihood"]

ROWS_AT_ONCE = 128
State = tuple[Tensor, Tensor]
Slope = Callable[[Tensor, Tensor], State]


@dataclass(frozen=True)
class FlowLikelihood:
    """Estimates of log p(x), per example, on the CPU, float64.

    Args:
        value: (B,), nats, in the data's own units.
        standard_error: over the probes, (B,), nats; NaN for one probe. It knows nothing of the
            steps nor of the dequantisation.
        dequantisation: how levels were spread to a density: by a draw of q(z_0|x), or none, of
            real data.
        num_steps: steps of γ that were taken.
        num_probes: probes of the divergence.
        method: of the steps.
    """

    kind: ClassVar[str] = "estimate"
    value: Tensor
    standard_error: Tensor
    dequantisation: Literal["q(z_0|x)", "none"]
    num_steps: int
    num_probes: int
    method: str


def flow_likelihood(
    model: Model,
    x: Tensor,
    *,
    context: Tensor | None = None,
    num_steps: int = 64,
    num_probes: int = 1,
    method: Literal["rk4", "heun"] = "rk4",
    seed: int = 0,
) -> FlowLikelihood:
    """Log p(x) of each example by the probability flow of a diffusion.

    Args:
        model: a diffusion.
        x: examples (B, *event) in the units of the source.
        context: of each example (B, …), where the model has one: classes or vectors.
        num_steps: equal steps of γ; rk4 asks the network four times in each, heun twice.
        num_probes: K probes of the divergence, kept along the whole path.
        method: of the steps.
        seed: example i sees the probes and the z_0 of (seed, i).

    Raises:
        InputError: a number below 1, another method, or a model that is no diffusion, or of one
            that is given a part of x.
    """
    for name, value in (("num_steps", num_steps), ("num_probes", num_probes)):
        if value < 1:
            raise refuse(name, "at least 1", value)
    if method not in _METHODS:
        raise refuse("method", " or ".join(_METHODS), method)
    if not isinstance(model, Diffusion):
        raise refuse("model", "a diffusion, which has a probability flow", model.name)
    if isinstance(model.context, Mask):
        raise refuse("model", "one of whole examples", f"given {model.context}")
    model.check(x)
    split, parts = as_split(x, context), []
    with judging(model):
        for rows in blocks(len(x), ROWS_AT_ONCE):
            numbers = range(rows.start, rows.stop)
            given = x[rows], context_of(model, split, rows)
            parts.append(_of_block(model, *given, numbers, num_steps, num_probes, method, seed))
    values = torch.cat([torch.empty(num_probes, 0, dtype=torch.float64), *parts], dim=1)
    error = torch.full((len(x),), math.nan, dtype=torch.float64)
    if num_probes > 1:
        error = values.std(0) / math.sqrt(num_probes)
    spread: Literal["q(z_0|x)", "none"] = "none" if isinstance(model.support, Real) else "q(z_0|x)"
    return FlowLikelihood(values.mean(0), error, spread, num_steps, num_probes, method)


def _of_block(
    model: Diffusion,
    x: Tensor,
    context: Tensor | None,
    numbers: range,
    num_steps: int,
    num_probes: int,
    method: str,
    seed: int,
) -> Tensor:
    """Values of some examples by each probe, (K, B), float64, on the CPU."""
    device, shape = model.calibrated.device, model.event_shape
    generators = [generator_for("flow", seed, number, device=device) for number in numbers]
    eps = torch.stack([torch.randn(shape, generator=g, device=device) for g in generators])
    signs = torch.stack(
        [torch.rand(num_probes, *shape, generator=g, device=device) for g in generators], 1
    )
    kind = model.end.scaled(x[:1].to(device)).dtype
    first, last = (g.to(kind) for g in (model.schedule.gamma_0, model.schedule.gamma_1))
    u, log_ratio = model.end.flow_start(x.to(device), eps, first)
    probes = torch.where(signs < 0.5, -1.0, 1.0).to(kind)
    steps = torch.linspace(0, 1, num_steps + 1, device=device, dtype=kind)
    gammas = torch.lerp(first, last, steps)
    z, total = alpha(first) * u, torch.zeros(num_probes, len(u), dtype=kind, device=device)
    take = _METHODS[method]
    for start, end in itertools.pairwise(gammas):
        z, grown = take(
            lambda z, gamma: _slope(model, z, gamma, context, probes), z, start, end - start
        )
        total = total + grown
    size = num_elements(shape)
    log_normal = -0.5 * sum_event(z.double().square() + math.log(2 * math.pi), len(shape))
    # From densities of z_0 to those of u, and to those or the mass of x.
    volume = size * alpha(first).double().log() + log_ratio.double()
    return (log_normal + total.double() + volume).cpu()


def _slope(
    model: Diffusion, z: Tensor, gamma: Tensor, context: Tensor | None, probes: Tensor
) -> State:
    """dz/dγ (B, *event), and its divergence by each probe, (K, B)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        eps = model.denoise(z, gamma, context).eps
        along = [
            torch.autograd.grad(eps, z, probe, retain_graph=k + 1 < len(probes))[0]
            for k, probe in enumerate(probes)
        ]
    s = sigma(gamma)
    divergence = sum_event(torch.stack(along) * probes, len(model.event_shape))
    size = num_elements(model.event_shape)
    slope = 0.5 * (s * eps.detach() - s.square() * z.detach())
    return slope, 0.5 * (s * divergence - s.square() * size)


def _heun(slope: Slope, z: Tensor, gamma: Tensor, h: Tensor) -> State:
    """One step of second order: the mean of the slopes at both ends."""
    a, da = slope(z, gamma)
    b, db = slope(z + h * a, gamma + h)
    return z + h / 2 * (a + b), h / 2 * (da + db)


def _rk4(slope: Slope, z: Tensor, gamma: Tensor, h: Tensor) -> State:
    """One classical step of fourth order."""
    a, da = slope(z, gamma)
    b, db = slope(z + h / 2 * a, gamma + h / 2)
    c, dc = slope(z + h / 2 * b, gamma + h / 2)
    d, dd = slope(z + h * c, gamma + h)
    return z + h / 6 * (a + 2 * b + 2 * c + d), h / 6 * (da + 2 * db + 2 * dc + dd)


_METHODS = {"rk4": _rk4, "heun": _heun}
