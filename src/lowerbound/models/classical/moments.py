"""Moments of a training set, block by block: rows become float64 only while they are summed.

The set is a tensor, or `Blocks` that are read from a disk each time that one goes through them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lowerbound.data import Blocks

__all__ = ["covariance_of", "mean_of", "vectors"]

ROWS_AT_ONCE = 4096


def vectors(x: Tensor | Blocks, like: Tensor) -> Iterator[Tensor]:
    """Examples (N, *event) as blocks (B, D) in the precision and on the device of ``like``."""
    for block in x.split(ROWS_AT_ONCE) if isinstance(x, Tensor) else x:
        yield block.flatten(1).to(like)


def mean_of(x: Tensor | Blocks, like: Tensor) -> Tensor:
    """Mean of examples (N, *event): (D,)."""
    mean = torch.zeros_like(like)
    for block in vectors(x, like):
        mean += block.sum(0) / len(x)
    return mean


def covariance_of(x: Tensor | Blocks, mean: Tensor) -> Tensor:
    """Covariance (D, D) of examples (N, *event) about ``mean`` (D,): the sum over N, not N − 1."""
    covariance = torch.zeros(len(mean), len(mean)).to(mean)
    for block in vectors(x, mean):
        centered = block - mean
        covariance += centered.mT @ centered / len(x)
    return covariance
