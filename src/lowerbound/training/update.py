"""The update of the weights: clipped, and skipped on the device where a gradient is not usable.

A step whose loss or gradient is not finite is skipped, and too many of them end a run. One whose
gradient is merely too long may be skipped too: clipping it would still move every weight its way.

References:
    Child, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, 2021:
    steps with a gradient far longer than usual are skipped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lowerbound._parallel import is_sharded, whole
from lowerbound.engine import Engine
from lowerbound.training.state import TrainState

__all__ = ["Update", "update"]


class Update(NamedTuple):
    """What became of a step, each a boolean on the device."""

    used: Tensor
    finite: Tensor


def update(
    state: TrainState,
    loss: Tensor,
    rate: float,
    clip: float,
    engine: Engine,
    skip_norm: float | None = None,
) -> Update:
    """Clip and step in one pass over the weights; what is not finite moves nothing.

    The fused optimiser divides by ``grad_scale`` and does nothing where ``found_inf`` is 1 (as it
    does for loss scaling): clipping costs no pass of its own, and skipping no synchronisation.
    """
    optimizer = state.optimizer
    gradients = [p.grad for p in state.names if p.grad is not None]
    norm = total_norm(gradients)
    finite = engine.all((norm + loss.detach().mean()).isfinite())
    usable = finite if skip_norm is None else finite & engine.all(norm <= skip_norm)
    if is_sharded(gradients[0]):
        _look_and_step(state, gradients, norm, usable, rate, clip)
        return Update(usable, finite)
    # On a CPU looking costs nothing, and dividing by 1 a pass over the gradients.
    if norm.device.type != "cpu" or not (usable and norm <= clip):
        optimizer.grad_scale = (norm / clip).clamp_min(1.0)  # type: ignore[attr-defined]
        optimizer.found_inf = (~usable).float()  # type: ignore[attr-defined]
    else:
        optimizer.grad_scale = optimizer.found_inf = None  # type: ignore[attr-defined]
    _step(optimizer, rate)
    return Update(usable, finite)


def _step(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _look_and_step(
    state: TrainState,
    gradients: list[Tensor],
    norm: Tensor,
    usable: Tensor,
    rate: float,
    clip: float,
) -> None:
    """As `update`, of gradients in parts: the kernel knows no scale of those, so it waits."""
    if not usable:
        state.optimizer.zero_grad(set_to_none=True)
        return
    if norm > clip:
        torch._foreach_mul_(gradients, float(clip / norm))
    _step(state.optimizer, rate)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together; on a CPU by dot products, in half the time."""
    if gradients[0].device.type != "cpu" or is_sharded(gradients[0]):
        return whole(torch.nn.utils.get_total_norm(gradients))
    flat = [g.flatten() for g in gradients]
    return torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()
