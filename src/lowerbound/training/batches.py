"""The batches of a run, each a function of its step: what a resumed run, or one of several, needs.

With N examples and batches of B, epoch e = step div (N div B) goes through the permutation of
(seed, e), and a step takes the next B of it; what does not fill a batch is left out, and differs
from epoch to epoch. Fresh randomness is drawn per block of 128 rows of the global batch, by
(seed, step, block): neither the number of devices nor that of threads changes a bit.

Of data in memory a batch is an index selection and nothing else. Batches of data that are read
from a disk are prepared ahead by threads; being functions of the step they need no state, and what
was prepared for nothing is dropped.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from lowerbound._random import generator_for, permutation
from lowerbound.data import Split
from lowerbound.errors import refuse

__all__ = ["BLOCK", "Batches", "blocks_of"]

BLOCK = 128
AHEAD = 4
THREADS = 2
Batch = tuple[Tensor, Tensor | None]


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
    """The batches of a split by step, on a device; to be closed, best by ``with``.

    Args:
        split: what is learned from.
        batch_size: B, of the global batch; at most all examples are taken.
        seed: of the order and of fresh randomness.
        device: where batches are wanted.
        rank: which share of every batch is given, from 0.
        world: how many equal shares there are; they are contiguous.

    Raises:
        InputError: B below 1 or no multiple of ``world``, or no such rank.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.batch_size = min(batch_size, len(split) // max(1, world) * world)
        if self.batch_size < 1 or self.batch_size % world:
            required = f"a multiple of the {world} devices" if world > 1 else "at least 1"
            raise refuse("batch_size", required, self.batch_size)
        if not 0 <= rank < world:
            raise refuse("rank", f"from 0 to {world - 1}", rank)
        self.split, self.seed, self.device = split.to(device), seed, torch.device(device)
        self.num_batches = len(split) // self.batch_size
        share = self.batch_size // world
        self.first, self.last = rank * share, (rank + 1) * share
        self.blocks = blocks_of(slice(self.first, self.last), self.batch_size)
        self._orders: dict[int, Tensor] = {}
        self._lock = threading.Lock()
        self._pool = None if split.in_memory else ThreadPoolExecutor(THREADS, "batches")
        self._coming: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        """Examples (B/world, *event) of a step and their context, or None.

        Raises:
            InputError: an example that cannot be read, named.
        """
        if self._pool is None:
            return self._batch(step)
        wanted = range(step, step + AHEAD)
        for other in [s for s in self._coming if s not in wanted]:
            self._coming.pop(other).cancel()
        for s in wanted:
            if s not in self._coming:
                self._coming[s] = self._pool.submit(self._batch, s)
        return self._coming.pop(step).result()

    def _batch(self, step: int) -> Batch:
        epoch, position = divmod(step, self.num_batches)
        start = position * self.batch_size
        order = self._order(epoch)
        if not self.split.is_random:
            return self.split[order[start + self.first : start + self.last]]
        # Whole blocks are drawn, and the rows of this share are cut out of them.
        parts = []
        for number, block, inner in self.blocks:
            generator = generator_for("data", self.seed, step, number, device=self.device)
            x, context = self.split.draw(order[start:][block], generator)
            parts.append((x[inner], None if context is None else context[inner]))
        if len(parts) == 1:
            return parts[0]
        contexts = [context for _, context in parts if context is not None]
        return torch.cat([x for x, _ in parts]), torch.cat(contexts) if contexts else None

    def _order(self, epoch: int) -> Tensor:
        """The order of an epoch; those of this and of the last one that was asked for are kept."""
        order = self._orders.get(epoch)
        if order is not None:
            return order
        with self._lock:
            if epoch not in self._orders:
                order = permutation(len(self.split), "epoch", self.seed, epoch)
                order = order.to(self.device) if self.split.in_memory else order
                newest = max(self._orders, default=epoch)
                kept = {newest: self._orders[newest]} if self._orders else {}
                self._orders = {**kept, epoch: order} if self._pool is not None else {epoch: order}
            return self._orders[epoch]

    def close(self) -> None:
        """Stop preparing batches; waits for those that are being read."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._coming.clear()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
