"""Denoisers: every kind takes its shapes, sees its level and its extra, and starts as nothing."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from lowerbound.errors import InputError
from lowerbound.nn.denoiser import DenoiserKind, fitting_denoiser, make_denoiser
from lowerbound.nn.fourier import FourierFeatures

SHAPES = {
    "unet": [(1, 8, 8), (3, 9, 14)],
    "dit": [(1, 8, 8), (3, 9, 14), (2, 11), (1, 5, 4, 3)],
    "mlp": [(5,), (1, 4, 4), (2, 11), (1, 2, 2, 2)],
}
SIZES = {"unet": {"width": 8}, "dit": {"width": 32, "depth": 2}, "mlp": {"width": 32, "depth": 2}}
KINDS = [kind for kind in get_args(DenoiserKind) if kind != "auto"]
CASES = [(kind, shape) for kind in KINDS for shape in SHAPES[kind]]
LEVELS = torch.tensor([3.0, 700.0])


def awake(shape, kind, **options):
    """A small denoiser whose every weight differs from zero."""
    net = make_denoiser(kind, shape, **{**SIZES[kind], **options}).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return net


def numbers(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "shape"), CASES)
@pytest.mark.parametrize("num_outputs", [1, 2])
def test_the_output_has_the_shape_of_the_input_times_the_outputs(kind, shape, num_outputs):
    net, x = awake(shape, kind, num_outputs=num_outputs, fourier=(2, 3)), numbers(*shape)
    assert net(x, LEVELS).shape == (2, num_outputs * shape[0], *shape[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_at_zero(kind):
    shape = SHAPES[kind][0]
    net = make_denoiser(kind, shape, **SIZES[kind])
    x = numbers(*shape)
    assert torch.equal(net(x, LEVELS), torch.zeros_like(x))


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_every_parameter_learns(kind, shape):
    net = awake(shape, kind, fourier=(1,))
    extra = torch.ones(2, net.embedding)
    net(numbers(*shape), LEVELS, extra).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_each_example_sees_its_own_level_and_extra_and_no_other(kind):
    net, x = awake(SHAPES[kind][0], kind), numbers(*SHAPES[kind][0])
    extra = torch.zeros(2, net.embedding)
    one = net(x, LEVELS, extra)
    torch.testing.assert_close(net(x, LEVELS), one)  # nothing more known
    changed = net(x, torch.tensor([3.0, 100.0]), extra)
    torch.testing.assert_close(changed[0], one[0])
    assert (changed[1] - one[1]).abs().max() > 1e-4
    changed = net(x, LEVELS, torch.stack([extra[0], extra[1] + 1]))
    torch.testing.assert_close(changed[0], one[0])
    assert (changed[1] - one[1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["dit", "mlp"])
def test_every_number_reaches_every_other(kind):
    shape = SHAPES[kind][-1]
    net, x = awake(shape, kind), numbers(*shape).requires_grad_()
    net(x, LEVELS)[0].flatten()[-1].backward()
    assert x.grad[0].abs().min() > 0
    assert x.grad[1].abs().max() == 0


def test_patches_and_back_are_the_padded_array():
    for shape in SHAPES["dit"]:
        net = awake(shape, "dit").network
        x = numbers(*shape)
        tokens, grid = net._patches(x)
        assert tokens.shape == (2, torch.tensor(grid).prod(), shape[0] * 2 ** len(grid))
        back = net._array(tokens, grid)
        assert torch.equal(back[(..., *(slice(0, n) for n in shape[1:]))], x)
        assert back.abs().sum() == pytest.approx(float(x.abs().sum()), rel=1e-6)  # else zeros


def test_a_patch_is_a_block_of_neighbours():
    net = awake((1, 4, 4), "dit").network
    tokens, _ = net._patches(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert tokens[0, 0].tolist() == [0, 1, 4, 5]
    assert tokens[0, 1].tolist() == [2, 3, 6, 7]


def test_a_dit_takes_other_sizes_and_tells_places_apart():
    net = awake((1, 8, 8), "dit")
    same = torch.ones(2, 1, 12, 6)
    out = net(same, LEVELS)
    assert out.shape == same.shape
    patches = out[0, 0, ::2, ::2].flatten()[:, None]  # the same number of every patch
    assert torch.cdist(patches, patches).fill_diagonal_(1).min() > 1e-6
    places = net.network._places((6, 3))
    assert torch.cdist(places, places).fill_diagonal_(1).min() > 0.1


def test_fourier_features_are_sines_and_cosines_behind_the_values():
    z = numbers(2, 3)
    found = FourierFeatures((0, 3))(z)
    expected = [z, (torch.pi * z).sin(), (8 * torch.pi * z).sin()]
    expected += [(torch.pi * z).cos(), (8 * torch.pi * z).cos()]
    torch.testing.assert_close(found, torch.cat(expected, 1), atol=1e-5, rtol=0)
    assert FourierFeatures((0, 3)).ratio * 2 == found.shape[1]
    assert FourierFeatures(())(z) is z


def test_the_network_sees_the_features():
    net = awake((1, 4, 4), "mlp", fourier=(1,))
    x = numbers(1, 4, 4)
    torch.testing.assert_close(net(x, LEVELS), net.network(FourierFeatures((1,))(x), LEVELS))
    assert (net(x, LEVELS) - net.network(x.repeat(1, 3, 1, 1), LEVELS)).abs().max() > 1e-4


def test_fourier_features_tell_neighbouring_levels_apart():
    levels = torch.linspace(-1, 1, 256)[:, None]
    steps = FourierFeatures((7,))(levels).diff(dim=0)
    assert steps[:, 0].abs().max() < 0.01
    assert steps[:, 1:].norm(dim=1).min() > 1


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 8, 8), "unet"), ((3, 64, 9), "unet"), ((1, 7, 28), "mlp"), ((16,), "mlp")],
)
def test_auto_picks_what_fits(shape, kind):
    assert fitting_denoiser(shape) == kind
    chosen = make_denoiser("auto", shape).network
    assert type(chosen) is type(make_denoiser(kind, shape).network)


@pytest.mark.parametrize(
    ("shape", "kind", "options", "said"),
    [
        ((16,), "unet", {}, "'network' must be mlp for data of shape 16, got unet"),
        ((2, 50), "unet", {}, "mlp or dit for data of shape 2×50, got unet, which takes images"),
        ((16,), "dit", {}, "mlp for data of shape 16, got dit"),
        ((16,), "cnn", {}, "'network' must be one of auto, unet, dit, mlp, got cnn"),
        ((1, 8, 8), "mlp", {"patch": 2}, "'patch' must be left out for a mlp: dit has it"),
        ((1, 8, 8), "dit", {"patch": 0}, "'patch' must be at least 1"),
        ((1, 8, 8), "dit", {"width": 100}, "'width' must be a multiple of the head size 32"),
        ((1, 8, 8), "unet", {"depth": 0}, "'depth' must be at least 1, got 0"),
        ((1, 8, 8), "unet", {"widths": (1,) * 5}, "'widths' must be at most 4 stages for 8×8 pix"),
        (
            (1, 8, 8),
            "unet",
            {"attention": (2,)},
            "'attention' must be stages from 0 to 1, got (2,",
        ),
        ((1, 8, 8), "unet", {"fourier": (40,)}, "'exponents' must be from 0 to 20, got 40"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(shape, kind, options, said):
    with pytest.raises(InputError) as refused:
        make_denoiser(kind, shape, **options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("side", "stages"), [(1, 1), (7, 1), (8, 2), (15, 2), (16, 3), (28, 3), (32, 4), (256, 4)]
)
def test_a_unet_halves_down_to_a_few_pixels(side, stages):
    net = make_denoiser("unet", (1, side, side + 3), width=4).network
    assert len(net.down) == stages == len(net.halving) + 1
    attends = [type(stage.attentions[0]).__name__ == "Attention" for stage in net.down]
    assert attends == [False] * (stages - 1) + [True]
    assert len(net.down[0].blocks) == (1 if side < 16 else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_other_precisions_and_odd_embeddings(kind):
    shape = SHAPES[kind][-1]
    net = awake(shape, kind, embedding=7)
    assert net.embedding == 7
    extra, x = torch.ones(2, 7), numbers(*shape)
    low = net(x, LEVELS, extra)
    high = net.double()(x.double(), LEVELS.double(), extra.double())
    assert high.dtype == torch.float64
    torch.testing.assert_close(high.float(), low, rtol=1e-3, atol=1e-4)
