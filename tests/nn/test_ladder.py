"""Networks of ladders: shapes for images of any sides, and paths that reach every level."""

from __future__ import annotations

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.nn import ConvLadder, MlpLadder
from lowerbound.nn.conv_ladder import image_sizes, spread

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 15, 9), (2, 5, 7), (1, 1, 1), (1, 33, 17), (1, 3, 40)]


def walk(network, x, num=1, z=0.0):
    """Features, and the way down with latents that are all ``z``."""
    features, h = network.features(x), network.start(num * len(x))
    parts = []
    for rung in range(len(network.shapes), 0, -1):
        parts.append((network.prior(rung, h), network.offset(rung, h, features[rung - 1])))
        latents = torch.full((num * len(x), *network.shapes[rung - 1]), z)
        h = network.descend(rung, h, latents)
    return parts[::-1], network.output(h)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("patch", [None, 1, 3, 4])
def test_an_image_of_any_sides_comes_back_whole(shape, patch):
    if patch is not None and patch > max(shape[1:]):
        with pytest.raises(InputError, match=f"patch.* from 1 to {max(shape[1:])}"):
            ConvLadder(shape, 2, 1, 3, width=4, depth=1, patch=patch)
        return
    levels = 2 if max(shape[1:]) > (patch or 1) else 1
    network = ConvLadder(shape, 2, levels, 3, width=4, depth=1, patch=patch)
    parts, out = walk(network, torch.randn(2, *shape), num=3)
    assert out.shape == (6, 2 * shape[0], *shape[1:])
    for own, both in zip(network.shapes, parts, strict=True):
        assert all(part.shape == (6, 6, *own[1:]) for part in both)


@pytest.mark.parametrize("kind", ["mlp", "brush", "conv"])
def test_heads_and_branches_start_at_zero_and_every_weight_is_used(kind):
    torch.manual_seed(0)
    if kind == "conv":
        network = ConvLadder((1, 20, 17), 1, 4, 2, width=8, depth=2)
    else:
        network = MlpLadder((1, 20, 17), 1, [3, 2], width=8, depth=2, has_brush=kind == "brush")
    x = torch.randn(2, 1, 20, 17)
    parts, out = walk(network, x, z=1.0)
    assert all(not prior.any() and offset.any() for prior, offset in parts)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    parts, out = walk(network, x, z=1.0)
    (out.square().sum() + sum(p.square().sum() for both in parts for p in both)).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_top_is_known_by_all_below_and_the_lowest_by_none_above():
    network = MlpLadder((4,), 1, [2, 2, 2], width=8, depth=1)
    with torch.no_grad():
        for rung in network.rungs:
            torch.nn.init.normal_(rung.prior.weight)
    calm, loud = (walk(network, torch.zeros(1, 4), z=z)[0] for z in (0.0, 1.0))
    changed = [not torch.equal(a[0], b[0]) for a, b in zip(calm, loud, strict=True)]
    assert changed == [True, True, False]


def test_levels_are_spread_evenly_and_never_beyond_the_room_that_there_is():
    sizes = image_sizes((32, 32), None, 28, 2)
    assert sizes == [(16, 16), (8, 8), (4, 4)]
    for levels in range(3, 29):
        own = spread(sizes, levels)
        assert len(own) == levels
        assert own == sorted(own, reverse=True)
        assert set(own) == set(sizes)
        assert all(own.count(size) <= max(size) for size in sizes)
    assert image_sizes((28, 28), 4, 5, 2) == [(14, 14), (7, 7), (4, 4), (2, 2)]
    assert image_sizes((28, 28), None, 1, 2) == [(14, 14)]
    assert image_sizes((28, 28), None, 5, 4) == [(7, 7)]
