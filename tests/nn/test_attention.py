"""Attention: the formula, in every precision, and the same gradients."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.nn.attention import attend


def written_out(q, k, v, is_causal):
    """Softmax(q kᵀ/√d) v in float64, place by place."""
    scores = q.double() @ k.double().mT / math.sqrt(q.shape[-1])
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.softmax(-1) @ v.double()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
)
def test_it_is_the_formula_and_keeps_the_precision(precision, tolerance, is_causal):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, 7, 4, generator=generator).to(precision).requires_grad_()
        for _ in range(3)
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        seen = attend(q, k, v, is_causal=is_causal)
    expected = written_out(q, k, v, is_causal)
    assert seen.dtype == precision
    torch.testing.assert_close(seen.double(), expected, rtol=tolerance, atol=tolerance)
    weight = torch.randn(2, 3, 7, 4, generator=generator)
    (seen.double() * weight).sum().backward()
    slopes = [part.grad for part in (q, k, v)]
    for slope, exact in zip(
        slopes, torch.autograd.grad((expected * weight).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(slope, exact, rtol=0, atol=10 * tolerance)
