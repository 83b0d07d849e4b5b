"""Linear discriminants: the projection that keeps classes apart.

With class shares π_c, class means m_c and mean m of the training set, the covariance splits into
what is within and what is between classes, S = S_w + S_b, S_b = Σ_c π_c (m_c − m)(m_c − m)ᵀ.
Columns w of the projection maximise wᵀS_b w / wᵀS_w w, one after the other, with WᵀS_w W = I:

    z = Wᵀ(x − m),   x̂ = m + A z,   A = S W (WᵀS W)⁻¹,

where A is the least-squares line back from z to x. There are at most C − 1 such directions for C
classes. Directions without variance within classes are left out: nothing can be measured by them.
Where a column is such a direction and still differs between classes, it tells them apart by
itself, at a ratio of infinity; a note says that it was left out.

References:
    Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936.
    Rao, The Utilization of Multiple Measurements in Problems of Biological Classification, 1948.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.data import Source, held
from lowerbound.distributions import Support
from lowerbound.errors import refuse
from lowerbound.models.classical.moments import covariance_of, mean_of, vectors
from lowerbound.models.coder import Coder, Point

__all__ = ["LDAOptions", "LinearDiscriminants"]


@dataclass(frozen=True)
class LDAOptions:
    """Options of the linear discriminant projection."""

    latent_dim: int = 2
    """Number of discriminants k; fewer than there are classes."""

    def __post_init__(self) -> None:
        if self.latent_dim < 1:
            raise refuse("latent_dim", "at least 1", self.latent_dim)


class LinearDiscriminants(Coder):
    """The ``latent_dim`` directions that tell labelled classes apart best, in float64.

    Not a likelihood, and made to separate rather than to reconstruct: its squared error is larger
    than that of as many principal components.

    Args:
        event_shape: shape of one example; D is its number of elements.
        support: what values an element can take; decoded values are real and may leave it.
        latent_dim: k, at most D, and at most the number of classes − 1 when it is fitted.

    Raises:
        InputError: k above D; when fitted, data without labels or with too few classes.
    """

    name: ClassVar[str] = "lda"
    needs_labels: ClassVar[bool] = True
    TOLERANCE: ClassVar[float] = 1e-8
    """Smallest variance within classes that counts, relative to the column's, or to all."""

    mu: Tensor
    weight: Tensor
    back: Tensor

    def __init__(self, event_shape: Sequence[int], support: Support, latent_dim: int) -> None:
        super().__init__(event_shape, support)
        size = num_elements(event_shape)
        if latent_dim > size:
            raise refuse("latent_dim", f"at most the {size} dimensions of the data", latent_dim)
        self.latent_dim = latent_dim
        self.register_buffer("mu", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(size, latent_dim, dtype=torch.float64))
        self.register_buffer("back", torch.zeros(size, latent_dim, dtype=torch.float64))

    @classmethod
    def build(
        cls, event_shape: Sequence[int], support: Support, options: LDAOptions = LDAOptions()
    ) -> LinearDiscriminants:
        """The model that ``options`` describe."""
        model = cls(event_shape, support, options.latent_dim)
        model.options = options
        return model

    @property
    def num_parameters(self) -> int:
        """Measured numbers: the mean, the projection, and the way back."""
        return len(self.mu) + 2 * self.weight.numel()

    def _calibrate(self, source: Source) -> None:
        """Refuse data without enough classes before a run has begun."""
        labels = source.train.labels
        if labels is None:
            raise refuse(
                "data",
                f"labelled for a model of kind '{self.name}'",
                f"{source.name} without labels",
                "give labels, or use ppca, which needs none",
            )
        classes = len(labels.unique())
        if self.latent_dim >= classes:
            raise refuse("latent_dim", f"below the {classes} classes of the data", self.latent_dim)

    @torch.no_grad()
    def fit_exactly(self, source: Source) -> bool:
        """Whiten what is within classes, and take the principal directions of their means."""
        self._calibrate(source)
        train = held(source.train)
        x, labels = train.x, train.labels
        assert labels is not None
        # The two parts of the covariance.
        mean = mean_of(x, self.mu)
        total = covariance_of(x, mean)
        centers, shares = _class_means(x, labels, mean)
        spread = shares.sqrt().unsqueeze(1) * centers  # S_b = spreadᵀ spread
        within = total - spread.mT @ spread
        # Whiten: first by columns, so that their units decide nothing, then by eigenvectors.
        whitening = self._whitening(within, total)
        _, strength, directions = torch.linalg.svd(spread @ whitening, full_matrices=False)
        found = int((strength > 1e-6 * strength.max()).sum()) if len(strength) else 0
        if found < self.latent_dim:
            raise refuse(
                "latent_dim",
                f"at most {found}, in how many directions the class means of these data differ",
                self.latent_dim,
            )
        weight = whitening @ directions[: self.latent_dim].mT
        self.mu.copy_(mean)
        self.weight.copy_(weight)
        self.back.copy_(torch.linalg.solve(weight.mT @ total @ weight, weight.mT @ total).mT)
        self.calibrated.fill_(True)
        return True

    def _whitening(self, within: Tensor, total: Tensor) -> Tensor:
        """A matrix T (D, r) with TᵀS_w T = I, over the r directions that vary within classes."""
        variance, whole = within.diagonal(), total.diagonal()
        varies = variance > self.TOLERANCE * whole.clamp_min(self.TOLERANCE * whole.mean())
        inverse = torch.where(varies, variance.clamp_min(1e-300).rsqrt(), 0.0)
        eigenvalues, vectors = torch.linalg.eigh(inverse.unsqueeze(1) * within * inverse)
        kept = eigenvalues > self.TOLERANCE
        return inverse.unsqueeze(1) * vectors[:, kept] * eigenvalues[kept].rsqrt()

    def notes(self) -> list[str]:
        """Columns that were left out although the classes differ in them."""
        # Without a weight, and with a line back from z: it varies with the classes alone.
        differs = self.back.abs().amax(1) > 1e-8 * self.mu.abs()
        columns = ((self.weight == 0).all(1) & differs).nonzero().squeeze(1).tolist()
        if not columns:
            return []
        named = ", ".join(map(str, columns[:5])) + (", …" if len(columns) > 5 else "")
        return [
            f"{len(columns)} column(s) ({named}, from 0) are constant within every class and "
            "differ between classes: each tells some of them apart without fail, and the "
            "projection, which measures by the variance within classes, leaves them out."
        ]

    def encode(self, x: Tensor, context: Tensor | None = None) -> Point:
        """The projection Wᵀ(x − m), (B, k), in standard deviations within classes."""
        self.check_shape(x)
        return Point((x.flatten(1).to(self.mu) - self.mu) @ self.weight)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Point:
        """The least-squares reconstruction m + A z of projections (N, k): (N, *event)."""
        self.check_latents(z, self.weight.shape[1])
        x = z.to(self.mu) @ self.back.mT + self.mu
        return Point(x.reshape(-1, *self.event_shape), len(self.event_shape))


def _class_means(x: Tensor, labels: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Class means less the mean, (C, D), and the shares of the classes, (C,)."""
    _, index, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = mean.new_zeros(len(counts), len(mean))
    first = 0
    for block in vectors(x, mean):
        sums.index_add_(0, index[first : first + len(block)].to(mean.device), block - mean)
        first += len(block)
    counts = counts.to(mean)
    return sums / counts.unsqueeze(1), counts / len(x)
