"""The `Bound`, and what training maximises.

log p(x) = ELBO(x) + KL(q(z|x) ‖ p(z|x)), so that

    ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x):

a reconstruction term minus rates. Every model returns this sum term by term, per example, in nats
and reduced over nothing, as a `Bound`. An objective turns a model and a batch into a loss (B,)
that is minimised, and the bound that is reported; the two differ where the loss is weighted on
purpose.

References:
    Kingma and Welling, Auto-Encoding Variational Bayes, 2014.
    Higgins et al., beta-VAE, 2017.
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016: free
    bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from lowerbound.errors import refuse

__all__ = ["OBJECTIVES", "Bound", "BoundModel", "Noise", "Weights", "elbo"]

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
    """

    reconstruction: Tensor
    rates: Mapping[str, Tensor]
    details: Mapping[str, Tensor] = field(default_factory=dict)
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    surrogate: Tensor | None = None

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
    """What an objective asks of a model."""

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


@dataclass(frozen=True)
class Weights:
    """Dials of an objective at one moment of training.

    Args:
        beta: factor of the rates. Below 1 the objective is no bound; the reported one still is.
        free_bits: nats per latent dimension that cost nothing (training only).
    """

    beta: float = 1.0
    free_bits: float = 0.0


Objective = Callable[
    [BoundModel, Tensor, Tensor | None, Noise, int, Weights], tuple[Tensor, Bound]
]


def elbo(
    model: BoundModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = Weights(),
) -> tuple[Tensor, Bound]:
    """Loss −(reconstruction − beta · rates) + penalties, (B,), and the unweighted bound.

    With ``free_bits`` = λ > 0 the rate becomes Σ_g max(λ, batch mean of KL_g): the maximum of the
    mean, so that a dimension is judged by the batch and not by each example.
    """
    bound = model.bound(x, context, num_samples=num_samples, noise=noise)
    # Rates: weighted, and free up to λ nats in each group.
    if weights.free_bits > 0:
        rate = _with_free_bits(bound, weights.free_bits)
    else:
        rate = bound.rate
    # What is maximised: the surrogate where the model has one, else the weighted bound.
    maximised = bound.surrogate
    if maximised is None:
        maximised = bound.reconstruction - weights.beta * rate
    # Penalties: beside the bound, never inside.
    return reduce(torch.add, bound.penalties.values(), -maximised), bound


def _with_free_bits(bound: Bound, free_bits: float) -> Tensor:
    total = torch.zeros_like(bound.reconstruction)
    for name, rate in bound.rates.items():
        if name not in bound.details:
            raise refuse("free_bits", "0 for a model without rates per group", free_bits)
        groups = bound.details[name].mean(0)
        total = total + torch.where(groups > free_bits, groups, free_bits).sum().expand_as(rate)
    return total


OBJECTIVES: dict[str, Objective] = {"elbo": elbo}
"""Every objective by name."""
