"""U-Net: from a noisy image and its noise level to an image of the same size.

Stages of residual blocks go down, each at half the side (rounded up), and come back up, seeing
again what was there on the way down. Sides need not be divisible by anything.

References:
    Ronneberger, Fischer and Brox, U-Net, 2015.
    Ho, Jain and Abbeel, Denoising Diffusion Probabilistic Models, 2020, appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.nn.attention import attend
from lowerbound.nn.doubling import doubled

__all__ = ["UNet", "sinusoids"]


def sinusoids(values: Tensor, size: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of numbers at geometrically spaced frequencies, (B,) -> (B, size)."""
    half = size // 2
    exponents = torch.arange(half, device=values.device) / max(half - 1, 1)
    angles = values.float()[:, None] * torch.exp(-math.log(longest) * exponents)
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, size - 2 * half))


def _norm(channels: int) -> nn.GroupNorm:
    """At least four channels to a group: of one alone, its mean over the image would be lost."""
    most = max(1, min(32, channels // 4))
    return nn.GroupNorm(next(n for n in range(most, 0, -1) if channels % n == 0), channels)


def _zero(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """A layer that starts by giving zero: its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Two normalised convolutions; the noise level scales and shifts between them."""

    def __init__(self, before: int, after: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = _norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.level = nn.Linear(embedding, 2 * after)
        self.norm_2, self.dropout = _norm(after), nn.Dropout(dropout)
        self.conv_2 = _zero(nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        """(N, before, H, W), (N, embedding) -> (N, after, H, W)."""
        inner = self.conv_1(F.silu(self.norm_1(h)))
        scale, shift = self.level(level)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm_2(inner) * (1 + scale) + shift
        return self.skip(h) + self.conv_2(self.dropout(F.silu(inner)))


class Attention(nn.Module):
    """Self-attention of all places of an image."""

    def __init__(self, channels: int, head_size: int = 32) -> None:
        super().__init__()
        most = max(1, channels // head_size)
        self.heads = next(heads for heads in range(most, 0, -1) if channels % heads == 0)
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        n, c, height, width = h.shape
        qkv = self.qkv(self.norm(h)).reshape(n, 3, self.heads, c // self.heads, height * width)
        # Numbers of one place side by side: the fused kernel takes no other order, and without it
        # the table of all pairs of places is written down.
        q, k, v = qkv.transpose(-1, -2).contiguous().unbind(1)
        seen = attend(q, k, v)
        return h + self.out(seen.transpose(-1, -2).reshape(n, c, height, width))


class Stage(nn.Module):
    """Residual blocks at one size, with attention after each where it is asked for."""

    def __init__(
        self, before: Sequence[int], after: int, embedding: int, dropout: float, attention: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(c, after, embedding, dropout) for c in before)
        self.attentions = nn.ModuleList(
            Attention(after) if attention else nn.Identity() for _ in before
        )

    def down(self, h: Tensor, level: Tensor) -> list[Tensor]:
        """What each block gives."""
        seen = []
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            h = attention(block(h, level))
            seen.append(h)
        return seen

    def up(self, h: Tensor, skips: list[Tensor], level: Tensor) -> Tensor:
        """The last block's output; each sees one of ``skips``, taken from the end."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            h = attention(block(torch.cat([h, skips.pop()], dim=1), level))
        return h


class UNet(nn.Module):
    """U-Net with group norm and attention at chosen stages.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        width: channels at full size.
        widths: channels of each stage as multiples of ``width``; each stage halves the side.
        depth: residual blocks per stage.
        attention: stages, counted from 0 at full size, whose blocks end in self-attention.
        embedding: size of the embedding of the noise level; four times the width unless said.
        dropout: inside the residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 32,
        widths: Sequence[int] = (1, 2, 2),
        depth: int = 2,
        attention: Sequence[int] = (2,),
        embedding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, size = width, embedding or 4 * width
        self.embedding = size
        self.level = nn.Sequential(nn.Linear(width, size), nn.SiLU(), nn.Linear(size, size))
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        channels = [width * m for m in widths]
        kinds = [stage in attention for stage in range(len(channels))]
        skips, before = [width], width
        self.down, self.halving = nn.ModuleList(), nn.ModuleList()
        for i, (after, attends) in enumerate(zip(channels, kinds, strict=True)):
            inputs = [before, *[after] * (depth - 1)]
            self.down.append(Stage(inputs, after, size, dropout, attends))
            skips += [after] * depth
            before = after
            if i < len(channels) - 1:
                self.halving.append(nn.Conv2d(after, after, 3, stride=2, padding=1))
                skips.append(after)
        self.middle = Stage([before, before], before, size, dropout, kinds[-1])
        self.up, self.doubling = nn.ModuleList(), nn.ModuleList()
        for i, (after, attends) in enumerate(zip(channels[::-1], kinds[::-1], strict=True)):
            inputs = [c + skips.pop() for c in [before, *[after] * depth]]
            self.up.append(Stage(inputs, after, size, dropout, attends))
            before = after
            if i < len(channels) - 1:
                self.doubling.append(nn.Conv2d(after, after, 3, padding=1))
        self.norm = _norm(width)
        self.last = _zero(nn.Conv2d(width, out_channels, 3, padding=1))

    def forward(self, x: Tensor, level: Tensor, extra: Tensor | None = None) -> Tensor:
        """Image to image at a noise level.

        Args:
            x: (N, in_channels, H, W).
            level: a number per image, (N,), of the order of 0 … 1000.
            extra: added to the embedding of the level (N, embedding), or None.

        Returns:
            (N, out_channels, H, W).
        """
        known = self.level(sinusoids(level, self.width).to(self.first.weight.dtype))
        known = F.silu(known if extra is None else known + extra)
        h = self.first(x)
        seen = [h]
        for i, stage in enumerate(self.down):
            seen += stage.down(seen[-1], known)  # type: ignore[operator]
            if i < len(self.halving):
                seen.append(self.halving[i](seen[-1]))
        h = self.middle.down(seen[-1], known)[-1]
        for i, stage in enumerate(self.up):
            h = stage.up(h, seen, known)  # type: ignore[operator]
            if i < len(self.doubling):
                h = self.doubling[i](doubled(h, seen[-1].shape[-2:]))
        return self.last(F.silu(self.norm(h)))
