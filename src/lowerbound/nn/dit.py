"""Diffusion transformer: a noisy array as a sequence of patches, told the noise level throughout.

    h ← h + g₁ ⊙ attention(s₁ ⊙ norm(h) + b₁),   h ← h + g₂ ⊙ mlp(s₂ ⊙ norm(h) + b₂),

where scales s, shifts b and gates g are linear in the embedding of the level, and the gates start
at zero: every block starts as the identity (adaLN-zero).

Sides that the patch does not divide are padded with zeros behind their end, and what the network
says there is cut off. Places are told by fixed sines and cosines of each coordinate, so that one
network takes arrays of any size.

References:
    Peebles and Xie, Scalable Diffusion Models with Transformers, 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.errors import refuse
from lowerbound.nn.attention import attend
from lowerbound.nn.unet import sinusoids

__all__ = ["DiT", "modulated"]


def modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(1 + scale) ⊙ norm(h) + shift, of (N, …, width) and two of (N, width); no other weights."""
    between = (len(scale), *(1,) * (h.ndim - 2), scale.shape[-1])
    norm = F.layer_norm(h, h.shape[-1:], eps=1e-6)
    return torch.addcmul(shift.reshape(between), norm, 1 + scale.reshape(between))


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Attention and a two-layer network over tokens; starts as the identity."""

    def __init__(self, width: int, embedding: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.level = _zero(nn.Linear(embedding, 6 * width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        """(N, tokens, width), (N, embedding) -> (N, tokens, width)."""
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.level(known).chunk(6, dim=1)
        seen = self.dropout(self._attended(modulated(h, scale_1, shift_1)))
        h = h + gate_1[:, None] * seen
        inner = F.gelu(self.inner(modulated(h, scale_2, shift_2)), approximate="tanh")
        return h + gate_2[:, None] * self.dropout(self.outer(inner))

    def _attended(self, h: Tensor) -> Tensor:
        n, tokens, width = h.shape
        qkv = self.qkv(h).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = attend(q, k, v)
        return self.out(seen.transpose(1, 2).reshape(n, tokens, width))


class DiT(nn.Module):
    """Transformer over patches of sequences, images and volumes of any size.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        num_sides: 2 for images, 1 for sequences, 3 for volumes.
        patch: side of a patch. Attention costs the square of the number of patches.
        width: numbers per token; a multiple of the head size.
        depth: blocks.
        head_size: numbers per head.
        embedding: size of the embedding of the noise level; the width unless said.
        dropout: inside the blocks.

    Raises:
        InputError: a patch below 1, or a width that the heads do not divide.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_sides: int = 2,
        patch: int = 2,
        width: int = 128,
        depth: int = 4,
        head_size: int = 32,
        embedding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if patch < 1:
            raise refuse("patch", "at least 1", patch)
        if width < 1 or width % head_size or width < 2 * num_sides:
            raise refuse("width", f"a multiple of the head size {head_size}", width)
        self.patch, self.width, self.num_sides = patch, width, num_sides
        self.embedding = size = embedding or width
        self.level = nn.Sequential(nn.Linear(width, size), nn.SiLU(), nn.Linear(size, size))
        self.first = nn.Linear(in_channels * patch**num_sides, width)
        heads = width // head_size
        self.blocks = nn.ModuleList(Block(width, size, heads, dropout) for _ in range(depth))
        self.last_level = _zero(nn.Linear(size, 2 * width))
        self.last = _zero(nn.Linear(width, out_channels * patch**num_sides))

    def forward(self, x: Tensor, level: Tensor, extra: Tensor | None = None) -> Tensor:
        """Array to array at a noise level.

        Args:
            x: (N, in_channels, *sides).
            level: a number per array, (N,), of the order of 0 … 1000.
            extra: added to the embedding of the level (N, embedding), or None.

        Returns:
            (N, out_channels, *sides).
        """
        known = self.level(sinusoids(level, self.width).to(self.first.weight.dtype))
        known = F.silu(known if extra is None else known + extra)
        tokens, grid = self._patches(x)
        h = self.first(tokens) + self._places(grid).to(tokens)
        for block in self.blocks:
            h = block(h, known)
        scale, shift = self.last_level(known).chunk(2, dim=1)
        out = self._array(self.last(modulated(h, scale, shift)), grid)
        for axis, side in enumerate(x.shape[2:], 2):
            out = out.narrow(axis, 0, side)
        return out

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Tokens (N, patches, C · patch^k) of an array, and how many lie along each side."""
        p, k = self.patch, self.num_sides
        missing = [-side % p for side in x.shape[2:]]
        if any(missing):  # F.pad counts sides from the last one
            x = F.pad(x, [n for side in reversed(missing) for n in (0, side)])
        grid = tuple(side // p for side in x.shape[2:])
        x = x.reshape(*x.shape[:2], *(n for side in grid for n in (side, p)))
        places, within = range(2, 2 + 2 * k, 2), range(3, 3 + 2 * k, 2)
        return x.permute(0, *places, 1, *within).flatten(1, k).flatten(2), grid

    def _array(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """The inverse of `_patches`: (N, patches, C · patch^k) -> (N, C, *padded sides)."""
        p, k = self.patch, self.num_sides
        x = tokens.reshape(len(tokens), *grid, -1, *(p,) * k)
        pairs = [axis for i in range(k) for axis in (1 + i, 2 + k + i)]
        return x.permute(0, 1 + k, *pairs).reshape(len(x), x.shape[1 + k], *(p * n for n in grid))

    def _places(self, grid: tuple[int, ...]) -> Tensor:
        """What each place adds to its token, (patches, width): sines of every coordinate."""
        device, size = self.first.weight.device, self.width // self.num_sides
        axes = [torch.arange(n, device=device) for n in grid]
        coordinates = torch.cartesian_prod(*axes).reshape(-1, self.num_sides)
        codes = torch.cat([sinusoids(c, size) for c in coordinates.unbind(1)], 1)
        return F.pad(codes, (0, self.width - codes.shape[1]))
