"""The Gaussian of any covariance, by its triangular factor: Σ = L Lᵀ, z = μ + L ε.

log N(x; μ, Σ) = −½ ‖L⁻¹(x − μ)‖² − Σ_i log L_ii − (d/2) log 2π

KL(N(μ₀, Σ₀) ‖ N(μ₁, Σ₁)) = ½ [tr Σ₁⁻¹Σ₀ − d + (μ₁ − μ₀)ᵀ Σ₁⁻¹ (μ₁ − μ₀) + log det Σ₁/det Σ₀].

With M = L₁⁻¹ L₀, which is triangular, tr Σ₁⁻¹Σ₀ = ‖M‖² and the determinants are those of the
diagonals, so that

KL = ½ [Σ_i (e^{u_i} − 1 − u_i) + Σ_{i>j} M_ij² + ‖L₁⁻¹(μ₁ − μ₀)‖²],  u_i = 2 log M_ii:

a sum of terms that are never negative. For diagonal covariances it is `kl_gaussian`. Where p is
diagonal, the terms of row i are E KL(q(z_i|z_<i) ‖ p(z_i)): the chain rule of the KL.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lowerbound.distributions.base import Distribution
from lowerbound.distributions.gaussian import DiagonalGaussian
from lowerbound.distributions.numerics import HALF_LOG_2PI, excess
from lowerbound.errors import refuse

__all__ = ["FullGaussian", "chain_kl", "kl_full_gaussian"]


@dataclass(frozen=True)
class FullGaussian(Distribution):
    """N(μ, L Lᵀ) over vectors; ``event_ndim`` is 1.

    Args:
        loc: means μ (…, d).
        scale_tril: L (…, d, d), lower triangular, its diagonal positive: a Cholesky factor.

    >>> q = FullGaussian.from_covariance(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> q.covariance
    tensor([[2.0000, 1.0000],
            [1.0000, 2.0000]])
    """

    loc: Tensor
    scale_tril: Tensor
    event_ndim: int = 1

    @classmethod
    def from_covariance(cls, loc: Tensor, covariance: Tensor) -> FullGaussian:
        """N(μ, Σ) by the eigenvectors of Σ (…, d, d), also where Cholesky's method gives up.

        Raises:
            InputError: a covariance that is not symmetric and positive definite.
        """
        size = covariance.abs().max()
        if not torch.allclose(covariance, covariance.mT, rtol=0, atol=1e-5 * float(size)):
            raise refuse("covariance", "symmetric", "one that is not", "pass (S + S.mT) / 2")
        values, vectors = torch.linalg.eigh(covariance)
        return cls.from_eigen(loc, values, vectors)

    @classmethod
    def from_eigen(cls, loc: Tensor, values: Tensor, vectors: Tensor) -> FullGaussian:
        """N(μ, V diag(λ) Vᵀ) from eigenvalues λ (…, d) and orthonormal columns V (…, d, d).

        Raises:
            InputError: an eigenvalue that is not above zero to rounding.
        """
        rounding = values.shape[-1] * torch.finfo(values.dtype).eps * values.abs().amax(-1)
        if not bool((values.amin(-1) > rounding).all()):
            raise refuse(
                "covariance",
                "positive definite",
                f"a smallest eigenvalue of {float(values.min()):g}",
                "add a small number to its diagonal, or drop columns that follow from others",
            )
        # A Aᵀ = Σ for A = V √λ; with Aᵀ = Q R it is Rᵀ R, and Rᵀ is triangular.
        root = vectors * values.sqrt().unsqueeze(-2)
        upper = torch.linalg.qr(root.mT).R
        signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
        return cls(loc, (upper * signs.unsqueeze(-1)).mT)

    @property
    def mean(self) -> Tensor:
        """Expectation μ, (…, d)."""
        return self.loc

    @property
    def covariance(self) -> Tensor:
        """Σ = L Lᵀ, (…, d, d)."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def log_scale(self) -> Tensor:
        """Logarithms of L's diagonal, (…, d); they sum to half the log-determinant of Σ."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of ``x`` (…, d) in nats, (…)."""
        standardized = _solve(self.scale_tril, x - self.loc)
        return -(0.5 * standardized.square() + HALF_LOG_2PI).sum(-1) - self.log_scale.sum(-1)

    def rsample(self, noise: Tensor) -> Tensor:
        """Reparameterised draw z = μ + L ε for standard normal ``noise`` (K, …, d)."""
        with torch.autocast(noise.device.type, enabled=False):  # a draw is no network's work
            return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of each entry by itself, √Σ_ii, (…, d)."""
        return self.scale_tril.square().sum(-1).sqrt()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw (…, d)."""
        shape = torch.broadcast_shapes(self.loc.shape, self.scale_tril.shape[:-1])
        noise = self.loc.new_empty(shape).normal_(generator=generator)
        return self.rsample(noise).detach()

    def entropy(self) -> Tensor:
        """Differential entropy ½ log det Σ + (d/2) log 2πe in nats, (…)."""
        return (self.log_scale + 0.5 + HALF_LOG_2PI).sum(-1)

    def detach(self) -> FullGaussian:
        """The same distribution with parameters that carry no gradient."""
        return FullGaussian(self.loc.detach(), self.scale_tril.detach())


def kl_full_gaussian(q: FullGaussian, p: FullGaussian | None = None) -> Tensor:
    """KL(q ‖ p) in nats, (…); ``p`` is N(0, I) when left out.

    >>> q = FullGaussian(torch.ones(2), torch.eye(2))
    >>> kl_full_gaussian(q)
    tensor(1.)
    """
    loc, ratio, log_ratio = q.loc, q.scale_tril, q.log_scale
    if p is not None:  # in the units of p, p is standard normal
        loc = _solve(p.scale_tril, q.loc - p.loc)
        left, right = torch.broadcast_tensors(p.scale_tril, q.scale_tril)
        ratio = torch.linalg.solve_triangular(left, right, upper=False)
        log_ratio = q.log_scale - p.log_scale
    mixing = ratio.tril(-1).square().sum((-2, -1))
    return 0.5 * (excess(2 * log_ratio).sum(-1) + mixing + loc.square().sum(-1))


def chain_kl(q: FullGaussian, p: DiagonalGaussian | None = None) -> Tensor:
    """E KL(q(z_i|z_<i) ‖ p(z_i)) of each i, (…, d), nats; they sum to KL(q ‖ p).

    ``p`` is N(0, I) when left out. No entry is negative, but which dimension pays for what two of
    them share depends on their order.

    >>> chain_kl(FullGaussian(torch.tensor([1.0, 2.0]), torch.eye(2)))
    tensor([0.5000, 2.0000])
    """
    loc, rows, log_scale = q.loc, q.scale_tril, q.log_scale
    if p is not None:  # in the units of p, p is standard normal
        unit = torch.exp(-p.log_scale)
        loc, rows = (loc - p.loc) * unit, rows * unit.expand_as(p.loc).unsqueeze(-1)
        log_scale = log_scale - p.log_scale
    return 0.5 * (excess(2 * log_scale) + rows.tril(-1).square().sum(-1) + loc.square())


def _solve(scale_tril: Tensor, x: Tensor) -> Tensor:
    """L⁻¹ x for vectors (…, d), with leading axes of either broadcast."""
    extra = x.ndim + 1 - scale_tril.ndim
    if extra > 0 and x.shape[extra:] == scale_tril.shape[:-1]:  # many x of each L: its columns
        columns = x.flatten(0, extra - 1).movedim(0, -1)
        solved = torch.linalg.solve_triangular(scale_tril, columns, upper=False)
        return solved.movedim(-1, 0).unflatten(0, x.shape[:extra])
    shape = torch.broadcast_shapes(scale_tril.shape[:-1], x.shape)
    return torch.linalg.solve_triangular(
        scale_tril.expand(*shape, -1), x.expand(shape).unsqueeze(-1), upper=False
    ).squeeze(-1)
