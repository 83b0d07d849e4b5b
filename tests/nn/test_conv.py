"""Convolutional networks of one, two and three sides: one construction, held against itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lowerbound.nn import ConvDecoder, ConvEncoder

SHAPES = [(2, 1), (1, 37), (3, 64), (1, 1031), (2, 7, 31), (1, 5, 1), (2, 5, 13, 7), (1, 17, 2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_networks_fit_sides_that_are_odd_prime_or_one(shape):
    encoder = ConvEncoder(shape, 6, width=8, depth=1)
    decoder = ConvDecoder(4, shape, width=8, depth=1)
    assert encoder(torch.randn(2, *shape)).shape == (2, 6)
    assert decoder(torch.randn(2, 4)).shape == (2, *shape)


def flat(network: nn.Module, other: nn.Module) -> None:
    """Give ``other`` the weights of ``network``, whose first side is one: only their middles."""
    state = other.state_dict()
    assert list(state) == list(network.state_dict())
    for name, weight in network.state_dict().items():
        own = weight[:, :, 1] if weight.ndim == state[name].ndim + 1 else weight
        state[name].copy_(own)


@pytest.mark.parametrize("sides", [(31,), (11, 6)], ids=str)
def test_a_side_of_one_makes_no_difference(sides):
    lower, upper = (2, *sides), (2, 1, *sides)
    x, z = torch.randn(3, *upper), torch.randn(3, 5)
    for build, given in ((ConvEncoder, x), (ConvDecoder, z)):
        sizes = {"width": 8, "depth": 2}
        network, other = (
            ConvEncoder(shape, 7, **sizes)
            if build is ConvEncoder
            else ConvDecoder(5, shape, **sizes)
            for shape in (upper, lower)
        )
        for parameter in network.parameters():  # blocks start as the identity
            nn.init.normal_(parameter, std=0.2)
        flat(network, other)
        below = given.squeeze(2) if build is ConvEncoder else given
        out = network(given)
        assert float(out.std()) > 0.01
        torch.testing.assert_close(
            out.reshape(other(below).shape), other(below), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("shape", [(1, 64), (1, 64, 64), (1, 16, 16, 16)], ids=str)
def test_every_place_is_seen_and_drawn(shape):
    encoder = ConvEncoder(shape, 3, width=8, depth=1)
    x = torch.randn(1, *shape, requires_grad=True)
    encoder(x).square().sum().backward()
    assert (x.grad != 0).all()
    decoder = ConvDecoder(4, shape, width=8, depth=1)
    one, two = decoder(torch.eye(4)[:2])
    assert (one != two).all()
