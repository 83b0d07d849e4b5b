"""Probabilistic PCA: the linear Gaussian latent variable model, fitted and judged in closed form.

    z ~ N(0, I_k),  x | z ~ N(W z + μ, σ² I).

With λ₁ ≥ … ≥ λ_D the eigenvalues of the training covariance and U its eigenvectors, the maximum
likelihood solution is μ = mean, σ² = mean of λ_{k+1..D}, W = U_k (Λ_k − σ²)^½. Its columns are
orthogonal, so that the exact posterior is the diagonal Gaussian N(M⁻¹Wᵀ(x − μ), σ² M⁻¹) with
M = WᵀW + σ² I = Λ_k, and the bound is log p(x) itself.

Discrete data are dequantised uniformly, x + u with u ~ U[0, 1) per element: E_u log p(x + u) is
computed in closed form, and is a lower bound on log P(x).

References:
    Tipping and Bishop, Probabilistic Principal Component Analysis, 1999.
    Theis, van den Oord and Bethge, A note on the evaluation of generative models, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.data import Source, measured
from lowerbound.distributions import DiagonalGaussian, Support, kl_gaussian
from lowerbound.errors import refuse
from lowerbound.models.base import Draw, Model
from lowerbound.models.classical.cells import UNIFORM_VARIANCE, cell_widths, values_of
from lowerbound.models.classical.moments import covariance_of, mean_of
from lowerbound.models.priors import StandardNormal
from lowerbound.objectives import Bound, Noise

__all__ = ["PPCAOptions", "ProbabilisticPCA"]


@dataclass(frozen=True)
class PPCAOptions:
    """Options of probabilistic PCA."""

    latent_dim: int = 40
    """Number of latent dimensions k; fewer than the data have."""

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise refuse("latent_dim", "at least 1", self.latent_dim)


class ProbabilisticPCA(Model):
    """Probabilistic PCA with ``latent_dim`` components, in float64.

    Args:
        event_shape: shape of one example; D is its number of elements.
        support: discrete data are dequantised uniformly.
        latent_dim: k, at most D − 1.
    """

    name: ClassVar[str] = "ppca"
    closed_form: ClassVar[bool] = True
    FLOOR: ClassVar[float] = 1e-3
    """Smallest sigma, in units of the root mean square deviation over all dimensions."""

    mu: Tensor
    weight: Tensor
    eigenvalues: Tensor
    variance: Tensor
    floored: Tensor
    width: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support, latent_dim: int) -> None:
        super().__init__(event_shape, support)
        size = num_elements(event_shape)
        if latent_dim >= size:
            raise refuse("latent_dim", f"below the {size} dimensions of the data", latent_dim)
        self.latent_dim = latent_dim
        self.prior = StandardNormal(latent_dim).double()
        self.register_buffer("mu", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(size, latent_dim, dtype=torch.float64))
        self.register_buffer("eigenvalues", torch.ones(latent_dim, dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))
        self.register_buffer("floored", torch.tensor(False))
        self.register_buffer("width", cell_widths(event_shape, support), persistent=False)

    @classmethod
    def build(
        cls, event_shape: Sequence[int], support: Support, options: PPCAOptions = PPCAOptions()
    ) -> ProbabilisticPCA:
        """The model that ``options`` describe."""
        model = cls(event_shape, support, options.latent_dim)
        model.options = options
        return model

    @property
    def dequantizes(self) -> bool:
        """Whether uniform noise is added to make a density of a mass."""
        return bool(self.width.any())

    @property
    def evidence_kind(self) -> str:
        """Exact on real data, a lower bound where they had to be dequantised."""
        return "lower bound" if self.dequantizes else "exact"

    @property
    def num_parameters(self) -> int:
        """Free numbers: the mean, the plane with its variances, and sigma."""
        size, k = len(self.mu), self.latent_dim
        return size + size * k - k * (k - 1) // 2 + 1

    @torch.no_grad()
    def fit_exactly(self, source: Source) -> bool:
        """Maximum likelihood from the eigenvectors of the training covariance."""
        x = measured(source.train)
        mean = mean_of(x, self.mu)
        covariance = covariance_of(x, mean)
        mean = mean + 0.5 * self.width
        covariance.diagonal().add_(UNIFORM_VARIANCE * self.width)
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        k = self.latent_dim
        self.mu.copy_(mean)
        # Data that fill fewer than k + 1 dimensions have no sigma of their own, but a floor.
        floor = (self.FLOOR**2 * eigenvalues.clamp_min(0).mean()).clamp_min(1e-300)
        rest = eigenvalues[:-k].mean()
        self.floored.copy_(rest <= floor)
        self.variance.copy_(torch.maximum(rest, floor))
        self.eigenvalues.copy_(eigenvalues[-k:].flip(0).clamp_min(float(self.variance)))
        scale = (self.eigenvalues - self.variance).sqrt()
        self.weight.copy_(vectors[:, -k:].flip(1) * scale)
        self.calibrated.fill_(True)
        return True

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Standard normal ``z``, and uniform ``u`` for the dequantisation of discrete data."""
        like = self.mu.new_empty(num_samples, batch_size, self.latent_dim)
        noise = {"z": like.normal_(generator=generator)}
        if self.dequantizes:
            u = self.mu.new_empty(num_samples, batch_size, len(self.mu))
            noise["u"] = u.uniform_(generator=generator)
        return noise

    def _posterior(self, x: Tensor) -> DiagonalGaussian:
        """The exact posterior at points ``x`` (…, D) of the real space."""
        loc = (x - self.mu) @ self.weight / self.eigenvalues
        return DiagonalGaussian(loc, 0.5 * torch.log(self.variance / self.eigenvalues))

    def _middles(self, x: Tensor) -> Tensor:
        """Examples as real vectors (B, D); discrete elements at the middle of their cells."""
        return x.flatten(1).to(self.mu) + 0.5 * self.width

    def encode(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """The posterior p(z|x), exact, (B, k)."""
        self.check_shape(x)
        return self._posterior(self._middles(x))

    def decode(self, z: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """p(x|z) over (N, *event), in the units of the data."""
        self.check_latents(z, self.weight.shape[1])
        loc = z.to(self.mu) @ self.weight.mT + self.mu - 0.5 * self.width
        return DiagonalGaussian(
            loc.reshape(-1, *self.event_shape), 0.5 * self.variance.log(), len(self.event_shape)
        )

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """See `Model.bound`; every term is exact, and noise is not used."""
        self.check_shape(x)
        points = self._middles(x)
        q = self._posterior(points)
        residual = points - self.mu - q.loc @ self.weight.mT
        shrinkage = self.variance / self.eigenvalues
        # E‖x − Wz − μ‖²: at the posterior mean, plus what the posterior's spread adds.
        error = residual.square().sum(-1) + ((self.eigenvalues - self.variance) * shrinkage).sum()
        kl = kl_gaussian(q)
        if self.dequantizes:
            # Uniform noise has variance 1/12 per element, here pushed through both terms.
            spread = UNIFORM_VARIANCE * self.width
            passed = self.weight.square() / self.eigenvalues.square()
            error = error + spread @ (1 - passed @ (self.eigenvalues + self.variance))
            kl = kl + 0.5 * spread @ passed
        log_variance = math.log(2 * math.pi) + self.variance.log()
        reconstruction = -0.5 * (len(self.mu) * log_variance + error / self.variance)
        return Bound(reconstruction, {"kl": kl.sum(-1)}, {"kl": kl})

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """See `Model.draw`; with the exact posterior the weights of real data are all p(x)."""
        noise = self._given(x, num_samples, noise, None)
        u = {"u": noise["u"]} if self.dequantizes else {}
        points = x.flatten(1).to(self.mu) + self.width * u.get("u", 0.0)
        q = self._posterior(points)
        latents = {"z": q.rsample(noise["z"]), **u}
        log_q = (q.detach() if path else q).log_prob(latents["z"])
        return Draw(self.log_joint(x, latents, context) - log_q, latents)

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `Model.log_joint`; latents ``z`` (K, B, k), and ``u`` where dequantised."""
        z = latents["z"]
        points = x.flatten(1).to(self.mu)
        points = points + self.width * latents["u"] if self.dequantizes else points
        p = DiagonalGaussian(z @ self.weight.mT + self.mu, 0.5 * self.variance.log())
        return p.log_prob(points) + self.prior.log_prob(z)

    @torch.no_grad()
    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """See `Model.sample`; draws of discrete data are rounded down to their cell."""
        z = self.mu.new_empty(num, self.latent_dim).normal_(generator=generator)
        p = self.decode(z)
        if mean:
            return p.mean
        return values_of(p.sample(generator), self.support)

    def notes(self) -> list[str]:
        """What was done to make a density of discrete data."""
        said = []
        if self.dequantizes:
            said.append(
                "Probabilistic PCA saw uniformly dequantised data: its nats are a lower bound on "
                "the log-probability of the discrete data."
            )
        if self.floored:
            said.append(
                f"The data fill at most {self.latent_dim} dimensions: the sigma of probabilistic "
                f"PCA is at its floor of {self.FLOOR:g} root mean square deviations, and its nats "
                "say little."
            )
        return said
