"""The mixture of Gaussians: the latent is which of C components an example comes from.

    z ∈ {1 … C} with P(z = c) = π_c,   x | z = c ~ N(μ_c, Σ_c),   p(x) = Σ_c π_c N(x; μ_c, Σ_c).

The posterior q_c = P(z = c | x) is known, so that the bound Σ_c q_c log N_c − KL(q ‖ π) is
log p(x) itself. Discrete data are dequantised uniformly, x + u with u ~ U[0, 1) per element. Of a
Gaussian

    E_u log N(x + u; μ, Σ) = log N(x + ½; μ, Σ) − tr(Σ⁻¹)/24,

and log P(x) ≥ Σ_c q_c E_u log N_c(x + u) − KL(q ‖ π), which is largest, and equal to
log Σ_c π_c exp E_u log N_c(x + u), for the softmax q of its summands: a closed form again.

It is fitted by expectation maximisation of that bound. The data are blurred, discrete ones by u
and real ones by a tiny Gaussian: its variances J, added in every M-step and paid for in
every E-step by ½ tr(Σ⁻¹J), keep a component off a single example, and no step lowers the bound.

References:
    Dempster, Laird and Rubin, Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977.
    Theis, van den Oord and Bethge, A note on the evaluation of generative models, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lowerbound._random import permutation
from lowerbound._shapes import num_elements
from lowerbound.data import Source, held
from lowerbound.distributions import Support
from lowerbound.errors import refuse
from lowerbound.models.base import Draw, Model
from lowerbound.models.classical.cells import UNIFORM_VARIANCE, cell_widths, values_of
from lowerbound.models.classical.components import (
    ComponentMixture,
    Components,
    OneHot,
    expected,
)
from lowerbound.models.classical.moments import ROWS_AT_ONCE, mean_of, vectors
from lowerbound.objectives import Bound, Noise

__all__ = ["GaussianMixture", "MixtureOptions"]


@dataclass(frozen=True)
class MixtureOptions:
    """Options of the mixture of Gaussians."""

    components: int = 10
    """Number of components C."""
    covariance: Literal["spherical", "diagonal", "full"] = "diagonal"
    """Of each component: one variance, one per dimension, or a whole matrix."""
    iterations: int = 200
    """At most so many steps of EM; fewer where the bound has stopped rising."""

    def __post_init__(self) -> None:
        for name in ("components", "iterations"):
            if getattr(self, name) < 1:
                raise refuse(name, "at least 1", getattr(self, name))


class GaussianMixture(Model):
    """A mixture of ``components`` Gaussians, in float64, fitted by EM.

    Args:
        event_shape: shape of one example; D is its number of elements.
        support: discrete data are dequantised uniformly.
        components: C.
        covariance: ``"spherical"``, ``"diagonal"`` or ``"full"``.
        iterations: at most so many steps of EM.

    Raises:
        InputError: when fitted, fewer training examples than components.
    """

    name: ClassVar[str] = "mixture"
    closed_form: ClassVar[bool] = True
    FLOOR: ClassVar[float] = 1e-3
    """Blur of real data while they are fitted, in standard deviations of each column."""
    TOLERANCE: ClassVar[float] = 1e-4
    """Rise of the bound, in nats per example, below which EM ends."""
    ROWS_TO_START: ClassVar[int] = 10_000

    weights: Tensor
    means: Tensor
    scales: Tensor
    start: Tensor
    collapsed: Tensor
    width: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        support: Support,
        components: int,
        covariance: Literal["spherical", "diagonal", "full"] = "diagonal",
        iterations: int = 200,
    ) -> None:
        super().__init__(event_shape, support)
        size = num_elements(event_shape)
        self.covariance, self.iterations = covariance, iterations
        one = torch.eye(size) if covariance == "full" else torch.ones(size)
        one = one[:1] if covariance == "spherical" else one
        scales = one.double().expand(components, *one.shape).clone()
        weights = torch.full((components,), 1 / components, dtype=torch.float64)
        self.register_buffer("weights", weights)
        self.register_buffer("means", torch.zeros(components, size, dtype=torch.float64))
        self.register_buffer("scales", scales)
        # Where EM starts is random, like the initial weights of a network.
        self.register_buffer("start", torch.randint(2**31 - 1, ()))
        self.register_buffer("collapsed", torch.tensor(False))
        self.register_buffer("width", cell_widths(event_shape, support), persistent=False)

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: MixtureOptions = MixtureOptions(),
    ) -> GaussianMixture:
        """The model that ``options`` describe."""
        model = cls(
            event_shape, support, options.components, options.covariance, options.iterations
        )
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
        """Free numbers: weights that sum to one, means, and covariances without their mirror."""
        num, size = self.means.shape
        entries = size * (size + 1) // 2 if self.covariance == "full" else self.scales[0].numel()
        return num - 1 + num * (size + entries)

    @property
    def parts(self) -> Components:
        """The Gaussians, over vectors (…, D) whose discrete levels k are cells [k, k + 1)."""
        return Components(self.means, self.scales)

    # --- expectation maximisation -----------------------------------------------------------

    def _calibrate(self, source: Source) -> None:
        if len(source.train) < len(self.weights):
            raise refuse(
                "components",
                f"at most the {len(source.train):,} training examples",
                len(self.weights),
            )

    @torch.no_grad()
    def fit_exactly(self, source: Source) -> bool:
        """Expectation maximisation, from the clusters of k-means, until the bound stands still."""
        self._calibrate(source)
        x = held(source.train).x
        blur = self._blur(x)
        rows = permutation(len(x), "start of EM", int(self.start))[: self.ROWS_TO_START]
        self._maximise(x[rows.to(x.device)], self._clusters(x[rows.to(x.device)]), blur)
        for _, responsibilities in self._steps(x, blur):
            self._maximise(x, responsibilities, blur)
        blur = blur * (1 - self.width)
        self.collapsed.copy_((self.parts.inverse_diagonals() * blur > 0.5).any())
        self.calibrated.fill_(True)
        return True

    def _steps(self, x: Tensor, blur: Tensor) -> Iterator[tuple[float, Tensor]]:
        """E-steps, each with its bound in nats per example, as long as they are worth it."""
        before = -math.inf
        for _ in range(self.iterations):
            blocks = x.split(ROWS_AT_ONCE)
            joint = torch.cat([self._log_joint(self._points(block), blur) for block in blocks])
            log_evidence = joint.logsumexp(1, keepdim=True)
            bound = float(log_evidence.mean())
            if bound < before + self.TOLERANCE:
                return
            yield bound, (joint - log_evidence).exp()
            before = bound

    def _blur(self, x: Tensor) -> Tensor:
        """Variances J (D,) of what blurs the data: the uniform noise, or the floor's square."""
        mean = mean_of(x, self.means[0])
        variance = torch.zeros_like(mean)
        for block in vectors(x, mean):
            variance += (block - mean).square().sum(0) / len(x)
        # A constant column has no unit of its own: it takes that of the others, or 1.
        varies = variance > 1e-12 * mean.square().clamp_min(1e-300)
        usual = variance[varies].mean() if varies.any() else torch.ones_like(variance[0])
        floor = self.FLOOR**2 * torch.where(varies, variance, usual)
        return torch.where(self.width > 0, UNIFORM_VARIANCE * self.width, floor)

    def _clusters(self, x: Tensor) -> Tensor:
        """One-hot memberships (N, C) by k-means; the columns of real data in their own units."""
        from sklearn.cluster import KMeans

        points = torch.cat(list(vectors(x, self.means)))
        if not self.width.all() and self.covariance != "spherical":
            points = points / self._blur(x).sqrt()
        num, seed = len(self.weights), int(self.start)
        found = KMeans(num, n_init=3, random_state=seed).fit_predict(points.cpu().numpy())
        return torch.nn.functional.one_hot(torch.from_numpy(found).long(), num).to(self.means)

    def _maximise(self, x: Tensor, responsibilities: Tensor, blur: Tensor) -> None:
        """The M-step: weights, means and covariances of the blurred data; (N, C) of them."""
        counts = responsibilities.sum(0).clamp_min(1e-9)
        parts = responsibilities.split(ROWS_AT_ONCE)
        sums = [r.mT @ self._points(b) for r, b in zip(parts, x.split(ROWS_AT_ONCE), strict=True)]
        self.weights.copy_(counts / counts.sum())
        self.means.copy_(torch.stack(sums).sum(0) / counts.unsqueeze(1))
        variance = torch.zeros_like(self.scales)
        if self.covariance == "spherical":
            variance = variance.expand_as(self.means).clone()
        for r, block in zip(parts, x.split(ROWS_AT_ONCE), strict=True):
            points = self._points(block)
            for c, share in enumerate((r / counts).unbind(1)):
                centered = points - self.means[c]
                if self.covariance == "full":
                    variance[c] += centered.mT @ (share.unsqueeze(1) * centered)
                else:
                    variance[c] += share @ centered.square()
        if self.covariance == "full":
            self.scales.copy_(torch.linalg.cholesky(variance + blur.diag()))
        else:
            variance = variance + blur
            spherical = self.covariance == "spherical"
            self.scales.copy_((variance.mean(1, keepdim=True) if spherical else variance).sqrt())

    # --- the bound --------------------------------------------------------------------------

    def _points(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.means) + 0.5 * self.width

    def _log_joint(self, points: Tensor, blur: Tensor) -> Tensor:
        """Log π_c + E log N_c of points (…, D) blurred by variances J: (…, C), nats."""
        cost = 0.5 * (self.parts.inverse_diagonals() * blur).sum(-1)
        return self.weights.log() + self.parts.log_prob(points) - cost

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Uniform ``z``, which chooses a component, and ``u`` for discrete data."""
        noise = {"z": self.means.new_empty(num_samples, batch_size, 1)}
        if self.dequantizes:
            noise["u"] = self.means.new_empty(num_samples, batch_size, self.means.shape[1])
        return {name: tensor.uniform_(generator=generator) for name, tensor in noise.items()}

    def encode(self, x: Tensor, context: Tensor | None = None) -> OneHot:
        """The posterior over components, (B, C): exact for real data, the best q otherwise."""
        self.check_shape(x)
        return OneHot(self._log_joint(self._points(x), UNIFORM_VARIANCE * self.width))

    def decode(self, z: Tensor, context: Tensor | None = None) -> ComponentMixture:
        """p(x|z) over (N, *event) for one-hot z (N, C), in the units of the data.

        Any other z is taken for weights of the components: the posterior means of z decode to
        the mixture of what the components say.
        """
        self.check_latents(z, len(self.means))
        means = self.means - 0.5 * self.width
        return ComponentMixture(
            z.to(means).clamp_min(0.0), Components(means, self.scales), self.event_shape
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
        log_q = self.encode(x).log_probs
        prior, q = self.weights.log(), log_q.exp()
        # Rate: what it costs to name the component.
        kl = expected(q, log_q - prior)
        # Reconstruction: E_q E_u log N_c(x + u).
        joint = self._log_joint(self._points(x), UNIFORM_VARIANCE * self.width)
        return Bound(expected(q, joint - prior), {"kl": kl})

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """See `Model.draw`; latents ``z`` one-hot (K, B, C), and ``u`` where dequantised."""
        noise = self._given(x, num_samples, noise, None)
        q = self.encode(x)
        u = {"u": noise["u"]} if self.dequantizes else {}
        latents = {"z": q.chosen(noise["z"]), **u}
        return Draw(self.log_joint(x, latents, context) - q.log_prob(latents["z"]), latents)

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `Model.log_joint`; latents ``z`` (K, B, C), and ``u`` where dequantised."""
        points = x.flatten(1).to(self.means)
        points = points + self.width * latents["u"] if self.dequantizes else points
        return expected(latents["z"], self._log_joint(points, torch.zeros_like(self.width)))

    # --- generation -------------------------------------------------------------------------

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
        p = self.decode(OneHot(self.weights.log().expand(num, -1)).sample(generator))
        return p.mean if mean else values_of(p.sample(generator), self.support)

    def notes(self) -> list[str]:
        """What was done to make a density of discrete data, and components without a spread."""
        said = []
        if self.dequantizes:
            said.append(
                "The mixture saw uniformly dequantised data: its nats are a lower bound on the "
                "log-probability of the discrete data."
            )
        if self.collapsed:
            said.append(
                "A component of the mixture has no more spread than the floor, in some direction: "
                "its nats there say little. Use fewer components, or a simpler covariance."
            )
        return said
