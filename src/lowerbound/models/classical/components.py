"""The parts of a mixture: Gaussians side by side, a choice among them, and their weighted sum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lowerbound.distributions import Distribution

__all__ = ["ComponentMixture", "Components", "OneHot", "expected"]


def expected(weights: Tensor, values: Tensor) -> Tensor:
    """Σ_c w_c v_c over the last axis, where a weight of 0 counts for nothing, even times ∞.

    >>> expected(torch.tensor([0.5, 0.0]), torch.tensor([4.0, -math.inf]))
    tensor(2.)
    """
    return torch.where(weights == 0, 0.0, weights * values).sum(-1)


@dataclass(frozen=True)
class Components:
    """C Gaussians N(μ_c, Σ_c) over vectors of D numbers.

    Args:
        means: μ, (C, D).
        scales: standard deviations (C, 1) or (C, D), or Cholesky factors L (C, D, D) of Σ = LLᵀ.
    """

    means: Tensor
    scales: Tensor

    @property
    def are_full(self) -> bool:
        """Whether the covariances are matrices."""
        return self.scales.ndim == 3

    def log_prob(self, points: Tensor) -> Tensor:
        """Log-density of vectors (…, D) under each component: (…, C), nats."""
        # One component at a time: differences of all at once would be C times the data.
        squared = [
            self._whitened(points - mean, c).square().sum(-1) for c, mean in enumerate(self.means)
        ]
        size = self.means.shape[1]
        deviations = self.scales.diagonal(dim1=-2, dim2=-1) if self.are_full else self.scales
        log_volume = deviations.log().expand_as(self.means).sum(-1)
        constant = log_volume + 0.5 * size * math.log(2 * math.pi)
        return -0.5 * torch.stack(squared, -1) - constant

    def _whitened(self, centered: Tensor, c: int) -> Tensor:
        """L⁻¹(x − μ) of centred vectors (…, D)."""
        if not self.are_full:
            return centered / self.scales[c]
        flat = centered.reshape(-1, centered.shape[-1])
        solved = torch.linalg.solve_triangular(self.scales[c], flat.mT, upper=False)
        return solved.mT.reshape(centered.shape)

    def inverse_diagonals(self) -> Tensor:
        """The diagonals of Σ_c⁻¹, (C, D)."""
        if not self.are_full:
            return self.scales.square().reciprocal().expand_as(self.means)
        eye = torch.eye(self.means.shape[1]).to(self.scales).expand_as(self.scales)
        return torch.linalg.solve_triangular(self.scales, eye, upper=False).square().sum(-2)

    def drawn(self, index: Tensor, noise: Tensor) -> Tensor:
        """μ_c + L_c ε of components ``index`` (N,) and standard normal ``noise`` (N, D)."""
        scales = self.scales[index]
        spread = (scales @ noise.unsqueeze(-1)).squeeze(-1) if self.are_full else scales * noise
        return self.means[index] + spread


@dataclass(frozen=True)
class OneHot(Distribution):
    """One of C, as a vector with a single 1; P(c) = softmax of ``logits`` (…, C)."""

    logits: Tensor
    event_ndim: int = 1

    @property
    def log_probs(self) -> Tensor:
        """Log P(c), (…, C), nats."""
        return self.logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """P(c), (…, C)."""
        return self.logits.softmax(-1)

    @property
    def stddev(self) -> Tensor:
        """Standard deviation √(P(1 − P)) of each entry, (…, C)."""
        return self.log_scale.exp()

    @property
    def log_scale(self) -> Tensor:
        """Log standard deviation √(P(1 − P)) of each entry, (…, C)."""
        return 0.5 * (self.log_probs + torch.log1p(-self.mean))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log P of one-hot vectors (…, C): (…), nats."""
        return expected(x, self.log_probs)

    def entropy(self) -> Tensor:
        """Entropy in nats, (…)."""
        return -expected(self.mean, self.log_probs)

    def chosen(self, u: Tensor) -> Tensor:
        """The one-hot vectors (K, …, C) that uniform ``u`` (K, …, 1) in [0, 1) choose."""
        edges = self.mean.cumsum(-1)[..., :-1]
        index = (u >= edges).sum(-1)
        return torch.nn.functional.one_hot(index, self.logits.shape[-1]).to(self.logits.dtype)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, (…, C)."""
        u = torch.empty_like(self.logits[..., :1]).uniform_(generator=generator)
        return self.chosen(u)


@dataclass(frozen=True)
class ComponentMixture(Distribution):
    """Σ_c w_c N(μ_c, Σ_c) over events, a row of weights for each.

    Args:
        weights: (N, C), not negative; they need not sum to one.
        components: the Gaussians, over vectors of D numbers.
        event_shape: of D elements.
    """

    weights: Tensor
    components: Components
    event_shape: tuple[int, ...]

    @property
    def event_ndim(self) -> int:  # type: ignore[override]
        """How many trailing axes are the event."""
        return len(self.event_shape)

    @property
    def choice(self) -> OneHot:
        """Which component, (N, C)."""
        return OneHot(self.weights.log())

    @property
    def mean(self) -> Tensor:
        """Expectation Σ_c w_c μ_c, (N, *event)."""
        return (self.choice.mean @ self.components.means).reshape(-1, *self.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of ``x`` (N, *event) or (M, N, *event): (N,) or (M, N), nats."""
        points = x.flatten(-self.event_ndim).to(self.weights.dtype)
        return (self.choice.log_probs + self.components.log_prob(points)).logsumexp(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw, (N, *event)."""
        index = self.choice.sample(generator).argmax(-1)
        noise = torch.empty_like(self.components.means[index]).normal_(generator=generator)
        return self.components.drawn(index, noise).reshape(-1, *self.event_shape)
