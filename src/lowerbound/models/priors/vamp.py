"""The VampPrior: a mixture of the encoder's own posteriors at K learned pseudo-inputs.

p(z) = 1/K Σ_k q(z|u_k)

The prior that fits best is the average of q(z|x) over the training set; the pseudo-inputs u_k
stand in for it. They are learned, begin as training examples, and stay where data can be.

References:
    Tomczak and Welling, VAE with a VampPrior, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from lowerbound._random import permutation
from lowerbound.distributions import (
    Counts,
    DiagonalGaussian,
    FullGaussian,
    Product,
    Real,
    Support,
    Unit,
)
from lowerbound.errors import refuse
from lowerbound.models.priors.base import Prior
from lowerbound.models.priors.mixture import check_components, component_log_prob

if TYPE_CHECKING:
    from lowerbound.data import Source
    from lowerbound.models.vae import VAE

__all__ = ["VampPrior"]


class VampPrior(Prior):
    """A mixture of posteriors at learned pseudo-inputs; `attach` tells it whose.

    Args:
        event_shape: shape of one example.
        num_components: K, at most the number of training examples.
    """

    name: ClassVar[str] = "vamp"

    def __init__(self, event_shape: Sequence[int], num_components: int) -> None:
        super().__init__()
        check_components(num_components)
        # In the unit that networks see, of order one whatever the data are.
        self.pseudo_inputs = nn.Parameter(torch.randn(num_components, *event_shape))

    def attach(self, model: VAE) -> None:
        """Look through this model's encoder.

        Raises:
            InputError: a model whose posterior at a pseudo-input has no density at hand.
        """
        if model.context is not None:
            raise refuse(
                "prior",
                "one of the others for a model with a context",
                self.name,
                "pseudo-inputs have no context of their own",
            )
        if not model.posterior.has_density:
            remedy = "its density at another's draws takes d passes: choose --prior flow"
            required = f"another for a posterior of kind {model.posterior.name}"
            raise refuse("prior", required, self.name, remedy)
        # In a tuple, so that the model does not become a part of its own part.
        self.owner = (model,)

    def components(self) -> DiagonalGaussian | FullGaussian:
        """The posteriors at the pseudo-inputs, over (K, d)."""
        (model,) = self.owner
        low, high = _limits(model.support, self.pseudo_inputs[0])
        standardized = model.likelihood.standardized
        inputs = self.pseudo_inputs.clamp(standardized(low), standardized(high))
        q = model.posterior_given(inputs)
        assert isinstance(q, DiagonalGaussian | FullGaussian)
        return q

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of latents (…, d): (…), nats."""
        each = component_log_prob(self.components(), z)
        return each.logsumexp(-1) - math.log(each.shape[-1])

    def sample(
        self, num: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (num, d)."""
        q, device = self.components(), self.pseudo_inputs.device
        size = (num,)
        chosen = torch.randint(len(q.loc), size, generator=generator, device=device)
        if isinstance(q, FullGaussian):
            return FullGaussian(q.loc[chosen], q.scale_tril[chosen]).sample(generator)
        return DiagonalGaussian(q.loc[chosen], q.log_scale[chosen]).sample(generator)

    @torch.no_grad()
    def calibrate(self, source: Source) -> None:
        """Begin at seeded training examples.

        Raises:
            InputError: fewer of them than components.
        """
        num, total = len(self.pseudo_inputs), len(source.train)
        if num > total:
            raise refuse("prior_components", f"at most the {total:,} training examples", num)
        (model,) = self.owner
        x, _ = source.train[permutation(total, "pseudo-inputs")[:num]]
        x = model.likelihood.standardized(x.to(self.pseudo_inputs.device))
        self.pseudo_inputs.copy_(x)


def _limits(support: Support, like: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest possible value of each element of an event, shaped as ``like``."""
    if isinstance(support, Product):
        columns = [_limits(part, like[j]) for j, part in enumerate(support.parts)]
        lows, highs = zip(*columns, strict=True)
        return torch.stack(lows), torch.stack(highs)
    low, high = -math.inf, math.inf
    if isinstance(support, Counts):
        low = 0.0
    elif not isinstance(support, Real):
        low, high = 0.0, 1.0 if isinstance(support, Unit) else support.levels - 1.0
    return torch.full_like(like, low), torch.full_like(like, high)
