"""What is measured of the training set once a model has learned: its optimal sigma.

    σ² = E_data E_q ‖x − mean(z)‖² / D,   one draw z ~ q(z|x) of each example,

which maximises the bound over σ in closed form. While training it is the mean of a batch; what is
judged has one number for all examples, stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lowerbound._random import permutation
from lowerbound.data import Source
from lowerbound.distributions import GaussianLikelihood, Likelihood
from lowerbound.models.base import Model

__all__ = ["Decoded", "settle_sigma"]

Decoded = Callable[[Tensor, Tensor | None, Mapping[str, Tensor]], Tensor]
"""(x, context, noise of one draw) -> the mean of p(x|z) at that draw, (B, *event)."""

MEASURED_ROWS, BATCH = 10_000, 500


@torch.no_grad()
def settle_sigma(model: Model, likelihood: Likelihood, source: Source, decoded: Decoded) -> None:
    """Store the optimal sigma of the training set (of 10,000 seeded rows of a larger one).

    Args:
        model: gives the noise of each row, and the device.
        likelihood: its head; nothing happens unless it is a Gaussian with an optimal sigma.
        source: the data.
        decoded: the mean of p(x|z) of examples at one draw of each.
    """
    if not isinstance(likelihood, GaussianLikelihood) or likelihood.sigma != "optimal":
        return
    total, count, device = 0.0, 0, model.calibrated.device
    for rows in permutation(len(source.train), "settle")[:MEASURED_ROWS].split(BATCH):
        x, context = source.train[rows]
        x = likelihood.floating(x.to(device))
        loc = decoded(x, context, model.judging_noise(rows.tolist()))
        total += float((x - loc).square().double().sum())
        count += x.numel()
    likelihood.store_optimal(torch.tensor(total / count))
