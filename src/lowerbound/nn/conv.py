"""Convolutional encoder and decoder for sequences, images and volumes of any size.

Arrays are (C, L), (C, H, W) or (C, D, H, W): how many sides there are chooses the convolution.
Each stage halves every side (rounding up) and doubles the channels, until no side is above four;
the decoder walks the same sizes back, so that odd and unequal sides fit exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements
from lowerbound.nn.doubling import doubled

__all__ = ["ConvDecoder", "ConvEncoder"]

SMALLEST_SIDE = 4
MAX_WIDENING = 8
Size = tuple[int, ...]
Conv = type[nn.Conv1d | nn.Conv2d | nn.Conv3d]
CONVOLUTIONS: dict[int, Conv] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""By the number of sides."""


def _stages(size: Size, width: int) -> list[tuple[Size, int]]:
    """Sizes and channels from the full array down to the smallest."""
    stages = [(size, width)]
    while max(size) > SMALLEST_SIDE:
        size = tuple((side + 1) // 2 for side in size)
        stages.append((size, min(2 * stages[-1][1], MAX_WIDENING * width)))
    return stages


class ConvBlock(nn.Module):
    """Residual block of two normalised convolutions of width three; starts as the identity."""

    def __init__(self, channels: int, conv: Conv = nn.Conv2d) -> None:
        super().__init__()
        groups = 8 if channels % 8 == 0 else 1
        self.norm_1, self.norm_2 = (nn.GroupNorm(groups, channels) for _ in range(2))
        self.conv_1, self.conv_2 = (conv(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.conv_2.weight)
        assert self.conv_2.bias is not None
        nn.init.zeros_(self.conv_2.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(N, channels, *sides) -> the same shape."""
        h_1 = self.conv_1(F.silu(self.norm_1(h)))
        return h + self.conv_2(F.silu(self.norm_2(h_1)))


def _blocks(channels: int, depth: int, conv: Conv) -> nn.Sequential:
    return nn.Sequential(*(ConvBlock(channels, conv) for _ in range(depth)))


class ConvEncoder(nn.Module):
    """Array to numbers: (N, C, *sides) -> (N, num_outputs).

    Args:
        shape: (C, *sides), of one to three sides.
        num_outputs: numbers per output.
        width: channels at full size; at most eight times as many further down.
        depth: residual blocks per stage.
    """

    def __init__(self, shape: Sequence[int], num_outputs: int, *, width: int, depth: int) -> None:
        super().__init__()
        channels, *sides = shape
        conv = CONVOLUTIONS[len(sides)]
        stages = _stages(tuple(sides), width)
        layers: list[nn.Module] = [conv(channels, width, 3, padding=1)]
        for (_, before), (_, after) in pairwise(stages):
            # A stride of two on a padded array gives half of each side, rounded up.
            layers += [_blocks(before, depth, conv), conv(before, after, 3, stride=2, padding=1)]
        size, last = stages[-1]
        layers += [_blocks(last, depth, conv), nn.SiLU(), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(last * num_elements(size), num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *sides) -> (N, num_outputs)."""
        return self.last(self.body(x))


class ConvDecoder(nn.Module):
    """Numbers to array: (N, num_inputs) -> (N, channels, *sides).

    Args:
        num_inputs: numbers per input.
        shape: (channels, *sides) of the output, of one to three sides.
        width: channels at full size.
        depth: residual blocks per stage.
    """

    def __init__(self, num_inputs: int, shape: Sequence[int], *, width: int, depth: int) -> None:
        super().__init__()
        channels, *sides = shape
        conv = CONVOLUTIONS[len(sides)]
        self.stages = _stages(tuple(sides), width)[::-1]
        size, first = self.stages[0]
        self.first = nn.Linear(num_inputs, first * num_elements(size))
        self.blocks = nn.ModuleList(_blocks(c, depth, conv) for _, c in self.stages)
        self.steps = nn.ModuleList(
            conv(before, after, 3, padding=1)
            for (_, before), (_, after) in zip(self.stages[:-1], self.stages[1:], strict=True)
        )
        self.last = conv(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, num_inputs) -> (N, channels, *sides)."""
        size, channels = self.stages[0]
        x = self.blocks[0](self.first(z).reshape(-1, channels, *size))
        for step, block, (size, _) in zip(
            self.steps, self.blocks[1:], self.stages[1:], strict=True
        ):
            x = block(step(doubled(x, size)))
        return self.last(F.silu(x))
