"""Where the nats of a diffusion go: its bound level by level, and in two forms of one sum.

The KL form, after Bayes' rule, is what `Diffusion.bound` estimates:

    log p(x|z_1) − KL(q(z_T|x) ‖ p(z_T)) − Σ_{t=2}^T KL(q(z_{t−1}|z_t, x) ‖ p(z_{t−1}|z_t))

The form before it goes by the forward kernels, and has the same mean:

    log p(x|z_1) + log p(z_T) − log q(z_1|x) + Σ_{t=2}^T log p(z_{t−1}|z_t)/q(z_t|z_{t−1})

Term by term the second varies far more: it compares densities at draws, where the first has
integrated them. An estimate from single steps, such as training's, must therefore use the first.
Summed over one whole chain its terms cancel instead: the sum is the log-weight log p(x, z)/q(z|x),
which is the constant log p(x) for a model that is right.

References:
    Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, appendix A.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound._shapes import repeated_rows
from lowerbound.data import Mask, Split
from lowerbound.distributions import DiagonalGaussian
from lowerbound.errors import refuse
from lowerbound.evaluation.base import (
    as_split,
    blocks,
    check_split,
    context_of,
    judging,
    mean_dims,
    standard_error,
)
from lowerbound.evaluation.judge import subset
from lowerbound.models import Diffusion, Model
from lowerbound.models.chain import Step, step
from lowerbound.noising import alpha, sigma

__all__ = ["NoiseSplit", "split_by_noise", "two_forms"]

AT_ONCE = 256
CLEAN_DRAWS = 16  # of z_0, where a few numbers decide what an example costs; no network is asked


@dataclass(frozen=True)
class NoiseSplit:
    """A bound by noise levels: means over examples, nats per example.

    Args:
        gammas: edges of S bins of γ, rising (S + 1,); of a chain split step by step its levels.
        rates: what the steps inside each bin cost, (S,); they sum to the diffusion term.
        standard_errors: of the rates over examples, (S,).
        prior: KL(q(z_1|x) ‖ p(z_1)).
        reconstruction: log p(x|z_0).
        errors: standard errors over examples of ``"prior"``, ``"reconstruction"`` and ``"bound"``.
        num_dims: numbers of an example; where a part of x is given, of its rest, on average.
        num_examples: how many the means are of.
    """

    gammas: Tensor
    rates: Tensor
    standard_errors: Tensor
    prior: float
    reconstruction: float
    errors: dict[str, float | None]
    num_dims: float
    num_examples: int

    @property
    def bound(self) -> float:
        """What the parts come to, nats."""
        return self.reconstruction - self.prior - float(self.rates.sum())

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain values, nats per example; of one example there is no error."""
        terms = {name: getattr(self, name) for name in ("bound", "reconstruction", "prior")}
        return {
            "unit": "nats",
            "num_examples": self.num_examples,
            "num_dims": self.num_dims,
            **{k: {"value": v, "standard_error": self.errors[k]} for k, v in terms.items()},
            "gammas": self.gammas.tolist(),
            "rates": self.rates.tolist(),
            "standard_errors": self.standard_errors.tolist() if self.num_examples > 1 else None,
            "bits_per_dim": self.bits(),
        }

    def bits(self) -> dict[str, Any]:
        """All parts in bits per dimension, what is lost being positive."""
        scale = 1 / (self.num_dims * math.log(2))
        return {
            "reconstruction": -self.reconstruction * scale,
            "steps": (self.rates * scale).tolist(),
            "prior": self.prior * scale,
        }


def split_by_noise(
    model: Model,
    x: Tensor | Split,
    context: Tensor | None = None,
    *,
    num_bins: int | None = None,
    max_rows: int = 500,
    seed: int = 0,
) -> NoiseSplit:
    """Every term of the bound, with a draw of its own for each example and bin.

    Args:
        model: a diffusion.
        x: examples (B, *event), or a split, which has its own contexts.
        context: of each example (B, …), where the model has one.
        num_bins: bins of equal length in t; every step of a chain, or 50 of continuous time,
            unless said. Of a bin of several steps one is drawn.
        max_rows: at most so many seeded rows.
        seed: row i sees the noise of (seed, i).

    Raises:
        InputError: a model that is no diffusion, or bins that do not fit it.
    """
    if not isinstance(model, Diffusion):
        raise refuse("model", "a diffusion", model.name)
    split = subset(as_split(x, context), max_rows)
    check_split(model, split)
    steps = None if model.timesteps is None else model.timesteps - 1
    num = num_bins or steps or 50
    if num < 1 or (steps is not None and num > steps):
        raise refuse("num_bins", f"from 1 to {steps or 'any number'}", num_bins)
    with judging(model):
        parts = [_of_row(model, split, row, num, seed) for row in range(len(split))]
        rates, others = (torch.stack(p).cpu() for p in zip(*parts, strict=True))
        gammas = _edges(model, num)
    spread = (
        rates.std(0) / math.sqrt(len(rates)) if len(rates) > 1 else torch.full((num,), math.nan)
    )
    reconstruction, prior = others.mean(0).tolist()
    each = {"reconstruction": others[:, 0], "prior": others[:, 1]}
    each["bound"] = each["reconstruction"] - each["prior"] - rates.sum(1)
    errors = {name: standard_error(value) for name, value in each.items()}
    given = errors, mean_dims(model, split), len(rates)
    return NoiseSplit(gammas, rates.mean(0), spread, prior, reconstruction, *given)


def _edges(model: Diffusion, num: int) -> Tensor:
    """γ at the edges of the bins (num + 1,)."""
    if model.timesteps is None:
        return model.schedule.levels(num + 1).cpu()
    return model.schedule.levels(model.timesteps)[_firsts(model.timesteps - 1, num)].cpu()


