"""Batches by count: which rows a step sees, and their fresh randomness, follow from its number.

The batch of a step is cut from the order of its epoch, a function of (seed, epoch). What is drawn
anew (dynamic binarisation) is drawn per block of the global batch, so that neither the number of
devices nor a restart changes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound._random import generator_for, permutation
from lowerbound.data import Split

__all__ = ["BLOCK", "Batches", "blocks_of"]

BLOCK = 128


def blocks_of(rows: slice, total: int) -> list[tuple[int, slice, slice]]:
    """The blocks of ``range(total)`` that overlap ``rows``.

    Returns:
        For each its number, its rows of the whole, and which of those rows are asked for.

    >>> for block in blocks_of(slice(100, 200), 200):
    ...     print(block)
    (0, slice(0, 128, None), slice(100, 128, None))
    (1, slice(128, 200, None), slice(0, 72, None))
    """
    found = []
    for first in range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK):
        last = min(first + BLOCK, total)
        inner = slice(max(rows.start - first, 0), min(rows.stop, last) - first)
        found.append((first // BLOCK, slice(first, last), inner))
    return found


class Batches:
    """The batches of a split by step.

    Args:
        split: what is trained on.
        batch_size: examples of the global batch.
        seed: of the order and of what is drawn anew.
        device: where batches are wanted.
        rows: those of the global batch that this process takes; all unless said.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        device: torch.device,
        rows: slice | None = None,
    ) -> None:
        self.split = split.to(device)
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.blocks = blocks_of(rows or slice(0, batch_size), batch_size)
        self.num_batches = len(split) // batch_size
        self.epoch, self.order = -1, torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The examples (B, *event) of ``step`` that are this process's, and their context."""
        epoch, first = step // self.num_batches, step % self.num_batches * self.batch_size
        if epoch != self.epoch:
            order = permutation(len(self.split), "epoch", self.seed, epoch)
            self.epoch, self.order = epoch, order.to(self.device)
        parts = []
        for number, block, inner in self.blocks:
            generator = generator_for("data", self.seed, step, number, device=self.device)
            indices = self.order[first + block.start : first + block.stop]
            x, context = self.split.draw(indices, generator)
            parts.append((x[inner], None if context is None else context[inner]))
        if len(parts) == 1:
            return parts[0]
        xs, contexts = zip(*parts, strict=True)
        return torch.cat(xs), None if contexts[0] is None else torch.cat(contexts)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exception: object) -> None:
        """Give back what was opened for reading ahead."""
