"""A training set block by block, for what is measured of it once: scales, moments, closed forms.

In memory a training set is one tensor. Of one that stays on a disk seeded rows stand for all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.data.base import InMemorySplit, Split
from lowerbound.data.stored import sampled_rows

__all__ = ["Blocks", "held", "measured"]

MAX_ROWS = 100_000
NUMBERS_AT_ONCE = 2**22  # 32 MB in float64
NUMBERS_IN_MEMORY = 2**25


class Blocks:
    """Examples of a split as tensors (B, *event), read anew each time that one goes through them.

    Args:
        split: where they are.
        indices: which of them, (N,).
    """

    def __init__(self, split: Split, indices: Tensor) -> None:
        self.split, self.indices = split, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Tensor]:
        size = max(1, NUMBERS_AT_ONCE // _size(self.split))
        for rows in self.indices.split(size):
            yield self.split[rows][0]


def _size(split: Split) -> int:
    """Numbers in one example."""
    return max(1, num_elements(split[slice(0, 1)][0].shape[1:]))


def measured(split: Split) -> Tensor | Blocks:
    """What scales and moments are measured on: all that is in memory, else 100,000 seeded rows."""
    return split.x if split.in_memory else Blocks(split, sampled_rows(len(split), MAX_ROWS))


def held(split: Split) -> InMemorySplit:
    """A split in memory: as it is, or as many seeded rows as are 32 million numbers.

    For fits that go through their examples again and again.
    """
    if isinstance(split, InMemorySplit):
        return split
    some = sampled_rows(len(split), max(1, min(MAX_ROWS, NUMBERS_IN_MEMORY // _size(split))))
    parts = [split[rows] for rows in some.split(1024)]
    labels = [label for _, label in parts if label is not None]
    return InMemorySplit(torch.cat([x for x, _ in parts]), torch.cat(labels) if labels else None)
