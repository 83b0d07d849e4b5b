"""Transform coding by the discrete cosine transform: the fixed basis next to which PCA is learned.

Along an axis of n elements the DCT-II has the orthonormal rows

    φ_0(i) = √(1/n),   φ_k(i) = √(2/n) cos(π (2i + 1) k / 2n),   k = 1 … n − 1,

and along several axes their products. With the training mean m, z_k = ⟨φ_k, x − m⟩ is an encoder
and x = m + Σ_k z_k φ_k its inverse. Keeping the n coefficients of largest variance loses, per
example and on average over the training set, the sum of the other variances: the least of any n
coefficients of this basis, and never less than what n principal components lose.

References:
    Ahmed, Natarajan and Rao, Discrete Cosine Transform, 1974.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.data import Source, measured
from lowerbound.distributions import Support
from lowerbound.errors import refuse
from lowerbound.models.classical.moments import mean_of, vectors
from lowerbound.models.coder import Coder, Point

__all__ = ["DCTCoder", "DCTOptions", "dct_matrix"]


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of n numbers as a matrix (n, n) of rows φ_k, float64.

    >>> phi = dct_matrix(5)
    >>> torch.allclose(phi @ phi.mT, torch.eye(5, dtype=torch.float64))
    True
    """
    i = torch.arange(n, dtype=torch.float64)
    phi = math.sqrt(2 / n) * torch.cos(math.pi / (2 * n) * torch.outer(i, 2 * i + 1))
    phi[0] /= math.sqrt(2)
    return phi


@dataclass(frozen=True)
class DCTOptions:
    """Options of the DCT coder."""

    latent_dim: int = 40
    """Number of coefficients that are kept, n; at most as many as the data have dimensions."""

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise refuse("latent_dim", "at least 1", self.latent_dim)


class DCTCoder(Coder):
    """The DCT over all axes of an event, of which the ``latent_dim`` best coefficients are kept.

    Not a likelihood. Computed in float64, axis by axis, so that no D × D matrix is ever made.

    Args:
        event_shape: shape of one example; D is its number of elements.
        support: what values an element can take; decoded values are real and may leave it.
        latent_dim: n, at most D.

    Raises:
        InputError: n above D.
    """

    name: ClassVar[str] = "dct"

    mu: Tensor
    kept: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support, latent_dim: int) -> None:
        super().__init__(event_shape, support)
        size = num_elements(event_shape)
        if latent_dim > size:
            raise refuse("latent_dim", f"at most the {size} dimensions of the data", latent_dim)
        self.latent_dim = latent_dim
        self.register_buffer("mu", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("kept", torch.arange(latent_dim))

    @classmethod
    def build(
        cls, event_shape: Sequence[int], support: Support, options: DCTOptions = DCTOptions()
    ) -> DCTCoder:
        """The model that ``options`` describe."""
        model = cls(event_shape, support, options.latent_dim)
        model.options = options
        return model

    @property
    def num_parameters(self) -> int:
        """Measured numbers: the mean, and which coefficients are kept."""
        return len(self.mu) + self.latent_dim

    @torch.no_grad()
    def fit_exactly(self, source: Source) -> bool:
        """Measure the mean, and keep the coefficients of largest variance, largest first."""
        x = measured(source.train)
        self.mu.copy_(mean_of(x, self.mu))
        variance = torch.zeros_like(self.mu)
        for block in vectors(x, self.mu):
            variance += self._transformed(block - self.mu).square().sum(0) / len(x)
        order = torch.sort(variance, descending=True, stable=True).indices
        self.kept.copy_(order[: self.latent_dim])
        self.calibrated.fill_(True)
        return True

    def _transformed(self, x: Tensor, *, inverse: bool = False) -> Tensor:
        """Vectors (B, D) to all their coefficients (B, D), or back, one axis at a time."""
        y = x.reshape(-1, *self.event_shape)
        for axis, n in enumerate(self.event_shape, start=1):
            phi = dct_matrix(n).to(x)
            y = ((phi.mT if inverse else phi) @ y.movedim(axis, -1).unsqueeze(-1)).squeeze(-1)
            y = y.movedim(-1, axis)
        return y.flatten(1)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Point:
        """The kept coefficients of x − m, (B, n), in the units of the data."""
        self.check_shape(x)
        centered = x.flatten(1).to(self.mu) - self.mu
        return Point(self._transformed(centered)[:, self.kept])

    def decode(self, z: Tensor, context: Tensor | None = None) -> Point:
        """The inverse transform of coefficients (N, n), the others being 0: (N, *event)."""
        self.check_latents(z, len(self.kept))
        coefficients = self.mu.new_zeros(len(z), len(self.mu))
        coefficients[:, self.kept] = z.to(self.mu)
        x = self._transformed(coefficients, inverse=True) + self.mu
        return Point(x.reshape(-1, *self.event_shape), len(self.event_shape))
