"""Each place twice: what interpolation gives, and a gradient that a compiler keeps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lowerbound.nn.doubling import doubled
from lowerbound.nn.unet import UNet
from lowerbound.training.compiling import find_compiler


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("sides", [(1,), (5,), (4, 7), (2, 3, 4)], ids=str)
def test_it_is_interpolation_to_the_nearest(sides, cut):
    size = tuple(2 * side - cut for side in sides)
    h = torch.randn(2, 3, *sides, requires_grad=True)
    weight = torch.randn(2, 3, *size)
    ours, theirs = doubled(h, size), F.interpolate(h, size=size, mode="nearest")
    assert torch.equal(ours, theirs)
    a, b = (torch.autograd.grad((made * weight).sum(), h)[0] for made in (ours, theirs))
    torch.testing.assert_close(a, b)


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
def test_what_lies_below_it_learns_in_a_compiled_network_too():
    """In bfloat16, where the gradient of the library's own interpolation is lost."""
    torch.manual_seed(0)
    net = UNet(1, 1, width=8, widths=(1, 1), depth=1, attention=())
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, level = torch.randn(4, 1, 6, 6), torch.rand(4) * 1000
    found = []
    for function in (net, torch.compile(net, dynamic=False)):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            made = function(x, level)
        made.float().square().mean().backward()
        found.append({name: p.grad.clone() for name, p in net.named_parameters()})
    for name, wanted in found[0].items():
        error = (found[1][name] - wanted).norm() / wanted.norm()
        assert error < 0.1, name
