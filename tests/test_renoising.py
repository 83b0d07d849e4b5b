"""Examples taken to noise and back, part of the way, and in part: against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Classes
from lowerbound.errors import InputError
from lowerbound.generation import interpolate, mixed, reconstruct
from lowerbound.noising import alpha, sigma
from lowerbound.renoising import denoising_path, from_noise, inpaint, renoise, to_noise
from lowerbound.schedules import LinearSchedule
from tests.models.gaussian_diffusion import LAMBDA, optimal_model
from tests.models.test_conditional import drawn_anew

LOW, HIGH, MEAN = -9.0, 7.0, 0.7


def gaussian(dims=4, steps=80, timesteps=None):
    return optimal_model(LinearSchedule(LOW, HIGH), dims, MEAN, timesteps).with_sampler(
        steps=None if timesteps else steps
    )


def examples(num, dims=4):
    generator = torch.Generator().manual_seed(0)
    return MEAN + math.sqrt(LAMBDA) * torch.randn(num, dims, generator=generator).double()


def test_the_ode_keeps_how_far_out_an_example_lies_and_leads_back_to_it():
    model, x = gaussian(steps=400), examples(30)
    z = to_noise(model, x)
    ends = [alpha(g) ** 2 * LAMBDA + sigma(g) ** 2 for g in torch.tensor([LOW, HIGH]).double()]
    a_0, a_1 = alpha(torch.tensor([LOW, HIGH]).double())
    expected = a_1 * MEAN + a_0 * (x - MEAN) * (ends[1] / ends[0]).sqrt()
    torch.testing.assert_close(z, expected, rtol=0.02, atol=0.01)
    torch.testing.assert_close(from_noise(model, z), x, rtol=1e-3, atol=2e-3)


def test_without_corrections_the_way_back_leads_less_well():
    model, x = gaussian(steps=20), examples(30)
    errors = [
        float((from_noise(model, to_noise(model, x, refinements=n)) - x).abs().mean())
        for n in (0, 1, 4)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.1 * errors[0]


def test_arcs_are_as_long_as_their_ends_and_lines_are_shorter():
    a, b = torch.randn(2, 3, 5, 40, generator=torch.Generator().manual_seed(0))
    for spherical in (False, True):
        path = mixed(a, b, 5, spherical)
        assert path.shape == (3, 5, 5, 40)
        torch.testing.assert_close(path[:, 0], a)
        torch.testing.assert_close(path[:, -1], b)
    arcs, lines = (mixed(a, b, 3, s).flatten(2).norm(dim=2) for s in (True, False))
    assert (lines[:, 1] < 0.8 * lines[:, 0]).all()
    low, high = arcs[:, [0, 2]].min(1).values, arcs[:, [0, 2]].max(1).values
    assert ((arcs[:, 1] > 0.95 * low) & (arcs[:, 1] < 1.05 * high)).all()
    torch.testing.assert_close(mixed(a, a, 3, True)[:, 1], a, rtol=1e-3, atol=1e-3)


def test_walks_through_noise_begin_and_end_at_their_examples():
    model, x = gaussian(steps=200), examples(6)
    for spherical in (None, False):
        frames = interpolate(model, x[:3], x[3:], 4, spherical=spherical)
        assert frames.shape == (3, 4, 4)
        torch.testing.assert_close(frames[:, 0], x[:3], atol=5e-3, rtol=0)
        torch.testing.assert_close(frames[:, -1], x[3:], atol=5e-3, rtol=0)


@pytest.mark.parametrize("timesteps", [None, 301])
@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_what_comes_back_from_a_noise_level_has_what_it_knows_in_common_with_x(timesteps, level):
    """x' ~ p(x|z_t): of the same distribution, with correlation α²λ/(α²λ + σ²)."""
    model, x = gaussian(steps=300, timesteps=timesteps), examples(2500)
    back = renoise(model, x, noise_level=level)
    g = torch.tensor(LOW + level * (HIGH - LOW)).double()
    known = alpha(g) ** 2 * LAMBDA
    expected = float(known / (known + sigma(g) ** 2))
    both = torch.stack([x.flatten(), back.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(expected, abs=0.04)
    assert float(back.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(back.var()) == pytest.approx(LAMBDA, rel=0.1)


def test_a_little_noise_leaves_levels_as_they_are_and_seeds_decide(digits):
    model = create_model("diffusion", digits, network="mlp", width=16, sampling_steps=8)
    drawn_anew(model)
    x = digits.test.x[:5]
    near = (renoise(model, x, noise_level=1e-4) - x).abs()  # a sixth of a level is one deviation
    assert near.max() < 1.01
    assert near.mean() < 0.05
    assert torch.equal(reconstruct(model, x), renoise(model, x, noise_level=0.5))
    one, two = (renoise(model, x, noise_level=0.9, seed=s) for s in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(renoise(model, x, noise_level=0.9, seed=1), two)


def test_what_is_known_stays_and_the_rest_is_drawn():
    model, x = gaussian(dims=2, steps=60), examples(600, 2)
    mask = torch.tensor([True, False])
    made = inpaint(model, torch.where(mask, x, math.nan), mask, num=3, repeats=2)
    assert made.shape == (3, 600, 2)
    assert torch.equal(made[..., 0], x[:, 0].expand(3, -1))
    assert float(made[..., 1].mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(made[..., 1].var()) == pytest.approx(LAMBDA, rel=0.15)
    assert not torch.isclose(made[0, :, 1], made[1, :, 1]).all()


def test_the_path_of_a_draw_ends_in_it_and_begins_with_the_mean():
    model = gaussian(dims=3, steps=40)
    frames, gammas = denoising_path(model, 6, 5, seed=2)
    assert frames.shape == (6, 6, 3)
    assert gammas.tolist() == sorted(gammas.tolist(), reverse=True)
    assert (float(gammas[0]), float(gammas[-1])) == (HIGH, LOW)
    torch.testing.assert_close(frames[:, 0], torch.full((6, 3), MEAN).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(frames[:, -2], frames[:, -1], atol=0.2, rtol=0)
    assert float(frames[:, -1].std()) > 0.2
    few, _ = denoising_path(model.with_sampler(steps=2), 2, 9)
    assert few.shape == (2, 3, 3)


def test_classes_are_those_that_are_given():
    given = {"context": Classes(3), "support": "discrete:9", "network": "mlp", "width": 16}
    model = create_model("diffusion", (5,), **given, sampling_steps=4)
    drawn_anew(model.network)
    x = torch.full((3, 5), 4.0)
    ways = (
        lambda c: renoise(model, x, c, noise_level=0.8),
        lambda c: from_noise(model, to_noise(model, x, c), torch.zeros(3).long()),
        lambda c: inpaint(model, x, torch.tensor(False), c)[0],
        lambda c: denoising_path(model, 3, context=c)[0],
        lambda c: interpolate(model, x, x + 1, 3, contexts=(c, c)),
    )
    for way in ways:
        assert not torch.equal(way(torch.tensor([0, 1, 2])), way(torch.tensor([1, 2, 0])))
    with pytest.raises(InputError, match="'context' must be given to a 'diffusion' without label"):
        renoise(model, x)


def test_what_cannot_be_renoised_is_refused(digits):
    model = gaussian()
    for level in (0.0, 1.5, math.nan):
        with pytest.raises(InputError, match="'noise_level' must be above 0 and at most 1"):
            renoise(model, examples(2), noise_level=level)
    vae = create_model("vae", digits, latent_dim=2, width=16)
    with pytest.raises(InputError, match="'noise_level' must be left out for a 'vae'"):
        reconstruct(vae, digits.test.x[:2], noise_level=0.5)
    with pytest.raises(InputError, match="'num' must be at least 1"):
        inpaint(model, examples(2), torch.tensor(True), num=0)
    with pytest.raises(InputError, match="'mask' must be of a shape that broadcasts with"):
        inpaint(model, examples(2), torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="'x' must be examples of shape 4, got 3"):
        to_noise(model, examples(2, 3))


def test_what_is_made_is_in_the_units_of_the_data(digits):
    model = create_model("diffusion", digits, network="mlp", width=16, sampling_steps=8)
    x = digits.test.x[:3]
    frames, _ = denoising_path(model, 4, 3)
    made = inpaint(model, x, torch.tensor(False))
    for some in (frames, made):  # −1 … 1 in the unit of the diffusion
        assert some.min() >= 0
        assert 1 < float(some.mean()) < 16
        assert some.max() <= 16
