"""z ~ N(0, I), x|z ~ N(c z, s²), q = N(η, τ²) as a model, with parameters of its own for each row.

Rows are repetitions: a gradient with respect to a parameter (B, 1) is B independent draws of the
gradient of one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from lowerbound.distributions import DiagonalGaussian
from lowerbound.models import StandardNormal
from lowerbound.objectives import OBJECTIVES, UNWEIGHTED, Bound
from tests.oracles import LinearGaussian

KNOWN = LinearGaussian()
AT = {"c": KNOWN.c, "eta": KNOWN.eta, "log_tau": math.log(KNOWN.tau)}
NAMES = tuple(AT)


@dataclass
class ToyDraw:
    log_weight: torch.Tensor
    latents: dict[str, torch.Tensor]
    log_likelihood: torch.Tensor


class Toy:
    """`LinearGaussian` in d equal dimensions, each row with parameters of its own: (B, 1)."""

    def __init__(self, rows: int, d: int = 1, posterior: bool = False, kl: str = "analytic"):
        at = dict(AT)
        if posterior:
            at["eta"], at["log_tau"] = KNOWN.posterior[0], 0.5 * math.log(KNOWN.posterior[1])
        for name, value in at.items():
            leaf = torch.full((rows, 1), value, dtype=torch.float64, requires_grad=True)
            setattr(self, name, leaf)
        self.d, self.kl = d, kl
        self.prior = StandardNormal(d).double()
        self.x = torch.full((rows, d), KNOWN.x, dtype=torch.float64)

    def noise(self, num_samples: int, seed: int = 0) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = (num_samples, len(self.x), self.d)
        return {"z": torch.randn(shape, generator=generator, dtype=torch.float64)}

    def log_likelihood(self, x, z):
        return DiagonalGaussian(
            self.c * z, torch.tensor(math.log(KNOWN.s), dtype=torch.float64)
        ).log_prob(x)

    def log_joint(self, x, latents, context=None):
        return self.log_likelihood(x, latents["z"]) + self.prior.log_prob(latents["z"], context)

    def posterior(self):
        return DiagonalGaussian(self.eta.expand(-1, self.d), self.log_tau)

    def draw(self, x, num_samples, context=None, *, noise=None, path=False):
        q = self.posterior()
        z = q.rsample(noise["z"])
        log_q = (q.detach() if path else q).log_prob(z)
        log_likelihood = self.log_likelihood(x, z)
        log_weight = log_likelihood + self.prior.log_prob(z) - log_q
        return ToyDraw(log_weight, {"z": z}, log_likelihood)

    def bound(self, x, context=None, *, num_samples=1, noise=None, generator=None):
        q = self.posterior()
        z = q.rsample(noise["z"])
        return Bound(self.log_likelihood(x, z).mean(0), *self.prior.rates(q, z, None, self.kl))


def run(name, num_samples, *, rows=20_000, weights=UNWEIGHTED, **options):
    """Loss, bound and model after one call of an objective on fresh rows."""
    model = Toy(rows, **options)
    loss, bound = OBJECTIVES[name](
        model, model.x, None, model.noise(num_samples), num_samples, weights
    )
    return loss, bound, model


def slopes(name, num_samples, **options):
    """Gradient of the value (rows,) with respect to each parameter, row by row."""
    loss, _, model = run(name, num_samples, **options)
    leaves = [getattr(model, n) for n in NAMES]
    grads = torch.autograd.grad(-loss.sum(), leaves, allow_unused=True)
    return {n: None if g is None else g.squeeze(1) for n, g in zip(NAMES, grads, strict=True)}


def assert_mean(values, exact, deviations=4.0):
    """The mean of ``values`` is within standard errors of the exact one (or equal to rounding)."""
    values = values.detach()
    error = float(values.std()) / math.sqrt(len(values))
    assert float(values.mean()) == pytest.approx(exact, abs=deviations * error + 1e-9)
