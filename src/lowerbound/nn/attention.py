"""Attention of every place of a sequence to the others."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attend"]


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    """Softmax(q kᵀ/√d) v, of the shape and the precision of q, by PyTorch's fused kernel.

    On a processor it works in float32, whatever the precision around it: there the way back of
    the kernel takes up to six times as long in bfloat16.

    Args:
        q: queries (N, heads, S, d).
        k: keys (N, heads, T, d).
        v: values (N, heads, T, d).
        is_causal: whether place i sees the places up to i alone.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    with torch.autocast("cpu", enabled=False):
        seen = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=is_causal)
    return seen.to(q.dtype)
