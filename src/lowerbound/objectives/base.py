"""The `Bound`, the dials of an objective, and what an objective asks of a model.

Every model returns

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))

term by term, per example, in nats and reduced over nothing, as a `Bound`. An objective turns a
model and a batch into a loss (B,) that is minimised, and the bound that is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "UNWEIGHTED",
    "Bound",
    "BoundModel",
    "Drawn",
    "Noise",
    "Objective",
    "WeightModel",
    "Weights",
]

Noise = Mapping[str, Tensor]
"""Random tensors by name, each (num_samples, batch_size, …)."""


@dataclass(frozen=True)
class Bound:
    """A lower bound on log p(x), term by term, per example, in nats.

    The expectation of ``value`` is at most log p(x); a single Monte Carlo value, or a single rate,
    may have either sign.

    Args:
        reconstruction: E_q log p(x|z), (B,).
        rates: what is subtracted, by name, each (B,): ``"kl"`` for a VAE.
        details: a rate's parts (B, groups), which sum to it: KL per latent dimension.
        penalties: terms (B,) that training adds to its loss and that are never part of ``value``.
        surrogate: what training maximises in place of ``value`` where that is weighted on purpose.
        observed: what a training step tells the model beside its gradient, where the step is
            used: see `lowerbound.models.Model.take_in`.
    """

    reconstruction: Tensor
    rates: Mapping[str, Tensor]
    details: Mapping[str, Tensor] = field(default_factory=dict)
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    surrogate: Tensor | None = None
    observed: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def rate(self) -> Tensor:
        """Sum of the rates, (B,), nats."""
        if not self.rates:
            return torch.zeros_like(self.reconstruction)
        return reduce(torch.add, self.rates.values())

    @property
    def value(self) -> Tensor:
        """The bound, reconstruction − sum of rates, (B,), nats; higher is better.

        >>> Bound(torch.tensor([-3.0]), {"kl": torch.tensor([1.5])}).value
        tensor([-4.5000])
        """
        return self.reconstruction - self.rate

    def terms(self) -> dict[str, Tensor]:
        """The reconstruction and each rate by name, each (B,), nats."""
        return {"reconstruction": self.reconstruction, **self.rates}


class BoundModel(Protocol):
    """What `elbo` asks of a model."""

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """See `lowerbound.models.Model.bound`."""
        ...


class Drawn(Protocol):
    """Draws z_k ~ q(z|x) with their weights; see `lowerbound.models.base.Draw`."""

    @property
    def log_weight(self) -> Tensor:
        """Log p(x, z_k) − log q(z_k|x), (K, B), nats."""
        ...

    @property
    def latents(self) -> Mapping[str, Tensor]:
        """The draws by name, each (K, B, …)."""
        ...


class WeightModel(BoundModel, Protocol):
    """What the other objectives ask of a model."""

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Drawn:
        """See `lowerbound.models.Model.draw`."""
        ...

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `lowerbound.models.Model.log_joint`."""
        ...


@dataclass(frozen=True)
class Weights:
    """Dials of an objective at one moment of training; each objective reads its own.

    Args:
        beta: factor of the rates in `elbo`. Below 1 the objective is no bound; the reported one
            still is.
        free_bits: nats per latent dimension that cost nothing (`elbo`, training only).
        num_groups: M, the groups of num_samples / M draws in `miwae` and `piwae`.
        mix: share of L_1 in `ciwae`, from 0 to 1.
        kl_balancing: whether `elbo` weighs each rate by its share of them all.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    num_groups: int = 1
    mix: float = 0.0
    kl_balancing: bool = False


UNWEIGHTED = Weights()
"""Every dial where it changes nothing."""

Objective = Callable[
    [WeightModel, Tensor, Tensor | None, Noise, int, Weights], tuple[Tensor, Bound]
]
"""(model, x, context, noise, num_samples, weights) -> loss (B,) in nats, and the `Bound` that it
maximises, unweighted."""
