"""The U-Net: every shape comes back, everything learns, and it starts as nothing."""

from __future__ import annotations

import pytest
import torch

from lowerbound.nn.unet import Attention, UNet, sinusoids


def small(channels: int = 1) -> UNet:
    torch.manual_seed(0)
    return UNet(channels, channels, width=8, attention=(1, 2))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (1, 8, 8), (2, 5, 1)])
def test_the_output_has_the_shape_of_the_input(shape):
    x = torch.randn(2, *shape)
    assert small(shape[0])(x, torch.tensor([1.0, 500.0])).shape == x.shape


def test_it_starts_at_zero_and_every_parameter_learns():
    net = small()
    x, level = torch.randn(2, 1, 12, 12), torch.tensor([3.0, 700.0])
    assert torch.equal(net(x, level), torch.zeros_like(x))
    for parameter in net.parameters():  # away from the zeros that hide gradients
        torch.nn.init.normal_(parameter, std=0.05)
    net(x, level).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_each_image_sees_its_own_level_and_no_other_image():
    net = small().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x = torch.randn(2, 1, 12, 12)
    one = net(x, torch.tensor([3.0, 700.0]))
    other = net(x, torch.tensor([3.0, 100.0]))
    torch.testing.assert_close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-4


def test_attention_carries_a_pixel_to_every_place():
    net = UNet(1, 1, width=8, widths=(1,), depth=1, attention=(0,)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.zeros(1, 1, 40, 40, requires_grad=True)
    net(x, torch.zeros(1))[0, 0, 39, 39].backward()
    assert x.grad[0, 0, 0, 0] != 0  # far outside every convolution's reach


def test_attention_is_the_formula():
    layer, h = Attention(64), torch.randn(2, 64, 3, 5)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    q, k, v = layer.qkv(layer.norm(h)).flatten(2).unflatten(1, (3, 2, 32)).unbind(1)
    weights = torch.softmax(torch.einsum("nhci,nhcj->nhij", q, k) / 32**0.5, -1)
    seen = torch.einsum("nhij,nhcj->nhci", weights, v).reshape(h.shape)
    torch.testing.assert_close(layer(h), h + layer.out(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [1, 7, 50, 96])
def test_any_width_has_heads_that_divide_it(width):
    net = UNet(1, 1, width=width, widths=(1, 2), depth=1, attention=(0, 1))
    assert net(torch.randn(1, 1, 8, 8), torch.zeros(1)).shape == (1, 1, 8, 8)


def test_sinusoids_tell_levels_apart():
    codes = sinusoids(torch.tensor([0.0, 1.0, 10.0, 1000.0]), 33)
    assert codes.shape == (4, 33)
    assert torch.cdist(codes, codes).fill_diagonal_(1).min() > 0.1
