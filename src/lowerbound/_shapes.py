"""Shapes: everything is (…, batch, *event), and a log-probability sums over the event only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

__all__ = ["flatten_batch", "num_elements", "repeated_rows", "shown_shape", "sum_event"]


def sum_event(x: Tensor, event_ndim: int) -> Tensor:
    """Sum the last ``event_ndim`` axes: (…, *event) -> (…). A sum, never a mean.

    >>> import torch
    >>> sum_event(torch.ones(2, 3, 4), 2)
    tensor([12., 12.])
    """
    return x.flatten(-event_ndim).sum(-1) if event_ndim else x


def flatten_batch(x: Tensor, event_ndim: int) -> tuple[Tensor, tuple[int, ...]]:
    """Merge the leading axes: (…, *event) -> ((N, *event), leading shape)."""
    leading = tuple(x.shape[: x.ndim - event_ndim])
    return x.reshape(-1, *x.shape[x.ndim - event_ndim :]), leading


def repeated_rows(x: Tensor, num: int) -> Tensor:
    """Rows (B, …) one set after another, (num · B, …).

    >>> import torch
    >>> repeated_rows(torch.tensor([1, 2]), 2)
    tensor([1, 2, 1, 2])
    """
    return x.expand(num, *x.shape).flatten(0, 1) if num > 1 else x


def num_elements(shape: Sequence[int]) -> int:
    """Number of dimensions D of an event: channels × height × width for an image."""
    return math.prod(shape)


def shown_shape(shape: Sequence[int]) -> str:
    """A shape as a person writes it.

    >>> shown_shape((1, 28, 28))
    '1×28×28'
    """
    return "×".join(str(n) for n in shape)