def _firsts(num_steps: int, num_bins: int) -> Tensor:
    """The first step of each bin, and one past the last, (num_bins + 1,).

    >>> _firsts(10, 4).tolist()
    [0, 2, 5, 7, 10]
    """
    return torch.arange(num_bins + 1) * num_steps // num_bins


def _of_row(
    model: Diffusion, split: Split, row: int, num: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Rates of one example in each bin (num,), and its reconstruction and prior (2,), float64."""
    device = model.calibrated.device
    rows = slice(row, row + 1)
    x, context = split[rows][0].to(device), context_of(model, split, rows)
    y, generator = model.end.scaled(x), generator_for("noise levels", seed, row, device=device)
    eps_0 = torch.randn(CLEAN_DRAWS, 1, *model.event_shape, generator=generator, device=device)
    eps = torch.randn(num, 1, *model.event_shape, generator=generator, device=device)
    place = torch.rand(num, 1, generator=generator, device=device)
    clean = model.reconstruction(x, y, eps_0, context).mean(0)
    others = torch.cat([clean, model.prior_rate(y, context)])
    parts = []
    for some in blocks(num, AT_ONCE):
        bins = torch.arange(some.start, some.stop, device=device).unsqueeze(1)
        if model.timesteps is None:
            time = (bins + place[some]) / num
            parts.append(model.rates_at(y, eps[some], time, context)[0] / num)
            continue
        gammas = model.schedule.levels(model.timesteps).to(y.dtype)
        firsts = _firsts(model.timesteps - 1, num).to(device)
        count = firsts[bins + 1] - firsts[bins]
        index = firsts[bins] + torch.minimum((place[some] * count).long(), count - 1)
        rate = model.step_rates(y, eps[some], gammas[index], gammas[index + 1], context)
        parts.append(count * rate)
    return torch.cat(parts).squeeze(1).double(), others.double()


def two_forms(
    model: Model,
    x: Tensor,
    num_samples: int = 1,
    *,
    context: Tensor | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The bound of whole chains z_1 … z_T ~ q(·|x) before and after Bayes' rule, nats.

    Args:
        model: a diffusion of T levels.
        x: examples (B, *event).
        num_samples: M chains per example.
        context: of each example (B, …), where the model has one: classes or vectors.
        seed: of the chains.

    Returns:
        The form of the forward kernels and the KL form, on the same chains, each (M, B, T + 1),
        float64: the clean end, the steps t = 2 … T, the noisy end. Over the last axis each sums
        to a bound.

    Raises:
        InputError: a model that is no chain, or that is given a part of x.
    """
    if not isinstance(model, Diffusion) or model.timesteps is None:
        raise refuse("model", "a diffusion of T levels (--timesteps)", model.name)
    if isinstance(model.context, Mask):
        raise refuse("model", "one of whole examples", f"given {model.context}")
    check_split(model, as_split(x))
    device = model.calibrated.device
    generator = generator_for("two forms", seed, device=device)
    with judging(model):
        given = context_of(model, as_split(x, context))
        told = None if given is None else repeated_rows(given, num_samples)
        chains = repeated_rows(x.to(device), num_samples)
        forward, after = _along_chain(model, chains, told, generator)
    one, other = (torch.stack(f, -1).unflatten(0, (num_samples, -1)) for f in (forward, after))
    return one, other


def _along_chain(
    model: Diffusion, x: Tensor, context: Tensor | None, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """See `two_forms`; of examples (N, *event), terms (N,) of both."""
    assert model.timesteps is not None
    y = model.end.scaled(x)
    gammas = model.schedule.levels(model.timesteps).to(y.dtype)

    def normal() -> Tensor:
        return torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype)

    # The clean end: z_1 ~ q(z_1|x), and x back from it.
    eps = normal()
    z = alpha(gammas[0]) * y + sigma(gammas[0]) * eps
    reconstruction = model.reconstruction(x, y, eps.unsqueeze(0))[0].double()
    entered = _log_normal(z, alpha(gammas[0]) * y, sigma(gammas[0]).square())
    forward, after = [reconstruction - entered], [reconstruction]
    # Steps: z_t ~ q(z_t|z_s) and back.
    for gamma_s, gamma_t in itertools.pairwise(gammas):
        kept = alpha(gamma_t) / alpha(gamma_s)
        added = -sigma(gamma_t).square() * torch.expm1(gamma_s - gamma_t)
        z_s, z = z, kept * z + added.sqrt() * normal()
        p, q = model.reverse(z, gamma_s, gamma_t, context), step(z, y, gamma_s, gamma_t)
        forward.append(_log_normal(z_s, p.mean, p.variance) - _log_normal(z, kept * z_s, added))
        after.append(-_kl_normal(q, p))
    # The noisy end.
    forward.append(_log_normal(z, torch.zeros_like(z), torch.ones_like(z)))
    return forward, [*after, -model.prior_rate(y).double()]


def _log_normal(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log N(z; mean, variance) of (N, *event): (N,), float64."""
    log_scale = 0.5 * variance.double().log()
    return DiagonalGaussian(mean.double(), log_scale, z.ndim - 1).log_prob(z.double())


def _kl_normal(q: Step, p: Step) -> Tensor:
    """KL(q ‖ p) of (N, *event) from moments alone, not as the bound has it: (N,), float64."""
    ratio = (q.variance / p.variance).double()
    kl = (q.mean - p.mean).double().square() / p.variance.double() + ratio - 1 - ratio.log()
    return 0.5 * kl.flatten(1).sum(1)
