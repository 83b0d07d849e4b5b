"""The diagonal Gaussian: constants, signs, the stable KL, and every kind of sigma."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.data import Rows, make_source
from lowerbound.distributions import DiagonalGaussian, GaussianLikelihood, Real, kl_gaussian
from lowerbound.errors import InputError
from lowerbound.models import VAE, VAEOptions


def random_gaussian(seed: int, dims: int = 4) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    loc, log_scale = torch.randn(2, 3, dims, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(loc, 0.5 * log_scale)


def as_torch(q: DiagonalGaussian) -> torch.distributions.Distribution:
    return torch.distributions.Independent(torch.distributions.Normal(q.loc, q.log_scale.exp()), 1)


def test_log_prob_and_entropy_keep_every_constant():
    q, x = random_gaussian(0), torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(x), as_torch(q).log_prob(x))
    torch.testing.assert_close(q.entropy(), as_torch(q).entropy())
    standard = DiagonalGaussian(torch.zeros(1, 4), torch.zeros(1, 4))
    at_mode = float(standard.log_prob(torch.zeros(1, 4)))
    assert at_mode == pytest.approx(-2 * math.log(2 * math.pi))


def test_kl_agrees_with_torch_and_with_monte_carlo():
    q, p = random_gaussian(1), random_gaussian(2)
    exact = torch.distributions.kl_divergence(as_torch(q), as_torch(p))
    torch.testing.assert_close(kl_gaussian(q, p).sum(-1), exact)
    noise = torch.randn(200_000, 3, 4, generator=torch.Generator().manual_seed(3)).double()
    z = q.rsample(noise)
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - exact).abs() < 4 * error).all()


def test_kl_to_the_standard_normal_is_half_the_sum_of_variance_and_square_minus_one_minus_log():
    q = random_gaussian(4)
    variance = (2 * q.log_scale).exp()
    formula = 0.5 * (variance + q.loc.square() - 1 - variance.log())
    torch.testing.assert_close(kl_gaussian(q), formula)


def test_gradients_of_the_kl_are_mean_and_sigma_minus_its_inverse():
    loc = torch.tensor([[0.7, -2.0]], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([[0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    kl_gaussian(DiagonalGaussian(loc, sigma.log())).sum().backward()
    torch.testing.assert_close(loc.grad, loc.detach())
    torch.testing.assert_close(sigma.grad, (sigma - 1 / sigma).detach())


@pytest.mark.parametrize("difference", [1e-7, 1e-5, 1e-3, 4e-3, 6e-3, 0.1])
def test_kl_in_float32_does_not_cancel_next_to_the_prior(difference):
    log_scale = torch.full((1, 1), difference)
    exact = kl_gaussian(DiagonalGaussian(torch.zeros(1, 1).double(), log_scale.double()))
    rough = kl_gaussian(DiagonalGaussian(torch.zeros(1, 1), log_scale))
    assert float(exact) > 0
    assert float(rough) == pytest.approx(float(exact), rel=1e-4, abs=0)


def test_the_entropy_gradient_is_exact_but_the_expectation_must_not_be_exchanged():
    log_scale = torch.zeros(5, requires_grad=True)
    q = DiagonalGaussian(torch.zeros(5), log_scale)
    noise = torch.randn(100_000, 5, generator=torch.Generator().manual_seed(0))
    z = q.rsample(noise)
    (pathwise,) = torch.autograd.grad(-q.log_prob(z).mean(), log_scale, retain_graph=True)
    torch.testing.assert_close(pathwise, torch.ones(5), atol=1e-4, rtol=0)
    (exchanged,) = torch.autograd.grad(-q.log_prob(z.detach()).mean(), log_scale)
    assert exchanged.abs().max() < 0.03  # zero in mean: the wrong gradient


def test_reparameterised_draws_have_the_mean_and_the_variance():
    q = random_gaussian(5)
    z = q.rsample(torch.randn(100_000, 3, 4, generator=torch.Generator().manual_seed(1)).double())
    torch.testing.assert_close(z.mean(0), q.loc, atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(0), q.log_scale.exp(), rtol=0.02, atol=0)


def test_half_a_variance_makes_the_squared_error_and_a_pixel_mean_is_a_beta_of_d():
    x, raw = torch.randn(2, 6), torch.randn(2, 6)
    p = GaussianLikelihood((6,), Real(), math.sqrt(0.5))(raw)
    squared_error = (x - raw).square().sum(1)
    torch.testing.assert_close(-p.log_prob(x), squared_error + 3 * math.log(math.pi))
    wide = GaussianLikelihood((6,), Real(), math.sqrt(6 / 2))(raw)  # sigma² = D/2
    constant = 3 * math.log(2 * math.pi * 3)
    torch.testing.assert_close(-wide.log_prob(x) - constant, (x - raw).square().mean(1))


@pytest.mark.parametrize("sigma", ["scalar", "dimension", "decoder", "optimal", 0.3])
def test_every_sigma_counts_in_the_units_of_the_data(sigma):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=generator) * torch.tensor([1.0, 1000.0]) + 7
    likelihood = GaussianLikelihood((2,), Real(), sigma).eval()
    likelihood.calibrate(x)
    p = likelihood(torch.zeros(1, 2 * likelihood.num_outputs))
    torch.testing.assert_close(p.mean[0], x.mean(0))
    if sigma == "dimension":  # the unit of each column enters its nats: log 1000 here
        torch.testing.assert_close(p.log_scale.exp().flatten(), x.std(0, correction=0))


def test_the_optimal_sigma_is_the_mean_squared_error_of_the_batch_and_then_of_the_training_set():
    likelihood = GaussianLikelihood((3,), Real(), "optimal")
    raw, x = torch.zeros(10, 3), torch.randn(10, 3)
    p = likelihood.train()(raw, x)
    assert float(p.log_scale.exp() ** 2) == pytest.approx(float(x.square().mean()))
    likelihood.store_optimal(torch.tensor(4.0))
    assert float(likelihood.eval()(raw, x).log_scale.exp()) == pytest.approx(2.0)


def test_a_constant_column_never_makes_the_likelihood_infinite():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 2, generator=generator)
    x[:, 1] = 3.0
    source = make_source(Rows(x=x, support=Real(), name="constant"))
    model = VAE.build((2,), Real(), VAEOptions(latent_dim=1, width=8))
    model.calibrate(source)
    with torch.no_grad():
        model.likelihood.log_sigma.fill_(-100.0)  # as far down as training could ever push it
    value = model.bound(source.train.x).value
    assert value.isfinite().all()
    floor = -math.log(GaussianLikelihood.FLOOR)
    assert float(value.detach().max()) < 2 * floor + 2
    assert "floor of 0.001" in model.notes()[0]


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, "other"])
def test_a_sigma_that_is_none_is_refused(sigma):
    with pytest.raises(InputError, match="'sigma' must be"):
        GaussianLikelihood((2,), Real(), sigma)
