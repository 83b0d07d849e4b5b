"""What a model makes: repeatable, in the right order, draws apart from means."""

from __future__ import annotations

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.errors import InputError
from lowerbound.generation import decode_plane, draw, interpolate, reconstruct


@pytest.fixture(scope="module")
def model(digits):
    return create_model("vae", digits, latent_dim=2, width=16).eval()


def test_draws_repeat_with_their_seed_and_are_what_the_support_holds(model, monkeypatch):
    a, b, c = draw(model, 7, seed=1), draw(model, 7, seed=1), draw(model, 7, seed=2)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert model.support.contains(a)
    monkeypatch.setattr("lowerbound.generation.BATCH", 7)
    assert torch.equal(draw(model, 20, seed=1)[:7], a)


def test_means_are_the_means_of_the_same_latents(model):
    means, draws = draw(model, 3, mean=True), torch.zeros(3, 1, 8, 8)
    for _ in range(3):
        assert torch.equal(draw(model, 3, mean=True), means)
    z = model.prior.sample(3, generator=torch.Generator().manual_seed(0))
    p = model.decode(z)
    for seed in range(2000):
        draws += p.sample(torch.Generator().manual_seed(seed)).float() / 2000
    assert (draws - p.mean).abs().max() < 1.0
    assert not model.support.contains(means)


def test_reconstructions_are_means_at_the_posterior_mean(model, digits):
    x = digits.test.x[:5]
    expected = model.decode(model.encode(x).mean).mean
    torch.testing.assert_close(reconstruct(model, x), expected)


def test_walks_begin_and_end_at_the_reconstructions_of_their_examples(model, digits):
    x = digits.test.x[:4]
    frames = interpolate(model, x[:2], x[2:], 6)
    assert frames.shape == (2, 6, 1, 8, 8)
    ends = reconstruct(model, x)
    torch.testing.assert_close(frames[:, 0], ends[:2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(frames[:, -1], ends[2:], rtol=1e-4, atol=1e-4)


def test_the_plane_has_z1_to_the_right_and_z2_upwards(model):
    decoded, quantiles = decode_plane(model, 5)
    assert decoded.shape == (5, 5, 1, 8, 8)
    torch.testing.assert_close(quantiles, -quantiles.flip(0), atol=1e-6, rtol=0)
    corner = model.decode(torch.stack([quantiles[-1], quantiles[-1]]).unsqueeze(0)).mean[0]
    torch.testing.assert_close(decoded[0, -1], corner, rtol=1e-4, atol=1e-4)
    below = model.decode(torch.stack([quantiles[-1], quantiles[0]]).unsqueeze(0)).mean[0]
    torch.testing.assert_close(decoded[-1, -1], below, rtol=1e-4, atol=1e-4)


def test_no_draws_are_refused(model):
    with pytest.raises(InputError, match="'num' must be at least 1, got 0"):
        draw(model, 0)
