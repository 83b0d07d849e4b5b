"""A small causal transformer over a sequence of codes: what may come next, given what came before.

The logits at place i are a function of the codes before i alone. A sequence is drawn code by code
from the same logits, with keys and values kept, so that a draw costs one pass and not S of them.

References:
    Vaswani et al., Attention Is All You Need, 2017.
    van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, 2017 (an
    autoregressive prior over codes).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.nn.attention import attend

__all__ = ["CausalTransformer"]

SMALLEST_HEAD = 16
Memory = list[list[Tensor]]  # of each block, keys and values (N, heads, places so far, size)


class CausalBlock(nn.Module):
    """Attention to what came before, then two linear layers; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(h for h in (1, 2, 4, 8) if h == 1 or width % (h * SMALLEST_HEAD) == 0)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.out, self.outer):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """(N, S, width) -> the same shape; with ``memory``, of places that follow those in it."""
        qkv = self.qkv(self.norm_1(h)).unflatten(2, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if memory is not None:
            if memory:
                k, v = torch.cat([memory[0], k], 2), torch.cat([memory[1], v], 2)
            memory[:] = [k, v]
        seen = attend(q, k, v, is_causal=memory is None)
        h = h + self.out(seen.transpose(1, 2).flatten(2))
        return h + self.outer(F.silu(self.inner(self.norm_2(h))))


class CausalTransformer(nn.Module):
    """Logits of each code of a sequence (N, S), given the codes before it: (N, S, n).

    Starts with equal logits. The place says which of M codebooks a code is of: i mod M. An
    embedding (N, E), where there is one, is heard at every place.

    Args:
        num_codes: n, of each codebook.
        length: S.
        codebooks: M.
        width: numbers per place.
        depth: blocks.
        num_context: E, numbers of the embedding that is told; 0 for none.
    """

    def __init__(
        self,
        num_codes: int,
        length: int,
        codebooks: int = 1,
        *,
        width: int = 64,
        depth: int = 2,
        num_context: int = 0,
    ) -> None:
        super().__init__()
        self.num_codes, self.length, self.codebooks = num_codes, length, codebooks
        self.codes = nn.Embedding(codebooks * num_codes, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.start = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(CausalBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, num_codes) for _ in range(codebooks))
        for head in self.heads:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.listener = nn.Linear(num_context, width) if num_context else None

    def forward(self, codes: Tensor, *beside: Tensor) -> Tensor:
        """Logits (N, S, n) of codes (N, S)."""
        books = torch.arange(self.length, device=codes.device) % self.codebooks
        told = self.codes(codes[:, :-1] + books[:-1] * self.num_codes)
        first = self.start.to(told.dtype).expand(len(codes), 1, -1)
        h = torch.cat([first, told], 1) + self.places
        if self.listener is not None:
            h = h + self.listener(*beside).unsqueeze(1)
        for block in self.blocks:
            h = block(h)
        by_book = self.norm(h).unflatten(1, (-1, self.codebooks)).unbind(2)
        logits = [head(part) for head, part in zip(self.heads, by_book, strict=True)]
        return torch.stack(logits, 2).flatten(1, 2)

    def remember(self) -> Memory:
        """An empty memory for `following`."""
        return [[] for _ in self.blocks]

    def following(
        self, before: Tensor | None, place: int, num: int, memory: Memory, *beside: Tensor
    ) -> Tensor:
        """Logits (N, n) of the code at ``place``; the places before it were asked for in turn.

        Args:
            before: codes (N,) at the place before; None at the first.
            place: i.
            num: N.
            memory: what `remember` gave, which this adds to.
            *beside: the embedding (N, E), where there is one.
        """
        if before is None:
            h = self.start.expand(num, -1)
        else:
            h = self.codes(before + (place - 1) % self.codebooks * self.num_codes)
        if self.listener is not None:
            h = h + self.listener(*beside)
        h = (h + self.places[place]).unsqueeze(1)
        for block, kept in zip(self.blocks, memory, strict=True):
            h = block(h, kept)
        logits: Tensor = self.heads[place % self.codebooks](self.norm(h).squeeze(1))
        return logits
