"""Convolutional encoder and decoder for images of any size and number of channels.

Each stage halves the image (rounding up) and doubles the channels, until no side is above four;
the decoder walks the same sizes back, so that odd and non-square images fit exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvDecoder", "ConvEncoder"]

SMALLEST_SIDE = 4
MAX_WIDENING = 8


def _stages(size: tuple[int, int], width: int) -> list[tuple[tuple[int, int], int]]:
    """Sizes and channels from the full image down to the smallest."""
    stages = [(size, width)]
    while max(size) > SMALLEST_SIDE:
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        stages.append((size, min(2 * stages[-1][1], MAX_WIDENING * width)))
    return stages


class ConvBlock(nn.Module):
    """Residual block of two normalised 3×3 convolutions; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = 8 if channels % 8 == 0 else 1
        self.norm_1, self.norm_2 = (nn.GroupNorm(groups, channels) for _ in range(2))
        self.conv_1, self.conv_2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.conv_2.weight)
        assert self.conv_2.bias is not None
        nn.init.zeros_(self.conv_2.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        h_1 = self.conv_1(F.silu(self.norm_1(h)))
        return h + self.conv_2(F.silu(self.norm_2(h_1)))


def _blocks(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(ConvBlock(channels) for _ in range(depth)))


class ConvEncoder(nn.Module):
    """Image to numbers: (N, C, H, W) -> (N, num_outputs).

    Args:
        image_shape: (C, H, W).
        num_outputs: numbers per output.
        width: channels at full size; at most eight times as many further down.
        depth: residual blocks per stage.
    """

    def __init__(
        self, image_shape: Sequence[int], num_outputs: int, *, width: int, depth: int
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        stages = _stages((height, breadth), width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        for (_, before), (_, after) in pairwise(stages):
            # A stride of two on a padded image gives half the side, rounded up.
            layers += [_blocks(before, depth), nn.Conv2d(before, after, 3, stride=2, padding=1)]
        (h, w), last = stages[-1]
        layers += [_blocks(last, depth), nn.SiLU(), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(last * h * w, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_outputs)."""
        return self.last(self.body(x))


class ConvDecoder(nn.Module):
    """Numbers to image: (N, num_inputs) -> (N, channels, H, W).

    Args:
        num_inputs: numbers per input.
        image_shape: (channels, H, W) of the output.
        width: channels at full size.
        depth: residual blocks per stage.
    """

    def __init__(
        self, num_inputs: int, image_shape: Sequence[int], *, width: int, depth: int
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        self.stages = _stages((height, breadth), width)[::-1]
        (h, w), first = self.stages[0]
        self.first = nn.Linear(num_inputs, first * h * w)
        self.blocks = nn.ModuleList(_blocks(c, depth) for _, c in self.stages)
        self.steps = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for (_, before), (_, after) in zip(self.stages[:-1], self.stages[1:], strict=True)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, num_inputs) -> (N, channels, H, W)."""
        (h, w), channels = self.stages[0]
        x = self.blocks[0](self.first(z).reshape(-1, channels, h, w))
        for step, block, (size, _) in zip(
            self.steps, self.blocks[1:], self.stages[1:], strict=True
        ):
            x = block(step(F.interpolate(x, size=size, mode="nearest")))
        return self.last(F.silu(x))
