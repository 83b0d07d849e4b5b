"""Arrays of twice the size, by repeating each place: the way back from halving."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["doubled"]


def doubled(h: Tensor, size: Sequence[int]) -> Tensor:
    """Each place twice along every side, cut to ``size``: (N, channels, *sides) -> (…, *size).

    What nearest-neighbour interpolation to 2n or 2n − 1 places gives. It is written out because
    PyTorch 2.13 compiles that one, in bfloat16 on a processor, to a gradient of zero.
    """
    sides = h.shape[2:]
    for i in range(len(sides)):
        h = h.unsqueeze(3 + 2 * i)  # a side of one behind each side, to be repeated
    pairs = [n for side in sides for n in (side, 2)]
    h = h.expand(*h.shape[:2], *pairs).reshape(*h.shape[:2], *(2 * side for side in sides))
    for dim, length in enumerate(size, start=2):
        h = h.narrow(dim, 0, length)
    return h
