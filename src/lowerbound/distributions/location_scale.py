"""What the Gaussian, Laplace and Student-t likelihoods share: a location and a scale per element.

Both are in the data's own units. The location is that of the training data plus what the decoder
says in units of their spread; the scale is learned, fixed, or given by the decoder, and a learned
one cannot leave [FLOOR, CEILING] times the spread: a density has no upper limit, and a constant
column would make it infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lowerbound.distributions.base import Likelihood
from lowerbound.distributions.support import Real, Support
from lowerbound.errors import refuse

__all__ = ["LocationScaleLikelihood", "Sigma"]

Sigma = Literal["scalar", "dimension", "decoder", "optimal"] | float


class LocationScaleLikelihood(Likelihood):
    """p(x|z) on real data with location μ(z) and scale σ; abstract.

    Args:
        event_shape: shape of one example.
        support: `Real`.
        sigma: ``"scalar"`` one learned σ for all dimensions; ``"dimension"`` one per dimension;
            ``"decoder"`` one per dimension and example, from the decoder; or a number, fixed.
            `GaussianLikelihood` also has ``"optimal"``.
    """

    supports: ClassVar[tuple[type[Support], ...]] = (Real,)
    options: ClassVar[tuple[str, ...]] = ("sigma",)
    sigmas: ClassVar[tuple[str, ...]] = ("scalar", "dimension", "decoder")
    title: ClassVar[str]
    """How a sentence calls it."""
    FLOOR: ClassVar[float] = 1e-3
    CEILING: ClassVar[float] = 1e3

    num_outputs: int = 1
    log_sigma: Tensor

    def __init__(
        self, event_shape: Sequence[int], support: Support, sigma: Sigma = "scalar"
    ) -> None:
        super().__init__(event_shape, support)
        if not isinstance(sigma, str) and not (math.isfinite(sigma) and sigma > 0):
            raise refuse("sigma", "a positive number", sigma)
        if isinstance(sigma, str) and sigma not in self.sigmas:
            raise refuse(
                "sigma",
                f"{', '.join(self.sigmas)} or a number for a {self.name} likelihood",
                sigma,
            )
        self.sigma = sigma
        if sigma == "decoder":
            self.num_outputs = 2
        if sigma in ("scalar", "dimension"):
            self.log_sigma = nn.Parameter(torch.zeros(self._shared_shape()))
        else:
            fixed = 0.0 if isinstance(sigma, str) else math.log(sigma)
            self.register_buffer("log_sigma", torch.tensor(fixed))

    def _shared_shape(self) -> tuple[int, ...]:
        """Shape of a parameter that is learned where sigma is."""
        return self.event_shape if self.sigma == "dimension" else ()

    def unit(self) -> Tensor:
        """The unit in which learned scales are measured: of each dimension, or of all."""
        return self.typical if self.sigma in ("scalar", "optimal") else self.scale

    def _location(self, outputs: tuple[Tensor, ...]) -> Tensor:
        """μ(z) in the units of the data."""
        return self.shift + self.scale * outputs[0]

    def _log_scale(self, outputs: tuple[Tensor, ...]) -> Tensor:
        """Log σ in the units of the data: fixed, learned, or from the decoder."""
        if isinstance(self.sigma, float | int):
            return self.log_sigma
        raw_log = outputs[1] if self.sigma == "decoder" else self.log_sigma
        low, high = math.log(self.FLOOR), math.log(self.CEILING)
        return raw_log.clamp(low, high) + self.unit().log()

    def notes(self) -> list[str]:
        """The floor of learned scales."""
        if isinstance(self.sigma, float | int):
            sigma = f"The {self.title} likelihood has a fixed sigma of {self.sigma:g}."
        else:
            of = "each column (of 1 where it is constant)"
            if self.sigma in ("scalar", "optimal"):
                of = "the training data (root mean square over what varies)"
            sigma = (
                f"The learned sigma ({self.sigma}) of the {self.title} likelihood has a floor of "
                f"{self.FLOOR:g} standard deviations of {of}."
            )
        return [f"{sigma} Nats are nats of a density in the data's own units."]
