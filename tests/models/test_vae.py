"""The VAE: its bound against closed forms, its parts, its networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lowerbound.build import create_model
from lowerbound.distributions import Binary, Discrete
from lowerbound.errors import InputError
from lowerbound.evaluation import log_likelihood
from lowerbound.models import VAE, VAEOptions
from lowerbound.run import fit
from tests.models.linear import affine_vae
from tests.oracles import LinearGaussian, affine_bound


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_the_bound_of_an_affine_model_is_the_closed_form(kl):
    parts = {"a": 0.4, "b": -0.3, "c": 1.1, "v": 0.2, "t": 0.7, "s": 0.8}
    model = affine_vae(**parts, kl=kl)
    mu, sigma, n = 0.5, 1.5, 400_000
    generator = torch.Generator().manual_seed(0)
    x = mu + sigma * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    value = model.bound(x, generator=generator).value.detach()
    error = float(value.std()) / math.sqrt(n)
    assert float(value.mean()) == pytest.approx(affine_bound(mu, sigma, **parts), abs=4 * error)


def linear_gaussian(posterior: bool) -> tuple[VAE, torch.Tensor]:
    o = LinearGaussian()
    mean, variance = o.posterior if posterior else (o.eta, o.tau**2)
    model = affine_vae(a=0.0, b=mean, t=math.sqrt(variance), c=o.c, v=0.0, s=o.s)
    return model, torch.full((20_000, 1), o.x, dtype=torch.float64)


def test_the_importance_weighted_bounds_of_a_linear_gaussian_model():
    o = LinearGaussian()
    model, x = linear_gaussian(posterior=False)
    for num_samples, exact in ((1, o.elbo), (50, o.l_50)):
        value = log_likelihood(model, x, num_samples=num_samples).value
        error = float(value.std()) / math.sqrt(len(x))
        assert float(value.mean()) == pytest.approx(exact, abs=4 * error)
    assert o.elbo < o.l_50 < o.log_evidence


def test_with_the_true_posterior_every_weight_is_the_evidence():
    o = LinearGaussian()
    model, x = linear_gaussian(posterior=True)
    estimate = log_likelihood(model, x[:50], num_samples=20)
    torch.testing.assert_close(estimate.value, torch.full_like(estimate.value, o.log_evidence))
    torch.testing.assert_close(
        estimate.effective_sample_size, torch.full_like(estimate.value, 20.0)
    )
    assert estimate.standard_error.abs().max() < 1e-6


def test_samples_that_do_not_fit_at_once_are_counted_once(monkeypatch):
    o = LinearGaussian()
    model, x = linear_gaussian(posterior=True)
    monkeypatch.setattr("lowerbound.evaluation.likelihood.decoded_at_once", lambda model: 7)
    for num_samples in (6, 7, 20):
        value = log_likelihood(model, x[:3], num_samples=num_samples).value
        torch.testing.assert_close(value, torch.full_like(value, o.log_evidence))


def test_the_path_gradient_vanishes_at_the_true_posterior():
    model, x = linear_gaussian(posterior=True)
    noise = model.noise(5, 3, torch.Generator().manual_seed(0))
    log_weight = model.draw(x[:5], 3, noise=noise, path=True).log_weight
    (gradient,) = torch.autograd.grad(log_weight.sum(), model.encoder.bias)
    assert gradient.abs().max() < 1e-12
    ordinary = model.draw(x[:5], 3, noise=noise).log_weight
    (gradient,) = torch.autograd.grad(ordinary.sum(), model.encoder.bias)
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("num_samples", [1, 5])
def test_the_reconstruction_is_the_mean_over_samples_of_the_log_likelihood(num_samples):
    model = create_model("vae", (4,), support=Binary(), latent_dim=2, width=8).eval()
    x = torch.tensor([[0.0, 1, 1, 0], [1.0, 1, 0, 0]])
    noise = model.noise(2, num_samples, torch.Generator().manual_seed(0))
    q = model.encode(x)
    z = q.loc + q.log_scale.exp() * noise["z"]
    each = [model.decode(z[m]).log_prob(x) for m in range(num_samples)]
    bound = model.bound(x, num_samples=num_samples, noise=noise)
    torch.testing.assert_close(bound.reconstruction, torch.stack(each).mean(0))


def test_analytic_and_sampled_kl_agree_in_mean():
    analytic = create_model("vae", (4,), latent_dim=3, width=8).eval()
    sampled = create_model("vae", (4,), latent_dim=3, width=8, kl="sampled").eval()
    sampled.load_state_dict(analytic.state_dict())
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    noise = analytic.noise(1, 50_000, torch.Generator().manual_seed(1))
    exact = analytic.bound(x, num_samples=50_000, noise=noise).rates["kl"]
    estimate = sampled.bound(x, num_samples=50_000, noise=noise).rates["kl"]
    torch.testing.assert_close(estimate, exact, atol=0.05, rtol=0.02)


def test_an_isotropic_posterior_has_one_sigma_per_example():
    model = create_model("vae", (4,), latent_dim=3, width=8, posterior="isotropic")
    q = model.encode(torch.randn(5, 4))
    assert q.log_scale.shape == (5, 1)
    bound = model.bound(torch.randn(5, 4))
    assert bound.details["kl"].shape == (5, 3)
    variance = (2 * model.encode(torch.zeros(1, 4)).log_scale).exp()
    q = model.encode(torch.zeros(1, 4))
    closed = 0.5 * (3 * variance + q.loc.square().sum() - 3 - 3 * variance.log())
    torch.testing.assert_close(model.bound(torch.zeros(1, 4)).rates["kl"], closed.flatten())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 47), (1, 5, 70), (4, 1, 1)])
@pytest.mark.parametrize("network", ["mlp", "hybrid", "conv"])
def test_networks_fit_images_of_any_size(shape, network):
    model = create_model(
        "vae", shape, support=Discrete(256), network=network, width=8, latent_dim=4
    )
    x = torch.randint(0, 256, (2, *shape))
    assert model.bound(x).value.isfinite().all()
    assert model.sample(3).shape == (3, *shape)


def test_the_network_follows_the_data():
    for shape, encoder, decoder in (
        ((5,), "Mlp", "Mlp"),
        ((1, 8, 8), "Mlp", "Mlp"),
        ((1, 28, 28), "Mlp", "HybridDecoder"),
        ((3, 64, 64), "ConvEncoder", "ConvDecoder"),
    ):
        model = create_model("vae", shape, width=8)
        kinds = (type(model.encoder).__name__, type(model.decoder).__name__)
        assert kinds == (encoder, decoder)
    with pytest.raises(InputError, match="'network' must be mlp for data of shape 5"):
        create_model("vae", (5,), network="conv")


def test_networks_of_ones_own_are_used_and_their_mistakes_named(digits, tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * 2))
    decoder = nn.Linear(2, 2 * 64)
    model = create_model("vae", digits, latent_dim=2, encoder=encoder, decoder=decoder)
    assert model.encoder is encoder
    run = fit(model, digits, steps=3, quiet=True)
    assert run.model is model
    with pytest.raises(InputError, match="'encoder' must be a network with 4 outputs"):
        create_model("vae", digits, latent_dim=2, encoder=nn.Flatten(), decoder=decoder)
    with pytest.raises(InputError, match="'decoder' must be a network that takes 2×2 tensors"):
        create_model("vae", digits, latent_dim=2, encoder=encoder, decoder=nn.Linear(3, 128))


def test_an_option_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="'latent_dim' must be at least 1"):
        VAEOptions(latent_dim=0)
    with pytest.raises(InputError, match="'sigma' must be left out for a bernoulli"):
        create_model("vae", (3,), support=Binary(), sigma=0.5)
    with pytest.raises(InputError, match=r"'likelihood' must be one that fits discrete:256 data"):
        create_model("vae", (3,), support=Discrete(256), likelihood="gaussian")


def test_extreme_encoders_stay_finite():
    model = create_model("vae", (3,), latent_dim=2, width=8)
    with torch.no_grad():
        model.encoder.last.bias.copy_(torch.tensor([1e4, -1e4, 1e4, -1e4]))
    bound = model.bound(torch.zeros(2, 3))
    bound.value.sum().backward()
    assert bound.value.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
