"""Independent pixels: the smallest model there is, as CONTRIBUTING.md adds it.

    p(x) = Π_i p(x_i),   each p(x_i) by the likelihood of the data's support, learned

There is no latent: the bound is log p(x) itself, and what a model with latents gains over it is
what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements
from lowerbound.data import Source, measured
from lowerbound.distributions import Likelihood, Support
from lowerbound.models import Model
from lowerbound.models.heads import HeadOptions, make_head
from lowerbound.objectives import Bound

__all__ = ["Independent", "IndependentOptions"]


@dataclass(frozen=True)
class IndependentOptions(HeadOptions):
    """Options of independent pixels: those of their likelihood."""


class Independent(Model):
    """Every element by itself.

    Args:
        likelihood: p(x_i) of all elements.
    """

    name: ClassVar[str] = "independent"
    closed_form: ClassVar[bool] = True
    has_encoder: ClassVar[bool] = False

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__(likelihood.event_shape, likelihood.support)
        self.likelihood = likelihood
        size = likelihood.num_outputs * num_elements(likelihood.event_shape)
        self.raw = nn.Parameter(torch.zeros(1, size))

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: IndependentOptions = IndependentOptions(),
    ) -> Independent:
        """The model that ``options`` describe."""
        model = cls(make_head(event_shape, support, options))
        model.options = options
        return model

    def noise(self, batch_size, num_samples=1, generator=None) -> dict[str, Tensor]:
        """Nothing is drawn."""
        return {}

    def bound(self, x, context=None, *, num_samples=1, noise=None, generator=None) -> Bound:
        """Log p(x), without a rate."""
        self.check_shape(x)
        x = self.likelihood.floating(x)
        return Bound(self.likelihood(self.raw.expand(len(x), -1), x).log_prob(x), {})

    @torch.no_grad()
    def sample(self, num, context=None, *, generator=None, mean=False) -> Tensor:
        """See `Model.sample`."""
        p = self.likelihood(self.raw.expand(num, -1))
        return p.mean if mean else p.sample(generator)

    def _calibrate(self, source: Source) -> None:
        self.likelihood.calibrate(measured(source.train))
