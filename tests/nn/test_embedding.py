"""Embeddings: units play no part, and what is not known is neither read nor measured."""

from __future__ import annotations

import math

import torch
from torch import nn

from lowerbound.nn import ClassEmbedding, MaskEmbedding, VectorEmbedding


def test_a_vector_in_other_units_has_the_same_embedding():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    embedding = VectorEmbedding(3, 5)
    embedding.measure(x)
    torch.testing.assert_close(embedding.shift, x.mean(0))
    before = embedding(x)
    embedding.measure(1000 * x - 7)
    torch.testing.assert_close(embedding(1000 * x - 7), before, rtol=1e-3, atol=1e-4)


def test_a_vector_with_a_number_not_known_is_neither_measured_nor_read():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    embedding, whole = VectorEmbedding(3, 5), x.clone()
    x[::2, 1] = math.nan
    embedding.measure(x)
    torch.testing.assert_close(embedding.shift, whole[1::2].mean(0))
    nn.init.ones_(embedding.unknown)
    out = embedding(x)
    assert torch.equal(out[::2], torch.ones(25, 5))
    out.square().sum().backward()  # nor does it spoil the gradient of the others
    assert all(p.grad.isfinite().all() for p in embedding.parameters())
    embedding.measure(torch.full((4, 3), math.nan))
    assert embedding.shift.isfinite().all()


def test_a_number_that_never_changes_keeps_its_unit():
    embedding = VectorEmbedding(2, 4)
    embedding.measure(torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    assert torch.equal(embedding.scale, torch.tensor([1.0, 0.5]))


def test_each_class_and_the_one_that_is_not_known_has_its_row():
    embedding = ClassEmbedding(3, 4)
    assert torch.equal(embedding(torch.tensor([3, 0])), embedding.table.weight[[3, 0]])
    before = embedding.frequencies.clone()
    embedding.measure(torch.tensor([3, 3]))
    assert torch.equal(embedding.frequencies, before)


def test_a_part_is_measured_where_it_is_observed():
    generator = torch.Generator().manual_seed(0)
    x = 5 + 2 * torch.randn(300, 1, 4, 4, generator=generator)
    mask = (torch.rand(x.shape, generator=generator) < 0.3).float()
    embedding = MaskEmbedding(nn.Flatten(), (1, 4, 4), 32)
    embedding.measure(torch.stack([x * mask, mask], 1))
    seen = x[mask == 1].double()
    torch.testing.assert_close(embedding.shift.flatten(), seen.mean().float()[None])
    spread = seen.std(correction=0).float()[None]
    torch.testing.assert_close(embedding.scale.flatten(), spread, rtol=1e-4, atol=0)
