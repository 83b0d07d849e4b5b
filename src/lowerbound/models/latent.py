"""What the models share that draw z from a prior and decode it into a likelihood.

    z ~ p(z|c),   x ~ p(x|z, c);   the optimal sigma of a Gaussian likelihood is
    σ² = E_data E_q ‖x − mean(z)‖² / D,   one draw z ~ q(z|x) of each example,

which maximises the bound over σ in closed form. While training it is the mean of a batch; what is
judged has one number for all examples, stored.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import permutation
from lowerbound.data import Source, measured
from lowerbound.distributions import GaussianLikelihood, Likelihood
from lowerbound.models.context import ContextModel
from lowerbound.objectives import Noise

__all__ = ["LatentModel"]

MEASURED_ROWS, BATCH = 10_000, 500


class LatentModel(ContextModel):
    """Base of the VAE, of hierarchies and of quantised autoencoders; it makes nothing itself.

    Their constructors set ``likelihood``, a `Likelihood`, and ``prior``, whose ``sample(num,
    context, generator)`` gives what `decode` takes.
    """

    likelihood: Likelihood
    prior: Any

    @abstractmethod
    def decoded(self, x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        """The mean of p(x|z) of examples (B, *event) at one draw z ~ q(z|x) of each, as x."""

    @torch.no_grad()
    def sample(
        self,
        num: int,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """See `Model.sample`."""
        context = self._context_to_draw(num, context, generator)
        p = self.decode(self.prior.sample(num, context, generator), context)
        return p.mean if mean else p.sample(generator)

    def _calibrate(self, source: Source) -> None:
        super()._calibrate(source)
        self.likelihood.calibrate(measured(source.train))

    @torch.no_grad()
    def settle(self, source: Source) -> None:
        """Store the optimal sigma, if any, of the training set (of 10,000 seeded rows)."""
        head = self.likelihood
        if not isinstance(head, GaussianLikelihood) or head.sigma != "optimal":
            return
        total, count = 0.0, 0
        for rows in permutation(len(source.train), "settle")[:MEASURED_ROWS].split(BATCH):
            x, context = source.train[rows]
            x = head.floating(x.to(self.calibrated.device))
            loc = self.decoded(x, context, self.judging_noise(rows.tolist()))
            total += float((x - loc).square().double().sum())
            count += x.numel()
        head.store_optimal(torch.tensor(total / count))

    def notes(self) -> list[str]:
        """What the likelihood has to say, and which part of x the nats are of."""
        return [*self.likelihood.notes(), *super().notes()]
