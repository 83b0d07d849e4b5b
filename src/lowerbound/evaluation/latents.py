"""What the latents do: where examples lie, and which dimensions are used."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.data import InMemorySplit
from lowerbound.models import Model

__all__ = ["ACTIVE_VARIANCE", "latent_means", "num_active_units"]

ACTIVE_VARIANCE = 0.01
BATCH = 1000


@torch.no_grad()
def latent_means(model: Model, split: InMemorySplit, max_rows: int | None = None) -> Tensor:
    """E_q[z] of the first ``max_rows`` examples of a split: (N, d), on the CPU."""
    device, total = model.calibrated.device, min(len(split), max_rows or len(split))
    parts = [
        model.encode(split[slice(first, min(first + BATCH, total))][0].to(device)).mean.cpu()
        for first in range(0, total, BATCH)
    ]
    return torch.cat(parts)


def num_active_units(means: Tensor) -> int:
    """How many latent dimensions carry the data: Var_x E_q[z] > 0.01.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.

    Args:
        means: posterior means (N, d).
    """
    return int((means.var(0, correction=0) > ACTIVE_VARIANCE).sum())
