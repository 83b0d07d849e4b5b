"""Annealed importance sampling: log p(x) without trusting the encoder.

A chain walks from z ~ π (the prior, or q) to the posterior through the densities

    f_β(z) = π(z)^(1−β) p(x, z)^β,   0 = β_0 < β_1 < … < β_T = 1,

and its weight is w = Π_t f_{β_t}(z_{t−1}) / f_{β_{t−1}}(z_{t−1}), where z_t is reached from
z_{t−1} by a step that leaves f_{β_t} as it is. Then E w = p(x) exactly, whatever the steps are,
and E log w ≤ log p(x): a lower bound that tightens with T, also where every q is poor.

The step is Hamiltonian Monte Carlo: a momentum v ~ N(0, I), a leapfrog path, and a Metropolis
test. Its length is tuned per example in a preliminary run with noise of its own; tuning it on the
run that counts would make the weights biased.

References:
    Neal, Annealed Importance Sampling, 2001.
    Wu, Burda, Salakhutdinov and Grosse, On the Quantitative Analysis of Decoder-Based Generative
    Models, 2017: the sigmoid ladder, and acceptance near 0.65.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.errors import InputError, refuse
from lowerbound.evaluation.base import LogLikelihood, RunningMean, blocks, judging
from lowerbound.evaluation.likelihood import exact_log_likelihood, join
from lowerbound.models import Model, concatenate_noise

__all__ = ["annealed_importance_sampling"]

LEAPFROG_STEPS = 5
ACCEPTANCE = 0.65
FIRST_STEP = 0.3
TUNING_RUNGS = 60
# Paths are chaotic: a rounding error that depends on the shape of a batch would grow to nats. All
# blocks therefore have one shape, and an example meets the same numbers whatever comes with it.
CHAINS_AT_ONCE = 256
STEEPNESS = 4.0  # of the sigmoid: rungs lie closer at both ends, where densities change fastest


def annealed_importance_sampling(
    model: Model,
    x: Tensor,
    *,
    num_steps: int = 1000,
    num_chains: int = 16,
    start: Literal["prior", "encoder"] = "prior",
    context: Tensor | None = None,
    seed: int = 0,
) -> LogLikelihood:
    """Log p(x) of each example by chains from the prior, or from q(z|x), to the posterior.

    It decodes about ``6 · num_steps · num_chains`` latents per example, with gradients. One step
    is plain importance sampling from where the chains begin.

    Args:
        model: a model with one continuous latent ``z``, or with log p(x) in closed form.
        x: examples (B, *event) in the units of the source.
        num_steps: T, rungs of the ladder.
        num_chains: independent chains per example; the estimate is the log of their mean weight.
        start: where chains begin, ``"prior"`` or ``"encoder"``.
        context: (B, …) or None.
        seed: example i sees the noise of (seed, i), whatever else is judged with it.

    Returns:
        A `LogLikelihood` over the chains, (B,) tensors in nats on the CPU, float64.

    Raises:
        InputError: a number below 1, examples that do not fit, or a model without such a latent.
    """
    for name, value in (("num_steps", num_steps), ("num_chains", num_chains)):
        if value < 1:
            raise refuse(name, "at least 1", value)
    if start not in ("prior", "encoder"):
        raise refuse("start", "prior or encoder", start)
    model.check(x)
    device, parts = model.calibrated.device, []
    with judging(model):
        if model.closed_form and model.evidence_kind == "exact":
            return exact_log_likelihood(model, x, num_chains, context)
        _check_latents(model)
        size = max(1, (CHAINS_AT_ONCE if device.type == "cpu" else 2**13) // num_chains)
        for block in blocks(len(x), size):
            # The last block is filled up with its last row: see CHAINS_AT_ONCE.
            rows = [min(row, len(x) - 1) for row in range(block.start, block.start + size)]
            given = None if context is None else context[rows].to(device)
            chains = _Chains(model, x[rows].to(device), given, start, num_chains, rows, seed)
            log_weight = chains.log_weight(num_steps)[:, : block.stop - block.start]
            mean = RunningMean(log_weight.shape[1], device)
            mean.add(log_weight)
            parts.append(mean.result(num_chains))
    return join(parts)


def _check_latents(model: Model) -> None:
    """Refuse models whose latents are not one tensor with a prior that has a density."""
    if model.closed_form:
        raise InputError(
            f"the closed form of this '{model.name}' is a lower bound on these data, which "
            "annealing cannot better; use log_likelihood"
        )
    if not hasattr(model, "prior") or set(model.judging_noise([0])) != {"z"}:
        raise InputError(
            f"a model of kind '{model.name}' has no single continuous latent to anneal; "
            f"use {'log_likelihood' if model.has_weights else 'its bound'}"
        )


def _ladder(num_steps: int) -> list[float]:
    """The inverse temperatures β_0 = 0 … β_T = 1.

    >>> _ladder(1), [round(beta, 3) for beta in _ladder(4)]
    ([0.0, 1.0], [0.0, 0.105, 0.5, 0.895, 1.0])
    """
    curve = [math.tanh(STEEPNESS * (t / num_steps - 0.5)) for t in range(num_steps + 1)]
    return [(c - curve[0]) / (curve[-1] - curve[0]) for c in curve]


@dataclass
class _Point:
    """Latents (C, B, d) with log π(z) and log p(x, z), each (C, B)."""

    z: Tensor
    log_start: Tensor
    log_joint: Tensor

    def log_density(self, beta: float) -> Tensor:
        """Log f_β(z), (C, B)."""
        return (1 - beta) * self.log_start + beta * self.log_joint

    def where(self, accepted: Tensor, other: _Point) -> _Point:
        """This point where ``accepted`` (C, B), the other elsewhere."""
        return _Point(
            torch.where(accepted[..., None], self.z, other.z),
            torch.where(accepted, self.log_start, other.log_start),
            torch.where(accepted, self.log_joint, other.log_joint),
        )


@dataclass
class _Chains:
    """``num_chains`` chains for each example of a block of rows."""

    model: Any
    x: Tensor
    context: Tensor | None
    start: str
    num_chains: int
    rows: list[int]
    seed: int
    q: Any = field(init=False)

    def __post_init__(self) -> None:
        self.q = self.model.encode(self.x, self.context) if self.start == "encoder" else None

    def log_weight(self, num_steps: int) -> Tensor:
        """Log-weights (C, B): a run that tunes the steps, then the one that counts."""
        step = torch.full((len(self.x),), math.log(FIRST_STEP), device=self.x.device)
        if num_steps == 1:
            return self._run("main", [step, step], tuning=False)
        tuned = [step] * (TUNING_RUNGS + 1)
        self._run("tuning", tuned, tuning=True)
        nearest = [round(t / num_steps * (TUNING_RUNGS - 1)) for t in range(num_steps + 1)]
        return self._run("main", [tuned[i] for i in nearest], tuning=False)

    def _run(self, key: str, log_steps: list[Tensor], *, tuning: bool) -> Tensor:
        """Climb the ladder with a step length (B,) per rung; tuning writes into that list."""
        device = self.x.device
        generators = [
            generator_for("ais", key, self.seed, row, device=device) for row in self.rows
        ]
        ladder = _ladder(len(log_steps) - 1)
        point, _ = self._at(self._beginning(generators), 0.0)
        log_weight = point.log_density(ladder[1]) - point.log_density(0.0)
        for t in range(1, len(ladder) - 1):
            point, acceptance = self._moved(point, ladder[t], log_steps[t].exp(), generators)
            log_weight += point.log_density(ladder[t + 1]) - point.log_density(ladder[t])
            if tuning:
                log_steps[t + 1] = log_steps[t] + acceptance - ACCEPTANCE
        return log_weight

    def _beginning(self, generators: list[torch.Generator]) -> Tensor:
        """Draws from π, (C, B, d)."""
        if self.q is not None:
            noise = [self.model.noise(1, self.num_chains, g) for g in generators]
            return self.q.rsample(concatenate_noise(noise)["z"])
        given = [None if self.context is None else self.context[i] for i in range(len(self.x))]
        some = [None if c is None else c.expand(self.num_chains, *c.shape) for c in given]
        draws = [
            self.model.prior.sample(self.num_chains, c, g)
            for c, g in zip(some, generators, strict=True)
        ]
        return torch.stack(draws, dim=1)

    def _at(self, z: Tensor, beta: float) -> tuple[_Point, Tensor]:
        """The densities at ``z``, and the gradient of log f_β there."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_joint = self.model.log_joint(self.x, {"z": z}, self.context)
            q = self.q
            log_start = q.log_prob(z) if q else self.model.prior.log_prob(z, self.context)
            point = _Point(z, log_start, log_joint)
            (gradient,) = torch.autograd.grad(point.log_density(beta).sum(), z)
        return _Point(z.detach(), log_start.detach(), log_joint.detach()), gradient

    def _moved(
        self, point: _Point, beta: float, step: Tensor, generators: list[torch.Generator]
    ) -> tuple[_Point, Tensor]:
        """One Hamiltonian step that leaves f_β as it is, and its acceptance rate (B,)."""
        # Momentum (C, B, d), and one normal more, whose quantile is uniform, for the test.
        size = self.num_chains, 1, point.z.shape[-1] + 1
        like = point.z.new_empty(size)
        noise = torch.cat([like.clone().normal_(generator=g) for g in generators], dim=1)
        momentum, log_uniform = noise[..., :-1], torch.special.log_ndtr(noise[..., -1])
        # Leapfrog: half a step of momentum, then whole steps in turn, and half a step back.
        step = step.to(point.z.dtype)[:, None]
        _, gradient = self._at(point.z, beta)
        z, v = point.z, momentum + 0.5 * step * gradient
        for _ in range(LEAPFROG_STEPS):
            z = z + step * v
            end, gradient = self._at(z, beta)
            v = v + step * gradient
        v = v - 0.5 * step * gradient
        # Metropolis: the energy that the path has won or lost; a path that ran away is refused.
        kinetic = 0.5 * (momentum.square() - v.square()).sum(-1)
        log_ratio = end.log_density(beta) - point.log_density(beta) + kinetic
        log_ratio = log_ratio.nan_to_num(nan=-math.inf, posinf=-math.inf)
        acceptance = log_ratio.clamp_max(0).exp().mean(0)
        return end.where(log_uniform < log_ratio, point), acceptance
