"""What is spread over several devices, as a whole: means of a batch, and sharded tensors.

Terms that couple a batch (free bits, an optimal sigma) must see all of it, or they would mean
something else on two devices than on one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["global_mean", "global_rows", "is_sharded", "like", "whole", "world_size"]


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def global_mean(x: Tensor) -> Tensor:
    """Mean over the batch axis of (B, …), and over the equal batches of all processes.

    >>> global_mean(torch.tensor([1.0, 3.0]))
    tensor(2.)
    """
    local = x.mean(0)
    world = world_size()
    return local if world == 1 else _AllReduce.apply(local) / world  # type: ignore[no-untyped-call]


def global_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows, by their number in the global batch, of which ``x`` (B, …) is this process's part.

    >>> global_rows(torch.tensor([5.0, 6.0, 7.0]), torch.tensor([2, 0]))
    tensor([7., 5.])
    """
    if world_size() == 1:
        return x[rows]
    mine = rows - dist.get_rank() * len(x)
    is_here = ((mine >= 0) & (mine < len(x))).view(-1, *(1,) * (x.ndim - 1))
    found = torch.where(is_here, x[mine.clamp(0, len(x) - 1)], 0.0)
    dist.all_reduce(found)
    return found


def is_sharded(x: Tensor) -> bool:
    """Whether each process holds a part of ``x`` only."""
    return world_size() > 1 and hasattr(x, "full_tensor")


def whole(x: Tensor) -> Tensor:
    """A tensor of which each process may hold a part, gathered; any other as it is."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def like(value: Tensor, x: Tensor) -> Tensor:
    """``value``, which every process has, on the device of ``x`` and in parts where ``x`` is."""
    value = value.to(x.device)
    if not is_sharded(x) or value.shape != x.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(x, DTensor)
    # Without a source each process cuts its part out of what it has: nothing is sent.
    return distribute_tensor(value, x.device_mesh, x.placements, src_data_rank=None)


class _AllReduce(torch.autograd.Function):
    """Sum over processes. Its gradient is the same sum: each process's loss depends on all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
