"""Posteriors q(z|x): how the encoder's numbers become a distribution over latents.

    diagonal    N(μ, diag σ²)
    isotropic   N(μ, σ² I)
    full        N(μ, L Lᵀ), L lower triangular: latents that depend on each other
    iaf         z = f_T ∘ … ∘ f_1(μ + σ ε): a Gaussian moved by inverse autoregressive steps

Each step of the last is z ← σ_t ⊙ z + (1 − σ_t) ⊙ m_t, where the i-th gate σ_t and target m_t see
z_<i and a context h from the encoder; the order of the entries turns round from step to step.

References:
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016.
    Roeder, Wu and Duvenaud, Sticking the Landing, 2017 (log q with its parameters held fixed).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.distributions import DiagonalGaussian, FullGaussian
from lowerbound.errors import refuse
from lowerbound.models.flowed import FlowedGaussian
from lowerbound.models.priors import MAX_LOG_SCALE, MIN_LOG_SCALE
from lowerbound.nn import Autoregressive, Chain

__all__ = [
    "DiagonalPosterior",
    "Encoded",
    "FlowPosterior",
    "FullPosterior",
    "IsotropicPosterior",
    "Posterior",
    "PosteriorName",
    "make_posterior",
]

PosteriorName = Literal["diagonal", "isotropic", "full", "iaf"]
Encoded = DiagonalGaussian | FullGaussian | FlowedGaussian
"""What an encoder gives: mean, stddev, sample, rsample, log_prob and detach."""
LARGEST_FULL = 64
NUM_CONTEXT = 64


class Posterior(nn.Module):
    """The promise of a posterior: so many numbers of an encoder, as a distribution over z.

    Args:
        latent_dim: d.
    """

    name: ClassVar[str]
    has_density: ClassVar[bool] = True
    """Whether log q(z|x) of any z takes one pass."""
    num_parameters: int

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, parameters: Tensor) -> Encoded:
        """Q(z|x) over (B, d) from the encoder's output (B, num_parameters)."""
        raise NotImplementedError


class DiagonalPosterior(Posterior):
    """N(μ, diag σ²)."""

    name: ClassVar[str] = "diagonal"

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.sizes = [latent_dim, latent_dim]
        self.num_parameters = sum(self.sizes)

    def forward(self, parameters: Tensor) -> DiagonalGaussian:
        """Means first, then log standard deviations, clamped."""
        loc, log_scale = parameters.split(self.sizes, dim=-1)
        return DiagonalGaussian(loc, F.hardtanh(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE))


class IsotropicPosterior(DiagonalPosterior):
    """N(μ, σ² I): one standard deviation per example."""

    name: ClassVar[str] = "isotropic"

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.sizes = [latent_dim, 1]
        self.num_parameters = sum(self.sizes)


class FullPosterior(Posterior):
    """N(μ, L Lᵀ) with L from the encoder, its diagonal by its logarithm.

    Raises:
        InputError: above 64 dimensions, where L would be most of what the encoder says.
    """

    name: ClassVar[str] = "full"
    rows: Tensor
    columns: Tensor

    def __init__(self, latent_dim: int) -> None:
        if latent_dim > LARGEST_FULL:
            required = f"at most {LARGEST_FULL} for a full posterior"
            raise refuse("latent_dim", required, latent_dim, "choose --posterior iaf")
        super().__init__(latent_dim)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.num_parameters = 2 * latent_dim + len(rows)

    def forward(self, parameters: Tensor) -> FullGaussian:
        """Means, logarithms of L's diagonal, and row by row what is below it."""
        d = self.latent_dim
        loc, log_scale, below = parameters.split([d, d, len(self.rows)], dim=-1)
        log_scale = F.hardtanh(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE)
        triangle = torch.diag_embed(log_scale.exp())
        return FullGaussian(loc, triangle.index_put(self._places(triangle), below))

    def _places(self, triangle: Tensor) -> tuple[Tensor, ...]:
        """Where the numbers below the diagonal go, in every matrix (…, d, d)."""
        assert triangle.ndim == 3
        each = torch.arange(len(triangle), device=triangle.device)[:, None]
        return each, self.rows, self.columns


class FlowPosterior(Posterior):
    """A diagonal Gaussian moved by inverse autoregressive steps.

    Args:
        latent_dim: d.
        num_steps: T.
        width: hidden units per layer of each step's network.
    """

    name: ClassVar[str] = "iaf"
    has_density: ClassVar[bool] = False

    def __init__(self, latent_dim: int, num_steps: int = 4, *, width: int = 256) -> None:
        super().__init__(latent_dim)
        for name, value in (("posterior_steps", num_steps), ("flow_width", width)):
            if value < 1:
                raise refuse(name, "at least 1", value)
        self.flow = Chain(
            [
                Autoregressive(latent_dim, NUM_CONTEXT, width=width, gated=True, reverse=step > 0)
                for step in range(num_steps)
            ]
        )
        self.num_parameters = 2 * latent_dim + NUM_CONTEXT

    def forward(self, parameters: Tensor) -> FlowedGaussian:
        """Means and log standard deviations of where z begins, then the context of the steps."""
        d = self.latent_dim
        loc, log_scale, context = parameters.split([d, d, NUM_CONTEXT], dim=-1)
        base = DiagonalGaussian(loc, F.hardtanh(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE))
        return FlowedGaussian(base, context, self.flow)


def make_posterior(
    name: str, latent_dim: int, *, num_steps: int = 4, width: int = 256
) -> Posterior:
    """The posterior of a name over d = ``latent_dim`` latents."""
    if name == "iaf":
        return FlowPosterior(latent_dim, num_steps, width=width)
    plain = {p.name: p for p in (DiagonalPosterior, IsotropicPosterior, FullPosterior)}
    return plain[name](latent_dim)
