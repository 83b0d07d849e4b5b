"""Flows: there and back is where one was, and the volume is what autograd says it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lowerbound._random import initialised_by
from lowerbound.nn import Autoregressive, Chain, Coupling, coupling_masks
from lowerbound.nn.masked import MaskedMlp

KINDS = {
    "coupling": lambda d, c: Coupling(coupling_masks(d, 1)[0], c, width=8),
    "autoregressive": lambda d, c: Autoregressive(d, c, width=8),
    "gated": lambda d, c: Autoregressive(d, c, width=8, gated=True),
    "reversed": lambda d, c: Autoregressive(d, c, width=8, gated=True, reverse=True),
    "couplings": lambda d, c: Chain([Coupling(m, c, width=8) for m in coupling_masks(d, 6)]),
    "chain": lambda d, c: Chain(
        [Autoregressive(d, c, width=8, gated=True, reverse=i > 0) for i in range(3)]
    ),
}


def moved(network: nn.Module, seed: int = 1) -> nn.Module:
    """The network in float64 with weights that are nowhere zero: the last layers begin there."""
    generator = torch.Generator().manual_seed(seed)
    for p in network.double().parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return network


@pytest.fixture(params=[(1, 0), (2, 0), (5, 3), (5, 0)], ids=str)
def sizes(request):
    return request.param


@pytest.fixture(params=KINDS)
def flow(request, sizes):
    with initialised_by(0):
        return moved(KINDS[request.param](*sizes))


def given(sizes, num=4):
    d, c = sizes
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num, d, generator=generator, dtype=torch.float64)
    h = torch.randn(num, c, generator=generator, dtype=torch.float64) if c else None
    return x, h


def test_there_and_back_is_where_one_was(flow, sizes):
    x, h = given(sizes)
    y, log_det = flow(x, h)
    again, same = flow(y, h, inverse=True)
    torch.testing.assert_close(again, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(same, log_det, rtol=0, atol=1e-8)
    there, _ = flow(flow(x, h, inverse=True)[0], h)
    torch.testing.assert_close(there, x, rtol=0, atol=1e-8)


def test_the_volume_is_the_determinant_of_the_jacobian(flow, sizes):
    x, h = given(sizes)
    _, log_det = flow(x, h)
    for i in range(len(x)):
        beside = None if h is None else h[i]
        jacobian = torch.autograd.functional.jacobian(lambda v, c=beside: flow(v, c)[0], x[i])
        exact = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det[i], exact, rtol=0, atol=1e-8)


def test_the_way_back_has_the_inverse_jacobian(flow, sizes):
    """Its gradient is what makes the path of a draw exact."""
    x, h = given(sizes, 1)
    y = flow(x, h)[0].detach()
    beside = None if h is None else h[0]
    there = torch.autograd.functional.jacobian(lambda v: flow(v, beside)[0], x[0])
    back = torch.autograd.functional.jacobian(lambda v: flow(v, beside, inverse=True)[0], y[0])
    torch.testing.assert_close(back @ there, torch.eye(len(x[0])).double(), rtol=0, atol=1e-7)


def test_leading_axes_broadcast_against_the_context(flow, sizes):
    x, h = given(sizes)
    stacked = torch.stack([x, 2 * x, -x])
    y, log_det = flow(stacked, h)
    for part, one, two in zip(stacked, y, log_det, strict=True):
        torch.testing.assert_close(flow(part, h), (one, two))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_is_the_same_after_extreme_inputs_as_before(kind):
    flow = KINDS[kind](3, 0)
    y, log_det = flow(torch.full((2, 3), 1e6))
    assert y.isfinite().all()
    assert log_det.isfinite().all()


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_outputs_of_a_masked_network_see_the_inputs_before_them_and_all_of_those(d):
    network = moved(MaskedMlp(d, 2, width=16))
    x = torch.randn(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = torch.ones(2, dtype=torch.float64)
    below = torch.ones(d, d).tril(-1).bool()
    for k in (0, 1):
        jacobian = torch.autograd.functional.jacobian(lambda v, k=k: network(v, h)[k], x)
        assert torch.equal(jacobian != 0, below)
        beside = torch.autograd.functional.jacobian(lambda c, k=k: network(x, c)[k], h)
        assert (beside != 0).all()


@pytest.mark.parametrize("d", [1, 2, 3, 8, 40])
def test_every_two_entries_are_on_different_sides_of_some_mask(d):
    masks = torch.stack(coupling_masks(d, 2 * max(1, (d - 1).bit_length())))
    for i in range(d):
        assert (masks[:, i] == 0).any()  # every entry is moved by some layer
        for j in range(i):
            assert (masks[:, i] != masks[:, j]).any()
