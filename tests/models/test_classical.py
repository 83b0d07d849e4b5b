"""Probabilistic PCA: every term of its bound, against full Gaussians and published values."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import InMemorySplit, Source
from lowerbound.distributions import Discrete, Real
from lowerbound.distributions.support import Counts, Product
from lowerbound.errors import InputError
from lowerbound.evaluation import log_likelihood
from tests.oracles import (
    DIGITS_PCA_ERROR,
    DIGITS_POSTERIOR_ERROR,
    DIGITS_PPCA,
    DIGITS_UNIT,
    gaussian_log_prob,
)


def whole(x: torch.Tensor, support) -> Source:
    split = InMemorySplit(x)
    return Source(split, split, split, tuple(x.shape[1:]), support)


@pytest.fixture(scope="module")
def digit_rows() -> torch.Tensor:
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().data / 16)


@pytest.mark.parametrize(("k", "nats"), DIGITS_PPCA.items())
def test_digits_have_the_known_log_likelihood(digit_rows, k, nats):
    model = create_model("ppca", (64,), support=Real(), latent_dim=k)
    model.fit_exactly(whole(digit_rows, Real()))
    assert float(model.bound(digit_rows).value.mean()) == pytest.approx(nats, abs=1e-6)
    assert model.evidence_kind == "exact"
    # The posterior mean shrinks the codes of PCA; a drawn code costs σ² per pixel in mean.
    q = model.encode(digit_rows)
    error = float((model.decode(q.mean).mean - digit_rows).square().mean())
    assert error == pytest.approx(DIGITS_POSTERIOR_ERROR[k], abs=6e-6)
    noise = torch.randn(q.mean.shape, generator=torch.Generator().manual_seed(0)).double()
    drawn = (model.decode(q.rsample(noise)).mean - digit_rows).square().mean(1)
    within = 4 * float(drawn.std()) / math.sqrt(len(drawn))
    assert float(drawn.mean()) == pytest.approx(float(model.variance), abs=within)
    # Undoing the shrinkage is PCA itself.
    basis = torch.linalg.qr(model.weight.double()).Q
    centered = digit_rows - model.mu
    lost = float((centered - centered @ basis @ basis.mT).square().mean())
    assert lost == pytest.approx(DIGITS_PCA_ERROR[k], abs=6e-6)


def test_digits_in_their_own_unit_have_the_nats_of_the_table_less_the_unit(digit_rows):
    model = create_model("ppca", (64,), support=Real(), latent_dim=10)
    model.fit_exactly(whole(16 * digit_rows, Real()))
    nats = float(model.bound(16 * digit_rows).value.mean())
    assert nats == pytest.approx(DIGITS_PPCA[10] - DIGITS_UNIT, abs=6e-5)


def fitted(x: torch.Tensor, support, k: int = 2):
    model = create_model("ppca", tuple(x.shape[1:]), support=support, latent_dim=k)
    model.fit_exactly(whole(x, support))
    covariance = model.weight @ model.weight.mT + model.variance * torch.eye(len(model.mu))
    return model, covariance.double()


def test_the_bound_is_the_exact_log_density_of_the_marginal_gaussian():
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x @ torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).double()
    model, covariance = fitted(x, Real())
    exact = gaussian_log_prob(x, model.mu, covariance)
    torch.testing.assert_close(model.bound(x).value, exact)
    weights = model.log_weight(x[:10], 7)
    torch.testing.assert_close(weights, exact[:10].expand(7, -1))


def test_dequantised_nats_are_the_exact_mean_over_the_uniform_noise():
    x = torch.randint(0, 6, (500, 4), generator=torch.Generator().manual_seed(0))
    x[:, 1] = (x[:, 0] + x[:, 1]) // 2
    model, covariance = fitted(x.to(torch.uint8), Discrete(6))
    assert model.evidence_kind == "lower bound"
    some = x[:20]
    u = torch.rand(20_000, 20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampled = gaussian_log_prob(some + u, model.mu, covariance)
    error = sampled.std(0) / len(u) ** 0.5
    assert ((model.bound(some).value - sampled.mean(0)).abs() < 4 * error).all()
    assert "dequantised" in model.notes()[0]
    # Each term by itself: reconstruction and rate under the exact posterior of x + u.
    draw = model.draw(some, 20_000, noise={**model.noise(20, 20_000), "u": u})
    assert float((draw.log_weight.mean(0) - model.bound(some).value).abs().max()) < 0.1


def test_in_a_table_only_the_discrete_columns_are_dequantised():
    support = Product((Discrete(6), Real(), Counts(), Real()))
    x = torch.randint(0, 6, (500, 4), generator=torch.Generator().manual_seed(0)).double()
    x[:, 1] = (x[:, 0] + x[:, 1] + 0.3 * x[:, 3]) / 2
    model, covariance = fitted(x, support)
    width = torch.tensor([1.0, 0, 1, 0]).double()
    some = x[:20]
    u = torch.rand(20_000, 20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampled = gaussian_log_prob(some + width * u, model.mu, covariance)
    error = sampled.std(0) / len(u) ** 0.5
    assert ((model.bound(some).value - sampled.mean(0)).abs() < 4 * error).all()
    assert model.evidence_kind == "lower bound"
    draws = model.sample(500, generator=torch.Generator().manual_seed(2))
    assert support.contains(draws)
    assert (draws[:, 1] != draws[:, 1].round()).any()
    back = model.decode(model.encode(x).mean).mean
    torch.testing.assert_close(back.mean(0), x.mean(0))


def test_the_fitted_model_is_the_maximum_of_the_likelihood():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * torch.tensor([3.0, 2, 1, 1, 0.5, 0.5])
    model, _ = fitted(x, Real())
    best = float(model.bound(x).value.mean())
    for name in ("variance", "mu"):
        tensor = getattr(model, name)
        kept = tensor.clone()
        for factor in (0.97, 1.03):
            tensor.copy_(kept * factor if name == "variance" else kept + (factor - 1))
            covariance = model.weight @ model.weight.mT + model.variance * torch.eye(6)
            assert float(gaussian_log_prob(x, model.mu, covariance.double()).mean()) < best
        tensor.copy_(kept)


def test_the_fit_to_discrete_data_has_the_variance_of_the_uniform_noise():
    x = torch.randint(0, 6, (400, 4), generator=torch.Generator().manual_seed(0))
    model, covariance = fitted(x.to(torch.uint8), Discrete(6))
    centered = x.double() - x.double().mean(0)
    eigenvalues = torch.linalg.eigvalsh(centered.mT @ centered / 400) + 1 / 12
    assert float(model.variance) == pytest.approx(float(eigenvalues[:2].mean()))
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance)[2:], eigenvalues[2:])
    torch.testing.assert_close(model.mu, x.double().mean(0) + 0.5)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_nats_follow_the_unit_exactly(unit):
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, _ = fitted(x, Real())
    other, _ = fitted(x * unit, Real())
    expected = one.bound(x).value - 5 * math.log(unit)
    torch.testing.assert_close(other.bound(x * unit).value, expected)


def test_as_many_latents_as_dimensions_are_refused():
    with pytest.raises(InputError, match="'latent_dim' must be below the 4 dimensions"):
        create_model("ppca", (4,), latent_dim=4)


def test_the_log_likelihood_needs_no_samples(digits):
    model = create_model("ppca", digits, latent_dim=5)
    model.fit_exactly(digits)
    estimate = log_likelihood(model, digits.test.x, num_samples=3)
    torch.testing.assert_close(estimate.value, model.bound(digits.test.x).value)
    assert (estimate.standard_error == 0).all()
