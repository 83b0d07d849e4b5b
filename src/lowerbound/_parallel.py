"""What is spread over several devices, as a whole: means of a batch, and sharded tensors.

Terms that couple a batch (free bits, an optimal sigma) must see all of it, or they would mean
something else on two devices than on one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["global_mean", "global_rows", "is_sharded", "like", "rank", "whole", "world_size"]


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def global_mean(x: Tensor) -> Tensor:
    """Mean over the batch axis of (B, …), and over the equal batches of all processes.

    >>> global_mean(torch.tensor([1.0, 3.0]))
    tensor(2.)
    """
    local = x.mean(0)
    world = world_size()
    return local if world == 1 else _AllReduce.apply(local) / world  # type: ignore[no-untyped-call]


def global_rows(x: Tensor) -> Tensor:
    """The rows of the equal batches (B, …) of all processes, one after another."""
    return x if world_size() == 1 else _AllGather.apply(x)  # type: ignore[no-untyped-call]


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


class _AllGather(torch.autograd.Function):
    """Rows of all processes. Its gradient adds up what each process's loss says of a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]
